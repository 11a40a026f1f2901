"""Converts the values of a recorded input to an array of the type and shape that the model declares."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.dtypes import BYTES, DataType
from inferd.plain_text import clipped

Array = NDArray[np.generic]

#: The types that JSON's values have here, by numpy's kind of what they become; those of other kinds are floats.
_ACCEPTED: Mapping[str, frozenset[type]] = {
    "O": frozenset({str}),
    "b": frozenset({bool}),
    "i": frozenset({int}),
    "u": frozenset({int}),
}
_NUMBERS: frozenset[type] = frozenset({int, float})

#: No model declares more; YAML, unlike JSON, has lists that hold themselves.
_MOST_DIMENSIONS = 64


@dataclass(frozen=True, slots=True)
class InputForm:
    """What an array must be like to be one input of a model.

    ``shape`` has an ``int`` for a fixed dimension, a ``str`` for an open one with a name and ``None`` for one without.
    ``batch_axis`` is the dimension that counts rows, or None where there is none or it is not known yet. An input that
    is ``optional`` may be left out of requests.
    """

    name: str
    datatype: DataType
    shape: tuple[int | str | None, ...]
    batch_axis: int | None
    optional: bool


def from_json(form: InputForm, value: object) -> Array:
    """Make an array of ``value``, a number, text or boolean or lists of them, as parsers of JSON and YAML give them.

    Where the batch axis is known, a value with one dimension less than declared is taken to be a single row, and gets
    the batch dimension.

    Raises:
        ValueError: Elements are not of the declared type or beyond its range, lists do not line up, or the shape is not
            what is declared; the text names the input.
    """
    with naming(form):
        elements, shape = flattened(value)
        flat = converted(form.datatype, elements)
        return shaped(form, flat, with_rows(form, shape))


class MismatchError(Exception):
    """What is wrong with an input, without its name."""


@contextmanager
def naming(form: InputForm) -> Iterator[None]:
    """Turn a `MismatchError` in the block into a ValueError that names the input."""
    try:
        yield
    except MismatchError as error:
        msg = f'input "{form.name}": {error}'
        raise ValueError(msg) from None


def flattened(value: object) -> tuple[list[Any], tuple[int, ...]]:
    """Return the elements of lists in lists, and the shape that these have."""
    level: list[Any] = [value]
    shape: list[int] = []
    while any(isinstance(item, list) for item in level):
        if len(shape) == _MOST_DIMENSIONS:
            raise MismatchError(f"expected at most {_MOST_DIMENSIONS} dimensions, got lists nested more deeply")
        shapes: list[tuple[int, ...]] = sorted({(len(item),) if isinstance(item, list) else () for item in level})
        if len(shapes) > 1:
            raise MismatchError(
                f"expected lists of one shape beside each other, got {list(shapes[0])} and {list(shapes[1])}"
            )
        shape.append(shapes[0][0])
        level = [inner for item in level for inner in item]
    return level, tuple(shape)


def converted(datatype: DataType, elements: list[Any]) -> Array:
    """Return values of JSON as a one-dimensional array of the declared type."""
    kind = datatype.numpy.kind
    accepted = _ACCEPTED.get(kind, _NUMBERS)
    for element in elements:
        # Exact types, because a Python bool is an int as well.
        if type(element) not in accepted:
            raise MismatchError(f"expected {datatype.name}, got {shown(element)}")
    if datatype is BYTES:
        return _texts(elements)
    if kind in "iu":
        _require_range(datatype, elements)
    elif kind != "b":
        return _rounded(datatype, _doubles(datatype, elements))
    return np.array(elements, datatype.numpy)


def _doubles(datatype: DataType, elements: list[Any]) -> NDArray[Any]:
    try:
        return np.array(elements, np.float64)
    except OverflowError:
        largest = max((element for element in elements if isinstance(element, int)), key=abs)
        raise _beyond(datatype, largest) from None


def cast(datatype: DataType, array: NDArray[Any]) -> Array:
    """Return an array of the declared type, in C's order; changes numbers to another type of their kind only."""
    target, kind = datatype.numpy, array.dtype.kind
    if datatype is BYTES and kind in "SU":
        try:
            elements = array.ravel().tolist()
        except (ValueError, SystemError):
            # numpy does not look at what it reads as characters.
            raise MismatchError("expected text, got numbers that are no characters") from None
        return _texts(elements).reshape(array.shape)
    if array.dtype.newbyteorder("=") == target:
        return array.astype(target, order="C", copy=False)
    if target.kind == "V" and array.dtype == np.dtype("V2"):
        # How numpy, whose format knows no bfloat16, writes it.
        return np.asarray(array, order="C").view(target)
    if target.kind in "fV" and kind in "fiu":
        return _rounded(datatype, array)
    if target.kind in "iu" and kind in "iu":
        _require_range(datatype, [array.min(), array.max()] if array.size else [])
        return array.astype(target, order="C")
    raise MismatchError(f"expected {datatype.name}, got dtype {clipped(str(array.dtype))}")


def _require_range(datatype: DataType, integers: Iterable[Any]) -> None:
    bounds = np.iinfo(datatype.numpy.type)  # type: ignore[type-var]  # callers have looked at its kind
    for integer in map(int, integers):
        if not bounds.min <= integer <= bounds.max:
            raise _beyond(datatype, integer)


def _rounded(datatype: DataType, exact: NDArray[Any]) -> Array:
    with np.errstate(all="ignore"):
        rounded = exact.astype(datatype.numpy, order="C")
    lost = np.isfinite(exact) & ~np.isfinite(rounded.astype(np.float64))
    if lost.any():
        raise _beyond(datatype, exact[lost][0].item())
    return rounded


def _texts(elements: Sequence[str | bytes]) -> Array:
    """Return a BYTES array. ``np.array`` would make a fixed-width one and drop trailing zeros."""
    array = np.empty(len(elements), object)
    array[:] = [_utf8(element, position) for position, element in enumerate(elements)]
    return array


def _utf8(element: str | bytes, position: int) -> bytes:
    try:
        if isinstance(element, str):
            return element.encode()
        element.decode()
    except UnicodeError:
        what = "a lone surrogate" if isinstance(element, str) else "other bytes"
        raise MismatchError(f"expected UTF-8 text, got {what} in element {position}") from None
    return element


def with_rows(form: InputForm, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``shape``, with a batch dimension if it lacks just that."""
    axis = form.batch_axis
    return shape if axis is None or len(shape) != len(form.shape) - 1 else (*shape[:axis], 1, *shape[axis:])


def shaped(form: InputForm, array: Array, shape: tuple[int, ...]) -> Array:
    """Return ``array``, which has as many elements, in ``shape``, which must be one that is declared."""
    if len(shape) == len(form.shape) and all(
        not isinstance(declared, int) or declared == size for declared, size in zip(form.shape, shape, strict=True)
    ):
        try:
            return array.reshape(shape)
        except (ValueError, OverflowError):
            # Only for shapes of zero elements with dimensions that no array can have.
            raise MismatchError(f"shape {clipped(str(shape))} is too large") from None
    raise MismatchError(f"expected shape {shape_text(form.shape)}, got {clipped(str(list(shape)))}")


def _beyond(datatype: DataType, number: float) -> MismatchError:
    return MismatchError(f"expected {datatype.name}, got a number beyond its range: {shown(number)}")


def shape_text(shape: Sequence[int | str | None]) -> str:
    """Write a declared shape, with ``?`` for an open dimension without a name."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def shown(value: object) -> str:
    """Write a value as JSON, the beginning of a long one."""
    try:
        return clipped(json.dumps(value, default=str))
    except (TypeError, ValueError, RecursionError):
        # Keys that are no text, numbers of thousands of digits, values that hold themselves.
        return f"a {type(value).__name__}"
