"""Build example requests for the page's form, in the JSON of the Open Inference Protocol. Pure."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from inferd.dtypes import BY_NUMPY, BYTES
from inferd.errors import InvalidInputError
from inferd.models.version import ModelVersion
from inferd.runtime.signature import Array, ModelSignature, Tensors, TensorSpec

#: Limits on the examples that the form offers, and on the elements of one, which a browser must hold.
MOST_EXAMPLES = 50
_MOST_ELEMENTS = 1_000_000


def example_of(version: ModelVersion, number: int) -> dict[str, Any]:
    """Return example ``number`` of a loaded version.

    A recorded request if there are any; else inputs on which the model is known to run; else ones in the declared
    shape. Raises `InvalidInputError`.
    """
    inputs = version.synthetic_inputs
    recorded = 0 if inputs is None else min(len(inputs.examples), MOST_EXAMPLES)
    if not 0 <= number < max(recorded, 1):
        raise InvalidInputError(f"number: expected 0 to {max(recorded, 1) - 1}, got {number}", field="number")
    signature = version.require_signature()
    tensors = _ones(signature) if inputs is None else inputs.row(number)
    elements = sum(array.size for array in tensors.values())
    return {
        "version": version.version,
        "number": number,
        "recorded": recorded,
        "elements": elements,
        "inputs": _tensors(tensors) if elements <= _MOST_ELEMENTS else None,
    }


def _ones(signature: ModelSignature) -> Tensors:
    return {spec.name: _one(spec) for spec in signature.inputs if not spec.optional}


def _one(spec: TensorSpec) -> Array:
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]
    if math.prod(shape) > _MOST_ELEMENTS:
        # Only its size is used.
        return np.broadcast_to(np.zeros((), np.uint8), shape)
    return np.full(shape, b"1", object) if spec.datatype is BYTES else np.ones(shape, spec.datatype.numpy)


def _tensors(tensors: Mapping[str, Array]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "datatype": BY_NUMPY[array.dtype].name,
            "shape": list(array.shape),
            "data": _elements(array),
        }
        for name, array in tensors.items()
    ]


def _elements(array: Array) -> Any:  # noqa: ANN401  (what orjson writes as a list)
    flat = np.ascontiguousarray(array).ravel()
    if flat.dtype.hasobject:
        return [element.decode(errors="replace") for element in flat.tolist()]
    if flat.dtype.kind == "V":
        # BF16, which only ml_dtypes knows; every value of it is one of FP32.
        return flat.astype(np.float32)
    return flat
