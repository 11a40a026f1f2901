"""Triton's classification extension: an output as its largest elements, each as ``value:index`` or with a label."""

from collections.abc import Mapping

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.tensors import object_array
from inferd.errors import InvalidInputError
from inferd.runtime.signature import ModelSignature, TensorSpec

_PARAMETER = "classification"
_NO_NUMBERS = frozenset({"BYTES", "BOOL"})

Array = NDArray[np.generic]


def classes_wanted(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> int:
    """Return how many classes a request wants of an output; 0 for its tensor."""
    # Without a test, a map of messages would gain an entry.
    return output.parameters[_PARAMETER].int64_param if _PARAMETER in output.parameters else 0


def check_classes(
    position: int, output: pb.ModelInferRequest.InferRequestedOutputTensor, signature: ModelSignature
) -> None:
    """Raise `InvalidInputError` if the classes that a request wants of an output cannot be told."""
    if _PARAMETER not in output.parameters:
        return
    choice = output.parameters[_PARAMETER].WhichOneof("parameter_choice")
    text = ""
    if choice not in (None, "int64_param"):
        text = f"expected int64_param, got {choice}"
    elif (count := classes_wanted(output)) < 0:
        text = f"expected 1 class or more, got {count}"
    elif count and (datatype := _datatype(output.name, signature)) in _NO_NUMBERS:
        text = f"expected an output of numbers, got {datatype}"
    if text:
        msg = f'output "{output.name}": parameter "{_PARAMETER}": {text}'
        raise InvalidInputError(msg, field=f'outputs[{position}].parameters["{_PARAMETER}"]')


def _datatype(name: str, signature: ModelSignature) -> str:
    # An unknown name is rejected later.
    return next((spec.datatype.name for spec in signature.outputs if spec.name == name), "")


def with_classes(
    outputs: Mapping[str, Array], classes: Mapping[str, int], signature: ModelSignature
) -> dict[str, Array]:
    """Return ``outputs`` with BYTES of the largest elements in place of those that ``classes`` names."""
    specs = {spec.name: spec for spec in signature.outputs}
    return {
        name: _classes(array, classes[name], specs[name]) if name in classes else array
        for name, array in outputs.items()
    }


def _classes(array: Array, count: int, spec: TensorSpec) -> Array:
    """Return the ``count`` largest elements of each row, or of an output without rows; equal ones in their order.

    The shape is [rows, count] or [count], with a smaller count if there are not as many elements.
    """
    if spec.batch_axis is None:
        (found,) = _largest(array.reshape(1, -1), count, spec.labels)
        return object_array(found)
    rows = np.moveaxis(array, spec.batch_axis, 0)
    found_by_row = _largest(rows.reshape(len(rows), -1), count, spec.labels)
    flat = object_array([text for found in found_by_row for text in found])
    return flat.reshape(len(rows), -1)


def _largest(rows: Array, count: int, labels: tuple[str, ...]) -> list[list[bytes]]:
    if rows.dtype == ml_dtypes.bfloat16:
        rows = rows.astype(np.float32)
    last = rows.shape[1] - 1
    # Sorted from the end on, so that the first of equal elements comes first after the order is reversed.
    order = last - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    values = np.take_along_axis(rows, order, axis=1)
    form = "%d" if rows.dtype.kind in "iu" else "%f"
    suffixes = [f":{label}" if label else "" for label in labels]
    return [
        [
            f"{form % value}:{index}{suffixes[index] if index < len(suffixes) else ''}".encode()
            for value, index in zip(*row, strict=True)
        ]
        for row in zip(values.tolist(), order.tolist(), strict=True)
    ]
