"""Whether rows that ran in a batch got the answer that they get alone, and if not, why. Knows no session.

A difference is looked into before it counts. The rows run once more in the same place of a batch of the same size,
which now holds nothing but copies of them. If that gives another answer than the batch did, it was the other rows. If
it gives the same, it was the size: numbers are added up in another order there, which must make no more than a small
difference, unless the rows are so ill-conditioned that the last bits of their own inputs make as much of one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from inferd.runtime.row_comparison import Array, Difference, Profile, difference, is_float, take_rows
from inferd.runtime.signature import ModelSignature, Tensors

#: Runs the model and returns the outputs that matter.
Run = Callable[[Tensors], Mapping[str, Array]]

#: How large elements usually are, by output; see `row_comparison.profile`.
Profiles = Mapping[str, Profile | None]

#: A change of the last bits of an input, of numbers of 24 bits, and how many times as much an answer may change by it.
_LAST_BITS = 2.0**-22
_AMPLIFIED = 8.0
_NUDGES = 3


class Cause(Enum):
    """Why an answer in a batch differs from that of the same rows alone."""

    OTHER_ROWS = "it depends on the other rows of the batch"
    SIZE = "it depends on how many rows the batch has"
    ROUNDING = "it is a choice between values that are nearly equal"
    NOISE = "the last bits of the inputs make as much of a difference"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An output that differs, where, and why."""

    output: str
    found: Difference
    cause: Cause
    batch_rows: int

    def __str__(self) -> str:
        where = f"{self.found.place} of " if self.found.place else ""
        return (
            f'{where}output "{self.output}" is {self.found.alone} alone and {self.found.batched} in a batch of '
            f"{self.batch_rows} rows: {self.cause.value}"
        )

    @property
    def without_values(self) -> str:
        """The same for the log of what callers sent, whose numbers are nobody else's business."""
        where = f"{self.found.place} of " if self.found.place else ""
        return (
            f'{where}output "{self.output}" {self.found.amount} in a batch of {self.batch_rows} rows from what it is '
            f"alone: {self.cause.value}"
        )


def find_mismatch(
    signature: ModelSignature,
    run: Run,
    *,
    inputs: Tensors,
    outputs: Mapping[str, Array],
    alone: Mapping[str, Array],
    start: int,
    stop: int,
    usual: Profiles,
) -> Mismatch | None:
    """Return how the rows from ``start`` to ``stop`` of a batch differ from ``alone``, None if they do not.

    ``inputs`` and ``outputs`` are those of the whole batch. Whatever ``run`` raises goes on.
    """
    axes = {spec.name: spec.batch_axis for spec in signature.outputs}
    for name, answer in alone.items():
        found = difference(answer, take_rows(outputs[name], axes[name], start, stop), usual.get(name))
        if found is not None:
            return _Look(signature, run, inputs, outputs, start, stop).into(name, answer, found, usual.get(name))
    return None


@dataclass(frozen=True, slots=True)
class _Look:
    """A closer look at rows of a batch that differ."""

    signature: ModelSignature
    run: Run
    inputs: Tensors
    outputs: Mapping[str, Array]
    start: int
    stop: int

    def into(self, name: str, alone: Array, found: Difference, usual: Profile | None) -> Mismatch:
        rows = self._rows
        axis = next(spec.batch_axis for spec in self.signature.outputs if spec.name == name)
        batched = take_rows(self.outputs[name], axis, self.start, self.stop)
        copies = self.run(self._copies(rows))[name]
        if difference(take_rows(copies, axis, self.start, self.stop), batched, usual) is not None:
            return Mismatch(name, found, Cause.OTHER_ROWS, rows)
        if self._is_ill_conditioned(name, alone, found, usual):
            return Mismatch(name, found, Cause.NOISE, rows)
        chosen = not is_float(alone) and self._has_floats and alone.shape == batched.shape
        return Mismatch(name, found, Cause.ROUNDING if chosen else Cause.SIZE, rows)

    @property
    def _rows(self) -> int:
        for name, array in self.inputs.items():
            axis = self.signature.input(name).batch_axis
            if axis is not None:
                return int(array.shape[axis])
        raise AssertionError

    @property
    def _has_floats(self) -> bool:
        specs = (*self.signature.inputs, *self.signature.outputs)
        return any(spec.datatype.numpy.kind not in "biuO" for spec in specs)

    def _copies(self, rows: int) -> dict[str, Array]:
        """Return the batch with copies of the rows in place of all others."""
        places = [self.start + (row - self.start) % (self.stop - self.start) for row in range(rows)]
        return {
            name: array if (axis := self.signature.input(name).batch_axis) is None else np.take(array, places, axis)
            for name, array in self.inputs.items()
        }

    def _is_ill_conditioned(self, name: str, alone: Array, found: Difference, usual: Profile | None) -> bool:
        for seed in range(_NUDGES):
            nudged = self._nudged(seed)
            if nudged is None:
                return False
            moved = difference(alone, self.run(nudged)[name], usual)
            if moved is not None and (not is_float(alone) or moved.relative * _AMPLIFIED >= found.relative):
                return True
        return False

    def _nudged(self, seed: int) -> dict[str, Array] | None:
        """Return the rows alone with the last bits of their floats changed, None if they have none."""
        random = np.random.default_rng(seed)
        nudged: dict[str, Array] = {}
        changed = False
        for name, array in self.inputs.items():
            axis = self.signature.input(name).batch_axis
            own = nudged[name] = take_rows(array, axis, self.start, self.stop)
            if axis is not None and is_float(own):
                step = max(_LAST_BITS, 2.0 * float(np.finfo(np.float16).eps) if own.dtype.itemsize == 2 else 0.0)
                signs = random.choice((-1.0, 1.0), own.shape)
                with np.errstate(over="ignore"):
                    nudged[name] = (np.asarray(own, np.float64) * (1 + step * signs)).astype(own.dtype)
                changed = True
        return nudged if changed else None
