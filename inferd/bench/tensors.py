"""Serialize requests and parse responses of the Open Inference Protocol. Pure."""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd import dtypes
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.bench.traffic import Arrays

_LENGTH = struct.Struct("<I")


def request_message(model: str, version: str, inputs: Arrays, priority: int) -> bytes:
    """Serialize a request. BYTES inputs are object arrays of ``bytes``."""
    request = oip.ModelInferRequest(model_name=model, model_version=version)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=dtypes.BY_NUMPY[array.dtype].name, shape=array.shape)
        request.raw_input_contents.append(_raw(array))
    if priority:
        request.parameters["priority"].uint64_param = priority
    return request.SerializeToString()


def answer(message: bytes) -> dict[str, NDArray[Any]]:
    """Parse a serialized response into its outputs. Raises `ValueError`."""
    response = oip.ModelInferResponse.FromString(message)
    raw = list(response.raw_output_contents)
    if raw and len(raw) != len(response.outputs):
        raise ValueError(f"raw_output_contents: expected {len(response.outputs)} entries, got {len(raw)}")
    return {output.name: _output(output, raw[index] if raw else None) for index, output in enumerate(response.outputs)}


def difference(expected: Arrays, got: Arrays, tolerance: float) -> str:
    """Describe the difference of two answers; empty if numbers are within ``tolerance``, relative and absolute."""
    if expected.keys() != got.keys():
        return f"expected the outputs {', '.join(expected)}, got {', '.join(got) or 'none'}"
    found = (_difference(expected[name], got[name], tolerance) for name in expected)
    return next((f'output "{name}": {text}' for name, text in zip(expected, found, strict=True) if text), "")


def _difference(expected: NDArray[Any], got: NDArray[Any], tolerance: float) -> str:
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return f"expected {expected.dtype} {list(expected.shape)}, got {got.dtype} {list(got.shape)}"
    if expected.dtype.kind not in "fV":
        return "" if np.array_equal(expected, got) else "expected other values"
    # numpy cannot compare bfloat16.
    first, second = (array.astype(np.float32) if array.dtype.kind == "V" else array for array in (expected, got))
    if np.allclose(second, first, rtol=tolerance, atol=tolerance, equal_nan=True):
        return ""
    return f"differs by up to {np.nanmax(np.abs(second - first)):.3g}"


def _output(output: oip.ModelInferResponse.InferOutputTensor, raw: bytes | None) -> NDArray[Any]:
    datatype = dtypes.BY_NAME.get(output.datatype)
    if datatype is None:
        raise ValueError(f'output "{output.name}": datatype "{output.datatype}" is not known')
    if raw is None:
        return _typed(getattr(output.contents, dtypes.TYPED_LISTS[datatype.name], ()), datatype).reshape(
            tuple(output.shape)
        )
    if datatype is dtypes.BYTES:
        return _objects(_elements(raw)).reshape(tuple(output.shape))
    return np.frombuffer(raw, datatype.numpy).reshape(tuple(output.shape))


def _typed(values: Any, datatype: dtypes.DataType) -> NDArray[Any]:  # noqa: ANN401  (a repeated field of any kind)
    return _objects(list(values)) if datatype is dtypes.BYTES else np.array(values, datatype.numpy)


def _objects(elements: list[bytes]) -> NDArray[Any]:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def _elements(raw: bytes) -> list[bytes]:
    elements, position = [], 0
    while position < len(raw):
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size + length
        elements.append(raw[position - length : position])
    return elements


def _raw(array: NDArray[Any]) -> bytes:
    if not array.dtype.hasobject:
        return array.tobytes()
    return b"".join(_LENGTH.pack(len(element)) + element for element in array.ravel().tolist())
