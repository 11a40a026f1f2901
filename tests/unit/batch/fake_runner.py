"""A runner without a model: ``y = 2 * x``, with costs and failing rows as the test says."""

from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from inferd.batch.errors import RUN_FAILED, RowsFailedError
from inferd.dtypes import BY_NAME
from inferd.runtime.signature import ModelSignature, TensorSpec

INT64 = BY_NAME["INT64"]


def signature(shape=(), axis=0):
    """Return that of ``y = 2 * x`` on INT64, where rows have ``shape``."""
    whole = (*shape[:axis], "batch", *shape[axis:])
    specs = [TensorSpec(name=name, datatype=INT64, shape=whole, batch_axis=axis) for name in ("x", "y")]
    return ModelSignature(inputs=(specs[0],), outputs=(specs[1],), batchable=True)


class Clock:
    """Time that passes when the runner runs."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@dataclass
class FakeRunner:
    """Runs at once. Runs with one of ``poison`` fail; ``cost`` are the seconds of a run by its rows."""

    signature: ModelSignature = field(default_factory=signature)
    max_rows: int = 1024
    max_bytes: int = 2**20
    run_costs: dict = field(default_factory=dict)
    poison: frozenset = frozenset()
    cost: object = None
    clock: Clock = field(default_factory=Clock)
    places: int = 1
    busy_s: float = 0.0
    identity: dict = field(default_factory=dict)
    #: The rows of each run, and its inputs.
    sizes: list = field(default_factory=list)
    inputs: list = field(default_factory=list)

    def submit(self, inputs, outputs):
        """Run ``inputs``."""
        answer = Future()
        x = inputs["x"]
        rows = x.shape[self.signature.inputs[0].batch_axis or 0] if x.ndim else 1
        self.sizes.append(rows)
        self.inputs.append(x)
        self.clock.now += self.cost(rows) if self.cost else 0.0
        failing = self.poison & set(np.ravel(x).tolist())
        if failing:
            answer.set_exception(RowsFailedError(RUN_FAILED, f"it does not like {min(failing)}"))
        else:
            answer.set_result(dict.fromkeys(outputs, 2 * x))
        return answer

    def close(self):
        """Do nothing."""
