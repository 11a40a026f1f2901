"""Arrays to tensors of the contract and back. Pure."""

import struct
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inferd import dtypes
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client.errors import Internal, InvalidInput
from inferd.dtypes import DataType

Inputs = Mapping[str, ArrayLike]

_TEXT_KINDS = "SUOT"  # byte strings, text, objects, and numpy's variable-width text
_LENGTH = struct.Struct("<I")
_SUPPORTED = ", ".join(dtype.numpy.name for dtype in dtypes.ALL if dtype is not dtypes.BYTES) + ", str or bytes"


def encode(name: str, value: ArrayLike) -> pb.Tensor:
    """Turn an array of any memory layout and byte order into a tensor.

    The element type is the array's own; str, bytes and object arrays of them become BYTES, text as UTF-8. (numpy
    itself drops zero bytes from the end of the elements of an ``S`` array; use an object array to keep them.)
    Raises `InvalidInput` for what has no place in the contract.
    """
    array = _array(name, value)
    if array.dtype.kind in _TEXT_KINDS:
        datatype, raw = dtypes.BYTES, b"".join(_framed(name, array.ravel().tolist()))
    else:
        datatype = _datatype_of(name, array.dtype)
        raw = array.astype(datatype.numpy.newbyteorder("<"), copy=False).tobytes()
    return pb.Tensor(name=name, datatype=pb.DataType.ValueType(datatype.proto), shape=array.shape, raw=raw)


def decode(tensor: pb.Tensor) -> NDArray[np.generic]:
    """Turn a tensor of a response into a read-only view of its bytes, or BYTES into an object array of ``bytes``."""
    datatype = datatype_numbered(tensor.datatype)
    shape = tuple(tensor.shape)
    try:
        if datatype is dtypes.BYTES:
            return _decode_bytes(tensor.raw, shape)
        return np.frombuffer(tensor.raw, dtype=datatype.numpy.newbyteorder("<")).reshape(shape)
    except (ValueError, struct.error) as error:
        raise Internal(
            f'output "{tensor.name}": {len(tensor.raw)} bytes do not hold {datatype.name} of shape {list(shape)}'
        ) from error


def datatype_numbered(number: int) -> DataType:
    """Return the element type that the contract gives ``number``."""
    datatype = dtypes.BY_PROTO.get(number)
    if datatype is None:
        raise Internal(f"the server uses element type {number}, which this client does not know: update the client")
    return datatype


def _array(name: str, value: ArrayLike) -> NDArray[np.generic]:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InvalidInput(f'input "{name}": expected an array, got {type(value).__name__}: {error}') from None


def _datatype_of(name: str, dtype: np.dtype[np.generic]) -> DataType:
    datatype = dtypes.BY_NUMPY.get(dtype.newbyteorder("="))
    if datatype is None:
        raise InvalidInput(f'input "{name}": dtype {dtype} is not supported; expected {_SUPPORTED}')
    return datatype


def _framed(name: str, elements: list[object]) -> Iterable[bytes]:
    """Yield each element's length and its bytes."""
    for index, element in enumerate(elements):
        if isinstance(element, bytes):
            data = element
        elif isinstance(element, str):
            data = _utf8(name, index, element)
        else:
            raise InvalidInput(f'input "{name}": expected str or bytes, got {type(element).__name__} at {index}')
        yield _LENGTH.pack(len(data))
        yield data


def _utf8(name: str, index: int, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f'input "{name}": expected text, got a lone surrogate at {index}: {error}') from None


def _decode_bytes(raw: bytes, shape: tuple[int, ...]) -> NDArray[np.generic]:
    elements: list[bytes] = []
    position = 0
    while position < len(raw):
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size + length
        if position > len(raw):
            msg = "an element reaches beyond the end"
            raise ValueError(msg)
        elements.append(raw[position - length : position])
    # Filled by hand: numpy would make fixed-width text of a list and cut zero bytes off.
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)
