"""Triton's classification extension: an output as its largest elements, each as ``value:index`` or with a label."""

from collections.abc import Mapping

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from inferd.api.oip.parameters import Parameters, type_name
from inferd.api.tensors import object_array
from inferd.errors import InvalidInputError
from inferd.runtime.signature import ModelSignature, TensorSpec

#: The parameter of an output with the number of classes.
CLASSIFICATION = "classification"
#: The most that an index of numpy can be.
_MAX_CLASSES = 2**63 - 1
_NO_NUMBERS = frozenset({"BYTES", "BOOL"})

Array = NDArray[np.generic]


def classes_wanted(parameters: Parameters) -> int:
    """Return how many classes the valid ``parameters`` of an output ask for; 0 for the tensor itself."""
    count = parameters.get(CLASSIFICATION, 0)
    return count if isinstance(count, int) else 0


def check_classes(position: int, name: str, parameters: Parameters, signature: ModelSignature) -> None:
    """Raise `InvalidInputError` if the output cannot have the classes that its ``parameters`` ask for."""
    count = parameters.get(CLASSIFICATION, 0)
    text = ""
    if type(count) is not int:
        text = f"expected an integer, got {type_name(count)}"
    elif not 0 <= count <= _MAX_CLASSES:
        text = f"expected 1 class or more, got {count}"
    elif count and (datatype := _datatype(name, signature)) in _NO_NUMBERS:
        text = f"expected an output of numbers, got {datatype}"
    if text:
        msg = f'output "{name}": parameter "{CLASSIFICATION}": {text}'
        raise InvalidInputError(msg, field=f'outputs[{position}].parameters["{CLASSIFICATION}"]')


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
