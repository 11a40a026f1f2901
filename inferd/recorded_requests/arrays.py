"""Convert the values of a recorded input to an array of the declared type and shape."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.dtypes import BYTES, DataType, rounded
from inferd.minus_zero import MinusZero
from inferd.plain_text import clipped

Array = NDArray[np.generic]

#: Types of JSON values accepted for each numpy kind; other kinds accept numbers.
_ACCEPTED: Mapping[str, frozenset[type]] = {
    "O": frozenset({str}),
    "b": frozenset({bool}),
    "i": frozenset({int, MinusZero}),
    "u": frozenset({int, MinusZero}),
}
_NUMBERS: frozenset[type] = frozenset({int, MinusZero, float})

#: More than any model declares. YAML, unlike JSON, may have recursive lists.
_MAX_DIMENSIONS = 64


@dataclass(frozen=True, slots=True)
class InputForm:
    """The declaration of one input of a model.

    ``shape`` has an ``int`` for a fixed dimension, a ``str`` for a named dynamic one and ``None`` for an unnamed one.
    ``batch_axis`` is the dimension that counts rows, or None if there is none or it is unknown. Requests may omit an
    ``optional`` input.
    """

    name: str
    datatype: DataType
    shape: tuple[int | str | None, ...]
    batch_axis: int | None
    optional: bool


def from_json(form: InputForm, value: object) -> Array:
    """Convert ``value``, a number, string or boolean or nested lists of them from JSON or YAML, to an array.

    If the batch axis is known, a value with one dimension less than declared is a single row, and gets the batch
    dimension.

    Raises:
        ValueError: Elements do not have the declared type or are out of its range, lists are ragged, or the shape
            differs from the declared one. The message names the input.
    """
    with naming_input(form):
        elements, shape = flatten(value)
        flat = convert(form.datatype, elements)
        return reshape(form, flat, with_batch_axis(form, shape))


class MismatchError(Exception):
    """An input does not match its declaration. The message lacks the name of the input."""


@contextmanager
def naming_input(form: InputForm) -> Iterator[None]:
    """Turn a `MismatchError` in the block into a ValueError that names the input."""
    try:
        yield
    except MismatchError as error:
        msg = f'input "{form.name}": {error}'
        raise ValueError(msg) from None


def flatten(value: object) -> tuple[list[Any], tuple[int, ...]]:
    """Return the elements of nested lists, and their shape."""
    level: list[Any] = [value]
    shape: list[int] = []
    while any(isinstance(item, list) for item in level):
        if len(shape) == _MAX_DIMENSIONS:
            raise MismatchError(f"expected at most {_MAX_DIMENSIONS} dimensions, got lists nested more deeply")
        shapes: list[tuple[int, ...]] = sorted({(len(item),) if isinstance(item, list) else () for item in level})
        if len(shapes) > 1:
            raise MismatchError(
                f"expected lists of one shape beside each other, got {list(shapes[0])} and {list(shapes[1])}"
            )
        shape.append(shapes[0][0])
        level = [inner for item in level for inner in item]
    return level, tuple(shape)


def convert(datatype: DataType, elements: list[Any]) -> Array:
    """Return JSON values as a one-dimensional array of the declared type."""
    kind = datatype.numpy.kind
    accepted = _ACCEPTED.get(kind, _NUMBERS)
    for element in elements:
        # Exact types, because bool is a subclass of int.
        if type(element) not in accepted:
            raise MismatchError(f"expected {datatype.name}, got {quote(element)}")
    if datatype is BYTES:
        return _bytes_array(elements)
    if kind in "iu":
        _require_range(datatype, elements)
    elif kind != "b":
        return _to_floats(datatype, _to_float64(datatype, elements))
    return np.array(elements, datatype.numpy)


def _to_float64(datatype: DataType, elements: list[Any]) -> NDArray[Any]:
    try:
        return np.array(elements, np.float64)
    except OverflowError:
        largest = max((element for element in elements if isinstance(element, int)), key=abs)
        raise _out_of_range(datatype, largest) from None


def cast(datatype: DataType, array: NDArray[Any]) -> Array:
    """Return a C-contiguous array of the declared type. Numbers are converted within their kind only."""
    target, kind = datatype.numpy, array.dtype.kind
    if datatype is BYTES and kind in "SU":
        try:
            elements = array.ravel().tolist()
        except (ValueError, SystemError):
            # numpy does not validate code points.
            raise MismatchError("expected text, got numbers that are no characters") from None
        return _bytes_array(elements).reshape(array.shape)
    if array.dtype.newbyteorder("=") == target:
        return array.astype(target, order="C", copy=False)
    if target.kind == "V" and array.dtype == np.dtype("V2"):
        # numpy's format has no bfloat16, and stores it like this.
        return np.asarray(array, order="C").view(target)
    if target.kind in "fV" and kind in "fiu":
        return _to_floats(datatype, array)
    if target.kind in "iu" and kind in "iu":
        _require_range(datatype, [array.min(), array.max()] if array.size else [])
        return array.astype(target, order="C")
    raise MismatchError(f"expected {datatype.name}, got dtype {clipped(str(array.dtype))}")


def _require_range(datatype: DataType, integers: Iterable[Any]) -> None:
    bounds = np.iinfo(datatype.numpy.type)  # type: ignore[type-var]  # callers have checked the kind
    for integer in map(int, integers):
        if not bounds.min <= integer <= bounds.max:
            raise _out_of_range(datatype, integer)


def _to_floats(datatype: DataType, exact: NDArray[Any]) -> Array:
    with np.errstate(all="ignore"):
        floats = rounded(exact, datatype.numpy)
    lost = np.isfinite(exact) & ~np.isfinite(floats.astype(np.float64))
    if lost.any():
        raise _out_of_range(datatype, exact[lost][0].item())
    return floats


def _bytes_array(elements: Sequence[str | bytes]) -> Array:
    """Return a BYTES array. ``np.array`` would create a fixed-width one and drop trailing zeros."""
    array = np.empty(len(elements), object)
    array[:] = [_encode(element, position) for position, element in enumerate(elements)]
    return array


def _encode(element: str | bytes, position: int) -> bytes:
    try:
        if isinstance(element, str):
            return element.encode()
        element.decode()
    except UnicodeError:
        what = "a lone surrogate" if isinstance(element, str) else "other bytes"
        raise MismatchError(f"expected UTF-8 text, got {what} in element {position}") from None
    return element


def with_batch_axis(form: InputForm, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``shape``, with the batch dimension if only that is missing."""
    axis = form.batch_axis
    return shape if axis is None or len(shape) != len(form.shape) - 1 else (*shape[:axis], 1, *shape[axis:])


def reshape(form: InputForm, array: Array, shape: tuple[int, ...]) -> Array:
    """Reshape ``array`` to ``shape``, which must match the declaration."""
    if len(shape) == len(form.shape) and all(
        not isinstance(declared, int) or declared == size for declared, size in zip(form.shape, shape, strict=True)
    ):
        try:
            return array.reshape(shape)
        except (ValueError, OverflowError):
            # Only empty arrays with dimensions beyond numpy's limits get here.
            raise MismatchError(f"shape {clipped(str(shape))} is too large") from None
    raise MismatchError(f"expected shape {shape_text(form.shape)}, got {clipped(str(list(shape)))}")


def _out_of_range(datatype: DataType, number: float) -> MismatchError:
    return MismatchError(f"expected {datatype.name}, got a number beyond its range: {quote(number)}")


def shape_text(shape: Sequence[int | str | None]) -> str:
    """Format a declared shape, with ``?`` for a dynamic dimension without a name."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def quote(value: object) -> str:
    """Format a value as JSON, truncated if it is long."""
    try:
        return clipped(json.dumps(value, default=str))
    except (TypeError, ValueError, RecursionError):
        # Keys that are no strings, integers with thousands of digits, recursive values.
        return f"a {type(value).__name__}"
