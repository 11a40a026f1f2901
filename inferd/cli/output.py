"""How arrays, shapes and tables look: for people, and as JSON for programs."""

import base64
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferd.plain_text import escaped, replaced

#: Wider than any table: output that goes to a file or another program is not cut to the width of a terminal.
_UNLIMITED_COLUMNS = 100_000

_LINE_END = "\n"


def shape_text(shape: Iterable[int | str | None]) -> str:
    """Write a declared shape, with ``?`` for an open dimension that has no name."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def array_text(array: NDArray[Any]) -> str:
    """Write the values of an array; the middle of a long one is left out."""
    if array.dtype.hasobject:
        texts = [element.decode(errors="backslashreplace") for element in array.ravel()]
        array = np.array([*texts, None], dtype=object)[:-1].reshape(array.shape)
    return np.array2string(
        _numbers(array), separator=", ", max_line_width=max(20, shutil.get_terminal_size().columns - 2)
    )


def array_json(array: NDArray[Any]) -> dict[str, object]:
    """Return the shape and the values of an array in terms of JSON.

    Numbers that JSON does not have become the texts NaN, Infinity and -Infinity. Byte strings become text or, if one
    of them is not UTF-8, all of them base64, as ``encoding`` then says.
    """
    shape = list(array.shape)
    if not array.dtype.hasobject:
        return {"shape": shape, "data": _map(_json_number, _numbers(array).tolist())}
    try:
        return {"shape": shape, "data": _map(bytes.decode, array.tolist())}
    except UnicodeDecodeError:
        data = _map(lambda element: base64.b64encode(element).decode(), array.tolist())
        return {"shape": shape, "encoding": "base64", "data": data}


def print_json(value: object) -> None:
    """Print JSON that any parser reads, and that a terminal can show."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    print(replaced(text, lambda character: json.dumps(character)[1:-1]))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(escaped(cell, keep=_LINE_END)) for cell in row))
    Console(width=None if sys.stdout.isatty() else _UNLIMITED_COLUMNS).print(table)


def _numbers(array: NDArray[Any]) -> NDArray[Any]:
    """Return floats for bfloat16, whose values numpy and JSON do not know."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _json_number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _map(function: Callable[[Any], object], value: object) -> object:
    """Apply ``function`` to the elements of lists in lists."""
    return [_map(function, item) for item in value] if isinstance(value, list) else function(value)
