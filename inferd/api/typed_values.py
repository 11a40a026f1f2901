"""Tensors as typed lists, as people write them in JSON: checked and converted to the model's element type."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.api.tensor_bytes import object_array, wrong
from inferd.dtypes import BYTES, DataType
from inferd.errors import InvalidInputError

#: Elements that are converted in one go. Each go keeps Python's interpreter lock for up to 5 ms.
_CHUNK = 50_000


def from_bools(name: str, datatype: DataType, values: Sequence[bool]) -> NDArray[np.generic]:
    """Return BOOL elements; any other ``datatype`` is refused."""
    if datatype.name != "BOOL":
        raise _wrong_list(name, datatype, "booleans")
    return _gathered(values, np.dtype(np.bool_))


def from_integers(name: str, datatype: DataType, values: Sequence[int]) -> NDArray[np.generic]:
    """Return integer or floating-point elements, refusing a value that an integer ``datatype`` cannot hold."""
    dtype = datatype.numpy
    if dtype.kind not in "iu":
        return from_floats(name, datatype, values)
    bounds = np.iinfo(dtype.type)  # type: ignore[type-var]  # the kind was checked above
    flat = np.empty(len(values), dtype)
    for start, chunk in _chunks(values):
        exact = _exact(chunk)
        outside = (exact < bounds.min) | (exact > bounds.max)
        if outside.any():
            # Its position and not the value, because texts of errors are logged.
            raise wrong(
                name,
                f"expected {datatype.name} values from {bounds.min} to {bounds.max}, "
                f"got another as element {start + outside.argmax()}",
            )
        flat[start : start + len(chunk)] = exact
    return flat


def from_floats(name: str, datatype: DataType, values: Sequence[float]) -> NDArray[np.generic]:
    """Return floating-point elements, refusing a finite value that is beyond the range of ``datatype``."""
    if datatype.name not in {"FP16", "BF16", "FP32", "FP64"}:
        raise _wrong_list(
            name, datatype, "floating-point numbers" if values and isinstance(values[0], float) else "integers"
        )
    exact = _gathered(values, np.dtype(np.float64))
    with np.errstate(over="ignore"):
        rounded = exact.astype(datatype.numpy)
    lost = np.isfinite(exact) & ~np.isfinite(rounded.astype(np.float64))
    if lost.any():
        raise wrong(
            name, f"expected values within the range of {datatype.name}, got one beyond as element {lost.argmax()}"
        )
    return rounded


def from_strings(name: str, datatype: DataType, values: Sequence[str]) -> NDArray[np.generic]:
    """Return text as BYTES elements; any other ``datatype`` is refused."""
    return from_byte_strings(name, datatype, [value.encode() for value in values])


def from_byte_strings(name: str, datatype: DataType, values: Sequence[bytes]) -> NDArray[np.generic]:
    """Return BYTES elements; any other ``datatype`` is refused."""
    if datatype is not BYTES:
        raise _wrong_list(name, datatype, "strings")
    return object_array(values)


def _exact(values: Sequence[int]) -> NDArray[np.integer[Any]]:
    """Return integers as they are; a list has none below 0 beside those that need 64 unsigned bits."""
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return np.array(values, np.uint64)


def _gathered(values: Sequence[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    flat = np.empty(len(values), dtype)
    for start, chunk in _chunks(values):
        flat[start : start + len(chunk)] = chunk
    return flat


def _chunks(values: Sequence[Any]) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield parts of ``values``, each with the position of its first element."""
    for start in range(0, len(values), _CHUNK):
        yield start, values[start : start + _CHUNK]


def to_list(array: NDArray[np.generic]) -> tuple[str, list[Any]]:
    """Return the list of ``inferd.v1.Tensor`` that the elements of ``array`` belong in, by name, and the elements."""
    flat = array.ravel()
    kind = flat.dtype.kind
    if kind == "O":
        return _text_or_bytes(flat.tolist())
    if kind in _LIST_OF_KIND:
        return _LIST_OF_KIND[kind], flat.tolist()
    # Short digits that tell the element apart in its own type: 0.1 and not 0.10000000149011612.
    return "floats", [float(str(element)) for element in flat]


#: By the kind of a numpy dtype; the other kinds are floating-point.
_LIST_OF_KIND = {"b": "bools", "i": "ints", "u": "uints"}


def _text_or_bytes(elements: list[bytes]) -> tuple[str, list[Any]]:
    try:
        return "strings", [element.decode() for element in elements]
    except UnicodeDecodeError:
        return "bytes_values", elements


def _wrong_list(name: str, datatype: DataType, given: str) -> InvalidInputError:
    return wrong(name, f"expected values of {datatype.name}, got a list of {given}")
