"""Tensors as raw bytes: little-endian, row-major, no padding; each BYTES element led by its length.

The layout is that of the Open Inference Protocol's ``raw_input_contents``; `inferd.v1` uses the same.
"""

import math
import struct
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inferd.dtypes import BYTES, DataType
from inferd.errors import InvalidInputError, Place

_LENGTH = struct.Struct("<I")

#: From this size on, a view is made sooner than a copy.
_LARGE_BYTES = 8192


def from_bytes(
    name: str, datatype: DataType, shape: Sequence[int], raw: bytes, max_elements: int
) -> NDArray[np.generic]:
    """Return the tensor in ``raw`` as an array of ``shape``, a read-only view wherever the type allows it.

    ``max_elements`` is how many BYTES elements there may be, as each becomes an object of its own.

    Raises:
        InvalidInputError: ``raw`` does not hold what ``datatype`` and ``shape`` say; the text names input ``name``.
    """
    if datatype is BYTES:
        return _from_byte_strings(name, shape, raw, max_elements)
    elements = element_count(name, shape)
    if elements * datatype.itemsize_bytes != len(raw):
        raise wrong(
            name,
            f"expected {elements * datatype.itemsize_bytes} bytes for shape {list(shape)} of {datatype.name}, "
            f"got {len(raw)}",
        )
    flat: NDArray[np.generic] = np.frombuffer(raw, datatype.numpy)
    if datatype.name == "BOOL" and (flat.view(np.uint8) > 1).any():
        raise wrong(name, "expected each BOOL as a byte of 0 or 1, got another byte")
    return shaped(name, flat, shape)


def to_bytes(array: NDArray[np.generic]) -> bytes | memoryview:
    """Return the elements of ``array`` (any layout) as raw bytes; those of a large one without copying them."""
    if array.dtype.hasobject:
        elements: list[bytes] = array.ravel().tolist()
        return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))
    if array.nbytes >= _LARGE_BYTES and array.flags.c_contiguous:
        # By way of another type, because not all element types have a name in the buffer protocol.
        return array.reshape(-1).view(np.uint8).data
    return array.tobytes()


def element_count(name: str, shape: Sequence[int]) -> int:
    """Return the number of elements of a tensor of ``shape``, refusing negative dimensions."""
    if any(dimension < 0 for dimension in shape):
        raise wrong(name, f"expected dimensions of 0 or more, got shape {list(shape)}", "shape")
    return math.prod(shape)


def shaped(name: str, flat: NDArray[np.generic], shape: Sequence[int]) -> NDArray[np.generic]:
    """Return ``flat`` in ``shape``, refusing a shape of another number of elements or beyond what an array can be."""
    expected = element_count(name, shape)
    if flat.size != expected:
        raise wrong(name, f"expected {expected} elements for shape {list(shape)}, got {flat.size}")
    try:
        return flat.reshape(shape)
    except ValueError:
        # Only for shapes of zero elements with dimensions that no array can have.
        raise wrong(name, f"shape {list(shape)} is too large", "shape") from None


def _from_byte_strings(name: str, shape: Sequence[int], raw: bytes, max_elements: int) -> NDArray[np.generic]:
    expected = element_count(name, shape)
    if expected > max_elements:
        raise wrong(name, f"expected at most {max_elements} BYTES elements, got shape {list(shape)}", "shape")
    return shaped(name, _split_elements(name, raw, expected), shape)


def _split_elements(name: str, raw: bytes, expected: int) -> NDArray[np.generic]:
    elements: list[bytes] = []
    position, end = 0, len(raw)
    while position < end:
        if len(elements) == expected:
            raise wrong(name, f"expected {expected} elements as its shape says, got more")
        if end - position < _LENGTH.size:
            raise wrong(name, f"expected the 4-byte length of element {len(elements)}, got {end - position} bytes")
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size
        if length > end - position:
            raise wrong(name, f"expected {length} bytes for element {len(elements)}, got {end - position}")
        elements.append(raw[position : position + length])
        position += length
    return object_array(elements)


def object_array(elements: Sequence[bytes]) -> NDArray[np.generic]:
    """Return a one-dimensional BYTES array. ``np.array`` would make a fixed-width one and drop trailing zeros."""
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def wrong(name: str, text: str, aspect: Literal["datatype", "shape", "elements"] = "elements") -> InvalidInputError:
    """Return the error that says ``text`` of input ``name``."""
    return InvalidInputError(f'input "{name}": {text}', at=Place("input", name, aspect))
