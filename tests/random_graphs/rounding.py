"""Distinguish rounding from influence.

Kernels may round differently for batches of different sizes, and a step, an ArgMax or a cast may amplify it. Models and
requests that are perturbed by a rounding error show how much.
"""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper

from tests.random_graphs.model import open_plain, run_plain
from tests.random_graphs.requests import Arrays

#: A difference counts as rounding up to this multiple of the difference of a perturbed model.
_MARGIN = 10
_NUDGES = 4
_RELATIVE, _RELATIVE_OF_HALF = 2e-6, 1e-3


class Nudged:
    """The model with its weights perturbed by a rounding error, in several ways, opened when first needed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._size = _RELATIVE_OF_HALF if _uses_half(model) else _RELATIVE
        self._sessions: list[onnxruntime.InferenceSession] = []

    def answers(self, request: Arrays) -> list[list[np.ndarray]]:
        """Return the answers of the perturbed models to the perturbed request."""
        rng = np.random.default_rng(1)
        if not self._sessions:
            self._sessions = [open_plain(self._nudged_model(rng)) for _ in range(_NUDGES)]
        answers = (
            run_plain(session, {name: self._nudge(array, rng) for name, array in request.items()})
            for session in self._sessions
        )
        return [answer for answer in answers if answer is not None]

    def _nudged_model(self, rng: np.random.Generator) -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        constants = [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"]
        for tensor in (*model.graph.initializer, *constants):
            if tensor.data_type in {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16}:
                tensor.CopyFrom(numpy_helper.from_array(self._nudge(numpy_helper.to_array(tensor), rng), tensor.name))
        return model

    def _nudge(self, array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Perturb values other than integers, which may be sizes, indices or exact bounds."""
        if not np.issubdtype(array.dtype, np.floating):
            return array
        nudged = array * (1 + self._size * rng.choice([-1, 1], array.shape))
        return np.where(array == np.round(array), array, nudged).astype(array.dtype)


def without_rounding(alone: np.ndarray, batched: np.ndarray, nudged: list[np.ndarray]) -> np.ndarray:
    """Return ``batched`` with ``alone``'s elements where the difference may be due to rounding."""
    others = [other for other in nudged if other.shape == alone.shape and other.dtype == alone.dtype]
    if not np.issubdtype(alone.dtype, np.number):
        unsteady = np.zeros(alone.shape, bool)
        for other in others:
            unsteady |= other != alone
        return np.where(unsteady, alone, batched)
    exact, spread = alone.astype(np.float64), np.zeros(alone.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        for other in others:
            spread = np.fmax(spread, np.abs(other.astype(np.float64) - exact))
        off = np.abs(batched.astype(np.float64) - exact)
        return np.where(off <= _MARGIN * spread, alone, batched)


def _uses_half(model: onnx.ModelProto) -> bool:
    values = (*model.graph.input, *model.graph.output)
    if any(value.type.tensor_type.elem_type == TensorProto.FLOAT16 for value in values):
        return True
    return any(
        attribute.name == "to" and attribute.i == TensorProto.FLOAT16
        for node in model.graph.node
        for attribute in node.attribute
    )
