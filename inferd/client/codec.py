"""Convert arrays to tensors of the contract and back. Pure."""

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from inferd import dtypes, wire
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.arguments import checked_text
from inferd.client.errors import Internal, InvalidInput
from inferd.dtypes import DataType

Inputs = Mapping[str, ArrayLike]

_TEXT_KINDS = "SUOT"  # byte strings, text, objects, and numpy's variable-width text
_LENGTH = struct.Struct("<I")
_SUPPORTED = ", ".join(dtype.numpy.name for dtype in dtypes.ALL if dtype is not dtypes.BYTES) + ", str or bytes"


#: Tags of `InferRequest.inputs` and `Tensor.raw`.
_INPUTS = wire.tag(pb.InferRequest, "inputs")
_RAW = wire.tag(pb.Tensor, "raw")
#: Encoding of elements by the number of their type.
_LITTLE_ENDIAN = {dtype.proto: dtype.numpy.newbyteorder("<") for dtype in dtypes.ALL}


def encode(name: str, value: ArrayLike) -> tuple[bytes, bytes]:
    """Encode an array of any memory layout and byte order as a field ``inputs`` of a request.

    Returns the field up to the elements, and the elements. The element type is the array's own; str, bytes and object
    arrays of them become BYTES, text as UTF-8. (numpy itself drops zero bytes from the end of the elements of an ``S``
    array; use an object array to keep them.) Raises `InvalidInput` for types that the contract lacks.
    """
    number, shape, raw = elements_of(name, value)
    return _head(name, number, shape, len(raw)), raw


def elements_of(name: str, value: ArrayLike) -> tuple[int, tuple[int, ...], bytes]:
    """Return the element type's number, the shape and the elements of an array. Raises as `encode`."""
    array = _array(name, value)
    if array.dtype.kind in _TEXT_KINDS:
        return dtypes.BYTES.proto, array.shape, b"".join(_framed(name, array.ravel().tolist()))
    number = _number_of(name, array.dtype)
    return number, array.shape, array.astype(_LITTLE_ENDIAN[number], copy=False).tobytes()


def decode(tensor: pb.Tensor) -> NDArray[Any]:
    """Return a tensor of a response as a read-only view of its bytes; BYTES as an object array of ``bytes``."""
    return array_of(tensor.name, tensor.datatype, tuple(tensor.shape), tensor.raw)


def array_of(name: str, number: int, shape: tuple[int, ...], raw: bytes) -> NDArray[Any]:
    """Return the output ``name`` with element type ``number``, as `decode`. Raises `Internal`."""
    try:
        if number == dtypes.BYTES.proto:
            return _decode_bytes(raw, shape)
        return np.frombuffer(raw, dtype=_LITTLE_ENDIAN[number]).reshape(shape)
    except (KeyError, ValueError, struct.error) as error:
        datatype = datatype_numbered(number)
        raise Internal(
            f'output "{name}": {len(raw)} bytes do not hold {datatype.name} of shape {list(shape)}'
        ) from error


def datatype_numbered(number: int) -> DataType:
    """Return the element type of the contract's ``number``."""
    datatype = dtypes.BY_PROTO.get(number)
    if datatype is None:
        raise Internal(f"the server uses element type {number}, which this client does not know: update the client")
    return datatype


def _array(name: str, value: ArrayLike) -> NDArray[np.generic]:
    try:
        return np.asarray(value)
    except Exception as error:
        raise InvalidInput(f'input "{name}": expected an array, got {type(value).__name__}: {error}') from error


@lru_cache(maxsize=1024)
def _head(name: str, number: int, shape: tuple[int, ...], nbytes: int) -> bytes:
    """Encode the field of one input up to its raw bytes; cached, because callers repeat the same inputs."""
    checked_text("name of an input", name)
    described = pb.Tensor(name=name, datatype=pb.DataType.ValueType(number), shape=shape).SerializeToString()
    head = described + wire.prefix(_RAW, nbytes)
    return wire.prefix(_INPUTS, len(head) + nbytes) + head


@lru_cache(maxsize=256)
def _number_of(name: str, dtype: np.dtype[np.generic]) -> int:
    datatype = dtypes.BY_NUMPY.get(dtype.newbyteorder("="))
    if datatype is None:
        raise InvalidInput(f'input "{name}": dtype {dtype} is not supported; expected {_SUPPORTED}')
    return datatype.proto


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
    # Filled in a loop: numpy would convert a list to fixed-width text and drop zero bytes.
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)
