"""Tensors on the wire: as raw bytes or as typed lists, to and from arrays.

Raw bytes have the layout of the Open Inference Protocol's ``raw_input_contents``, in both protocols: little-endian,
row-major, without padding, each BYTES element preceded by its length. Typed lists are what people write in JSON.
"""

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from inferd.dtypes import BYTES, DataType, rounded
from inferd.errors import InvalidInputError, Place
from inferd.interpreter_lock import POLL_THREAD

Array = NDArray[np.generic]
Chunked = TypeVar("Chunked", Array, Sequence[Any])

_LENGTH = struct.Struct("<I")

#: From this size on, a view is faster than a copy.
_LARGE_BYTES = 8192

#: Elements converted in one step, which holds the GIL for about 0.2 ms. 50,000 at a time are no faster. Other threads
#: run between two steps.
_CHUNK = 4_000

#: More elements take long to encode if each takes a step of Python.
_MAX_QUICK_ELEMENTS = 4096


def invalid(name: str, text: str, aspect: Literal["datatype", "shape", "elements"] = "elements") -> InvalidInputError:
    """Return the error that says ``text`` about input ``name``."""
    return InvalidInputError(f'input "{name}": {text}', at=Place("input", name, aspect))


def shaped(name: str, flat: Array, shape: Sequence[int]) -> Array:
    """Return ``flat`` in ``shape``. Raises `InvalidInputError` for a shape that does not fit or is too large."""
    _require_elements(name, flat.size, shape)
    return _reshape(name, flat, shape)


def check_long_list(name: str, count: int, shape: Sequence[int]) -> None:
    """Raise as `shaped` for a list of ``count`` elements that takes long to convert, before it is converted."""
    if count > _CHUNK:
        _require_elements(name, count, shape)


def _require_elements(name: str, count: int, shape: Sequence[int]) -> None:
    expected = element_count(name, shape)
    if count != expected:
        raise invalid(name, f"expected {expected} elements for shape {list(shape)}, got {count}")


def element_count(name: str, shape: Sequence[int]) -> int:
    """Return the number of elements of a tensor of ``shape``. Raises `InvalidInputError` for a negative dimension."""
    if min(shape, default=0) < 0:
        raise invalid(name, f"expected dimensions of 0 or more, got shape {list(shape)}", "shape")
    return math.prod(shape)


def _reshape(name: str, flat: Array, shape: Sequence[int]) -> Array:
    try:
        return flat.reshape(shape)
    except ValueError:
        # Only shapes of zero elements with dimensions beyond numpy's limits.
        raise invalid(name, f"shape {list(shape)} is too large", "shape") from None


def from_bytes(
    name: str, datatype: DataType, shape: Sequence[int], raw: bytes | memoryview, max_elements: int
) -> Array:
    """Return the tensor in ``raw`` as an array of ``shape``, a read-only view wherever the type allows it.

    ``max_elements`` limits BYTES elements, as each becomes an object.

    Raises:
        InvalidInputError: ``raw`` does not match ``datatype`` and ``shape``; the message names input ``name``.
    """
    if datatype is BYTES:
        return _from_byte_strings(name, shape, raw, max_elements)
    elements = element_count(name, shape)
    if elements * datatype.itemsize_bytes != len(raw):
        raise invalid(
            name,
            f"expected {elements * datatype.itemsize_bytes} bytes for shape {list(shape)} of {datatype.name}, "
            f"got {len(raw)}",
        )
    flat: Array = np.frombuffer(raw, datatype.numpy)
    if datatype.name == "BOOL" and (other := flat.view(np.uint8) > 1).any():
        raise invalid(name, f"expected each BOOL as a byte of 0 or 1, got another as element {other.argmax()}")
    return flat.reshape(shape) if elements else _reshape(name, flat, shape)


def to_bytes(array: Array) -> bytes | memoryview:
    """Return the elements of ``array`` (any layout) as raw bytes; those of a large one without a copy."""
    if array.dtype.hasobject:
        elements: list[bytes] = array.ravel().tolist()
        return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))
    if array.nbytes >= _LARGE_BYTES and array.flags.c_contiguous:
        # Viewed as bytes, because not all element types have a format in the buffer protocol.
        return array.reshape(-1).view(np.uint8).data
    return array.tobytes()


def _from_byte_strings(name: str, shape: Sequence[int], raw: bytes | memoryview, max_elements: int) -> Array:
    expected = element_count(name, shape)
    if expected > max_elements:
        raise invalid(name, f"expected at most {max_elements} BYTES elements, got shape {list(shape)}", "shape")
    return shaped(name, _split_elements(name, raw, expected), shape)


def _split_elements(name: str, raw: bytes | memoryview, expected: int) -> Array:
    elements: list[bytes] = []
    position, end = 0, len(raw)
    while position < end:
        if elements and len(elements) % _CHUNK == 0:
            POLL_THREAD.give_way(may_sleep=False)
        if len(elements) == expected:
            raise invalid(name, f"expected {expected} elements as its shape says, got more")
        if end - position < _LENGTH.size:
            raise invalid(name, f"expected the 4-byte length of element {len(elements)}, got {end - position} bytes")
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size
        if length > end - position:
            raise invalid(name, f"expected {length} bytes for element {len(elements)}, got {end - position}")
        elements.append(bytes(raw[position : position + length]))
        position += length
    return object_array(elements)


def object_array(elements: Sequence[bytes]) -> Array:
    """Return a one-dimensional BYTES array. ``np.array`` would make a fixed-width one and drop trailing zeros."""
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def from_bools(name: str, datatype: DataType, values: Sequence[bool]) -> Array:
    """Return BOOL elements. Raises `InvalidInputError` for another ``datatype``."""
    if datatype.name != "BOOL":
        raise _wrong_list(name, datatype, "booleans")
    return _converted(values, np.dtype(np.bool_))


def from_integers(name: str, datatype: DataType, values: Sequence[int], first: int = 0) -> Array:
    """Return integer or floating-point elements. Raises `InvalidInputError` for a value outside of ``datatype``.

    ``first`` is the position of the first element in the tensor, for errors.
    """
    dtype = datatype.numpy
    if dtype.kind not in "iu":
        return from_floats(name, datatype, values, first)
    bounds = np.iinfo(dtype.type)  # type: ignore[type-var]  # the kind was checked above
    flat = np.empty(len(values), dtype)
    for start, chunk in _chunks(values):
        exact = _exact(chunk)
        outside = (exact < bounds.min) | (exact > bounds.max)
        if outside.any():
            # The position and not the value, because error texts are logged.
            raise invalid(
                name,
                f"expected {datatype.name} values from {bounds.min} to {bounds.max}, "
                f"got another as element {first + start + outside.argmax()}",
            )
        flat[start : start + len(chunk)] = exact
    return flat


def from_floats(name: str, datatype: DataType, values: Sequence[float], first: int = 0) -> Array:
    """Return floating-point elements. Raises `InvalidInputError` for a finite value outside of ``datatype``.

    ``first`` is as in `from_integers`.
    """
    if datatype.name not in {"FP16", "BF16", "FP32", "FP64"}:
        raise _wrong_list(
            name, datatype, "floating-point numbers" if values and isinstance(values[0], float) else "integers"
        )
    exact = _converted(values, np.dtype(np.float64))
    with np.errstate(over="ignore"):
        flat = rounded(exact, datatype.numpy)
    lost = np.isfinite(exact) & ~np.isfinite(flat.astype(np.float64))
    if lost.any():
        position = first + lost.argmax()
        raise invalid(
            name, f"expected values within the range of {datatype.name}, got one beyond as element {position}"
        )
    return flat


def from_strings(name: str, datatype: DataType, values: Sequence[str]) -> Array:
    """Return text as BYTES elements. Raises `InvalidInputError` for another ``datatype``."""
    return from_byte_strings(name, datatype, [value.encode() for _, part in _chunks(values) for value in part])


def from_byte_strings(name: str, datatype: DataType, values: Sequence[bytes]) -> Array:
    """Return BYTES elements. Raises `InvalidInputError` for another ``datatype``."""
    if datatype is not BYTES:
        raise _wrong_list(name, datatype, "strings")
    return object_array(values)


def _exact(values: Sequence[int]) -> NDArray[Any]:
    """Return integers without loss."""
    for dtype in (np.int64, np.uint64):
        with suppress(OverflowError):
            return np.array(values, dtype)
    # Both negative ones and large ones, from JSON.
    return np.array(values, object)


def _converted(values: Sequence[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    flat = np.empty(len(values), dtype)
    for start, chunk in _chunks(values):
        flat[start : start + len(chunk)] = chunk
    return flat


def _chunks(values: Chunked) -> Iterator[tuple[int, Chunked]]:
    """Yield parts of ``values``, each with the position of its first element."""
    for start in range(0, len(values), _CHUNK):
        if start:
            POLL_THREAD.give_way(may_sleep=False)
        yield start, values[start : start + _CHUNK]


def to_lists(array: Array) -> tuple[str, Iterator[list[Any]]]:
    """Return the name of the list of ``inferd.v1.Tensor`` for the elements of ``array``, and the list in parts.

    A part takes one step each, so that outputs of any size neither hold the GIL nor exist as Python objects at once.
    """
    flat = array.ravel()
    field = _LIST_OF_KIND.get(flat.dtype.kind, "floats")
    if field == "strings" and not _is_text(flat):
        field = "bytes_values"
    return field, (_AS_LIST[field](part) for _, part in _chunks(flat))


#: By the kind of a numpy dtype; the other kinds are floating-point.
_LIST_OF_KIND = {"b": "bools", "i": "ints", "u": "uints", "O": "strings"}


def _is_text(elements: Array) -> bool:
    try:
        for element in elements:
            element.decode()
    except UnicodeDecodeError:
        return False
    return True


def _as_texts(part: Array) -> list[Any]:
    return [element.decode() for element in part]


def _as_floats(part: Array) -> list[Any]:
    """Return the shortest digits that identify each element in its own type: 0.1 and not 0.10000000149011612."""
    digits: list[Any]
    if part.dtype == np.float64:
        digits = part.tolist()
        return digits
    if part.dtype == np.float32 and np.isfinite(part).all():
        # As below, in a sixth of the time.
        digits = orjson.loads(orjson.dumps(part, option=orjson.OPT_SERIALIZE_NUMPY))
        return digits
    return [float(str(element)) for element in part]


_AS_LIST: Mapping[str, Callable[[Array], list[Any]]] = {
    "bools": np.ndarray.tolist,
    "ints": np.ndarray.tolist,
    "uints": np.ndarray.tolist,
    "floats": _as_floats,
    "strings": _as_texts,
    "bytes_values": np.ndarray.tolist,
}


def _wrong_list(name: str, datatype: DataType, given: str) -> InvalidInputError:
    return invalid(name, f"expected values of {datatype.name}, got a list of {given}")


def take_long_to_encode(arrays: Iterable[Array], *, as_raw: bool) -> bool:
    """Return whether to encode outputs in the thread of `LargeMessages`."""
    for array in arrays:  # noqa: SIM110  (a generator would cost each response a call)
        if array.size > _MAX_QUICK_ELEMENTS and (not as_raw or array.dtype.hasobject):
            return True
    return False
