"""What a model takes and gives, and whether a request fits it. Pure: knows no session."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.dtypes import DataType

#: Arrays by tensor name. BYTES tensors are ``object`` arrays of ``bytes``.
Tensors = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """One input or output as the model declares it.

    ``shape`` has an ``int`` for a fixed dimension, a ``str`` for an open one with a name and ``None`` for an open one
    without. ``batch_axis`` is the dimension that counts rows, or ``None``: an input without one is shared by a whole
    batch, so that only requests with equal values for it can be stacked.
    """

    name: str
    datatype: DataType
    shape: tuple[int | str | None, ...]
    batch_axis: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedInputs:
    """What a request's inputs come to.

    ``rows`` is 1 for a model that cannot batch. Requests are stackable exactly when their ``stack_key`` is equal.
    """

    rows: int
    nbytes: int
    stack_key: Hashable


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSignature:
    """Inputs and outputs of a model, in its order. ``batchable`` when rows of several requests may be stacked."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool

    def check(self, inputs: Tensors) -> CheckedInputs:
        """Say what ``inputs`` come to, or raise `InvalidInputError` naming the input, the expected and the given."""
        raise NotImplementedError

    def select_outputs(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return ``names``, or all of the model's outputs if empty; raise `InvalidInputError` for an unknown one."""
        raise NotImplementedError
