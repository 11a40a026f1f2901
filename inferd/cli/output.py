"""Output of commands: arrays and tables as text and JSON, and .npy files."""

import base64
import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferd.cli.failures import CommandError
from inferd.plain_text import escaped, replaced

#: Wider than any table: output to files and pipes is not truncated to a terminal's width.
_UNLIMITED_COLUMNS = 100_000

_LINE_END = "\n"


def array_text(array: NDArray[Any]) -> str:
    """Format the values of an array, abbreviated in the middle if it is long."""
    if array.dtype.hasobject:
        texts = [element.decode(errors="backslashreplace") for element in array.ravel()]
        array = np.array([*texts, None], dtype=object)[:-1].reshape(array.shape)
    return np.array2string(
        _numbers(array), separator=", ", max_line_width=max(20, shutil.get_terminal_size().columns - 2)
    )


def array_json(array: NDArray[Any]) -> dict[str, object]:
    """Return the shape and the values of an array as JSON.

    Non-finite numbers become the strings NaN, Infinity and -Infinity, as in protobuf's JSON. Byte strings become text,
    or all of them base64 if one is not UTF-8; ``encoding`` is set then.
    """
    shape = list(array.shape)
    if not array.dtype.hasobject:
        return {"shape": shape, "data": _map(json_number, _numbers(array).tolist())}
    try:
        return {"shape": shape, "data": _map(bytes.decode, array.tolist())}
    except UnicodeDecodeError:
        data = _map(lambda element: base64.b64encode(element).decode(), array.tolist())
        return {"shape": shape, "encoding": "base64", "data": data}


def print_json(value: object) -> None:
    """Print strict JSON, with control characters escaped for the terminal."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    print(replaced(text, lambda character: json.dumps(character)[1:-1]))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table. Cells may have several lines."""
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(escaped(cell, keep=_LINE_END)) for cell in row))
    Console(width=None if sys.stdout.isatty() else _UNLIMITED_COLUMNS).print(table)


def _numbers(array: NDArray[Any]) -> NDArray[Any]:
    """Convert bfloat16 to float32, which numpy can print and JSON can encode."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def json_number(value: float) -> float | str:
    """Return a number as strict JSON has it: a text for NaN and the infinities."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _map(function: Callable[[Any], object], value: object) -> object:
    """Apply ``function`` to the elements of nested lists."""
    return [_map(function, item) for item in value] if isinstance(value, list) else function(value)


def save_outputs(targets: Sequence[str], outputs: Mapping[str, NDArray[Any]]) -> dict[str, Path]:
    """Save the outputs selected by ``targets``, each DIR or NAME=FILE.npy. Return the file of each saved output."""
    files: dict[str, Path] = {}
    for target in targets:
        name, separator, file = target.partition("=")
        if not separator:
            files |= {output: Path(target) / f"{_file_name(output)}.npy" for output in outputs}
        elif name in outputs:
            files[name] = Path(file)
        else:
            raise CommandError(f'--save {target}: no such output "{name}", the model returned {", ".join(outputs)}')
    for output, path in files.items():
        _save(path, outputs[output])
    return files


def _file_name(output: str) -> str:
    """Return a file name without path separators, whatever the name of the output."""
    return re.sub(r"[^\w.:-]", "_", output).lstrip(".") or "_"


def _save(path: Path, array: NDArray[Any]) -> None:
    if array.dtype.hasobject:
        array = array.astype(np.bytes_)
    elif array.dtype.kind == "V":
        # The .npy format has no bfloat16; float32 holds every value of it.
        array = array.astype(np.float32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Opened here because numpy would append .npy to other names.
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {error.strerror}") from None
