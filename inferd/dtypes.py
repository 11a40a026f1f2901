"""The supported element types, and their names in each protocol and library."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, slots=True)
class DataType:
    """One element type.

    ``name`` is that of the Open Inference Protocol, from which the names in ``inferd.v1.DataType`` and in Triton's
    configuration derive. ``numpy`` is the dtype of its arrays in inferd, always in native (little-endian) byte order;
    BYTES arrays have the dtype ``object`` and contain ``bytes``. ``onnx_element_type`` is the number in ONNX's
    ``TensorProto.DataType``. ``itemsize_bytes`` is 0 for BYTES, whose elements differ in size.
    """

    name: str
    numpy: np.dtype[np.generic]
    onnx: str
    onnx_element_type: int
    proto: int
    triton_config: int
    itemsize_bytes: int

    @property
    def is_float(self) -> bool:
        """Whether it is a floating-point type."""
        # bfloat16 is a void type to numpy.
        return self.numpy.kind in "fV"


def _type(name: str, numpy: DTypeLike, onnx: str, element: int, proto: int, triton: int) -> DataType:
    dtype = np.dtype(numpy)
    itemsize_bytes = 0 if dtype.hasobject else dtype.itemsize
    return DataType(name, dtype, f"tensor({onnx})", element, proto, triton, itemsize_bytes)


BYTES = _type("BYTES", object, "string", 8, 13, 13)

#: All types, in the order of ``inferd.v1.DataType``.
ALL: tuple[DataType, ...] = (
    _type("BOOL", np.bool_, "bool", 9, 1, 1),
    _type("UINT8", np.uint8, "uint8", 2, 2, 2),
    _type("UINT16", np.uint16, "uint16", 4, 3, 3),
    _type("UINT32", np.uint32, "uint32", 12, 4, 4),
    _type("UINT64", np.uint64, "uint64", 13, 5, 5),
    _type("INT8", np.int8, "int8", 3, 6, 6),
    _type("INT16", np.int16, "int16", 5, 7, 7),
    _type("INT32", np.int32, "int32", 6, 8, 8),
    _type("INT64", np.int64, "int64", 7, 9, 9),
    _type("FP16", np.float16, "float16", 10, 10, 10),
    _type("FP32", np.float32, "float", 1, 11, 11),
    _type("FP64", np.float64, "double", 11, 12, 12),
    BYTES,
    _type("BF16", ml_dtypes.bfloat16, "bfloat16", 16, 14, 14),
)

#: By Open Inference Protocol name, for example ``"FP32"``.
BY_NAME: Mapping[str, DataType] = MappingProxyType({t.name: t for t in ALL})

#: By ONNX Runtime's type string, for example ``"tensor(float)"``.
BY_ONNX: Mapping[str, DataType] = MappingProxyType({t.onnx: t for t in ALL})

#: By number in ``inferd.v1.DataType``.
BY_PROTO: Mapping[int, DataType] = MappingProxyType({t.proto: t for t in ALL})

#: By numpy dtype; text and byte-string arrays are ``object`` arrays here.
BY_NUMPY: Mapping[np.dtype[np.generic], DataType] = MappingProxyType({t.numpy: t for t in ALL})

#: The typed list of the Open Inference Protocol for each datatype. Others can only be sent as raw bytes.
TYPED_LISTS: Mapping[str, str] = MappingProxyType(
    {
        "BOOL": "bool_contents",
        "INT8": "int_contents",
        "INT16": "int_contents",
        "INT32": "int_contents",
        "INT64": "int64_contents",
        "UINT8": "uint_contents",
        "UINT16": "uint_contents",
        "UINT32": "uint_contents",
        "UINT64": "uint64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
        "BYTES": "bytes_contents",
    }
)

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
#: The bits of a float32 that a bfloat16 lacks, and their value halfway between two bfloat16.
_LOST_BITS, _HALFWAY = 0xFFFF, 0x8000


def rounded(numbers: NDArray[Any], target: np.dtype[np.generic]) -> NDArray[Any]:
    """Return ``numbers`` as C-contiguous floats of ``target``, each rounded once to the nearest, of two to the even.

    ml_dtypes rounds doubles to bfloat16 by way of float32, which may move them to halfway between two.
    """
    if target != _BFLOAT16 or numbers.dtype.itemsize <= 4:
        return _cast(numbers, target)
    single = _cast(numbers, np.dtype(np.float32))
    bits = single.view(np.int32)
    halfway = (bits & _LOST_BITS) == _HALFWAY
    if halfway.any():
        exact, moved = np.abs(numbers[halfway]), np.abs(single[halfway].astype(np.float64))
        # One bit away from there, to the side where the number is.
        bits[halfway] += (exact > moved).astype(np.int32) - (exact < moved)
    return _cast(single, target)


def _cast(numbers: NDArray[Any], target: np.dtype[np.generic]) -> NDArray[Any]:
    with np.errstate(invalid="ignore"):  # signalling NaN
        return numbers.astype(target, order="C")
