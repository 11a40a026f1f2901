"""One trial of the verification: rows run alone and in batches, and every output is compared."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from inferd.runtime.batch_axes.input_search import Run
from inferd.runtime.batch_axes.row_comparison import Cause, Mismatch, Profiles, difference, find_mismatch, profile
from inferd.runtime.batch_axes.synthetic_inputs import SyntheticInputs
from inferd.runtime.resources import MemoryGrowth
from inferd.runtime.run_timeout import TrialTimeoutError
from inferd.runtime.signature import Array, ModelSignature, Tensors, TensorSpec, format_shape
from inferd.runtime.stacking import stack

#: Rows that must run alone for a trial to count.
LEAST_ROWS = 3
#: Batch sizes; the first two are tried even if time is up.
_BATCH_SIZES = (2, 3, 5, 8, 17, 33)
_ALWAYS_TRIED = 2
#: Rounds through the batch sizes, each with other rows: at most, and before ``enough`` may end them.
_ROUNDS = 8
_LEAST_ROUNDS = 2
#: Share of the comparisons in which rounding may flip an integer.
_RARE = 0.1

_log = logging.getLogger("inferd.runtime")

Outputs = Mapping[str, Array]


class ContradictedError(Exception):
    """A trial contradicts the candidate; the text says how. ``shape_mismatch``: by the shapes of outputs."""

    def __init__(self, reason: str, *, shape_mismatch: bool = False) -> None:
        super().__init__(reason)
        self.shape_mismatch = shape_mismatch


class UnprovenError(Exception):
    """The trial is inconclusive; the text says why."""


def raise_if_timed_out(error: Exception) -> None:
    """Raise `UnprovenError` if a run did not fail but was stopped at its time limit."""
    if isinstance(error, TrialTimeoutError):
        msg = f"rows take much longer in a batch than alone: {error}"
        raise UnprovenError(msg) from error


class BatchTrial:
    """Rows of one kind of inputs, alone and in batches. Once ``is_late``, only the minimum is tried."""

    def __init__(
        self,
        signature: ModelSignature,
        run: Run,
        inputs: SyntheticInputs,
        is_late: Callable[[], bool],
        memory: MemoryGrowth,
    ) -> None:
        self._signature = signature
        self._run = run
        self._is_late = is_late
        self._memory = memory
        self._inputs = replace(inputs, signature=signature)
        self._rows: list[dict[str, Array]] = []
        self._alone: list[Outputs] = []
        self._typical: Profiles = {}
        self._compared = 0
        self._flips: list[str] = []

    def execute(self, rows: int, enough: Callable[[], bool]) -> None:
        """Compare ``rows`` rows in batches of each size, round after round until ``enough``.

        Raises `ContradictedError` or `UnprovenError`.
        """
        self._run_alone(rows)
        self._require_determinism()
        self._typical = {
            spec.name: profile([outputs[spec.name] for outputs in self._alone]) for spec in self._signature.outputs
        }
        random = np.random.default_rng(len(self._rows))
        for turn in range(_ROUNDS):
            if turn >= _LEAST_ROUNDS and enough():
                break
            for index, size in enumerate(_BATCH_SIZES):
                if index >= _ALWAYS_TRIED and not self._memory.fits(size):
                    break
                if (turn or index >= _ALWAYS_TRIED) and self._is_late():
                    break
                self._try_batch(_members(random, len(self._rows), size))
                self._memory.ran(size)
        if len(self._flips) > _RARE * self._compared:
            raise ContradictedError(self._flips[0])

    def _run_alone(self, rows: int) -> None:
        for number in range(rows):
            row = self._inputs.row(number)
            try:
                outputs = self._run(row)
            except Exception as error:  # noqa: BLE001  (some rows may be out of the model's range)
                _log.debug("the model does not run on synthetic row %d: %s", number, error)
                if self._is_late():
                    break
                continue
            self._rows.append(row)
            self._alone.append(outputs)
            for spec in self._signature.outputs:
                self._require_one_row(spec, outputs[spec.name])
            if len(self._rows) >= LEAST_ROWS and self._is_late():
                break
        distinct = {tuple(array.tobytes() for array in row.values()) for row in self._rows if not _has_objects(row)}
        if len(self._rows) < LEAST_ROWS or len(distinct) == 1:
            msg = f"the model runs on {len(self._rows)} of {rows} synthetic rows only, too few to compare"
            raise UnprovenError(msg)

    def _require_one_row(self, spec: TensorSpec, output: Array) -> None:
        axis = spec.batch_axis
        if axis is not None and (output.ndim <= axis or output.shape[axis] != 1):
            msg = f'output "{spec.name}" {format_shape(spec.shape)} is of shape {list(output.shape)} for one row'
            raise ContradictedError(f"{msg}: its rows do not follow those of the inputs", shape_mismatch=True)

    def _require_determinism(self) -> None:
        again = self._run(self._rows[0])
        for name, output in self._alone[0].items():
            if difference(output, again[name]) is not None:
                msg = f'the model is not deterministic: output "{name}" differs when the same request runs again'
                raise UnprovenError(msg)

    def _try_batch(self, members: Sequence[int]) -> None:
        inputs = stack(self._signature, [self._rows[member] for member in members])
        try:
            outputs = self._run(inputs)
        except Exception as error:
            _log.debug("the model does not run with %d rows: %s", len(members), error)
            raise_if_timed_out(error)
            msg = f"the model runs with one row, but not with {len(members)}"
            raise ContradictedError(msg, shape_mismatch=True) from error
        for spec in self._signature.outputs:
            self._require_rows(spec, outputs[spec.name], members)
        for position in range(len(members)):
            self._compare(inputs, outputs, members, position)

    def _require_rows(self, spec: TensorSpec, batched: Array, members: Sequence[int]) -> None:
        alone = self._alone[members[0]][spec.name]
        expected = list(alone.shape)
        if spec.batch_axis is not None:
            expected[spec.batch_axis] = len(members)
        if list(batched.shape) != expected:
            shapes_alone = {self._alone[member][spec.name].shape for member in members}
            shapes = f"{format_shape(alone.shape)} for one row and {format_shape(batched.shape)} for {len(members)}"
            msg = f'output "{spec.name}" {format_shape(spec.shape)} is {shapes}'
            # If rows alone differ in shape among themselves, the axis is not what is wrong.
            raise ContradictedError(
                f"{msg}: its rows do not follow those of the inputs", shape_mismatch=len(shapes_alone) == 1
            )

    def _compare(self, inputs: Tensors, outputs: Outputs, members: Sequence[int], position: int) -> None:
        self._compared += 1
        member = members[position]
        mismatch = find_mismatch(
            self._signature,
            self._run,
            inputs=inputs,
            outputs=outputs,
            alone=self._alone[member],
            start=position,
            stop=position + 1,
            typical=self._typical,
        )
        if mismatch is None or mismatch.cause is Cause.NOISE:
            return
        description = self._describe(mismatch, member)
        if mismatch.cause is Cause.ROUNDING:
            # A fault of the model would flip more than a few rows.
            self._flips.append(description)
            return
        raise ContradictedError(description)

    def _describe(self, mismatch: Mismatch, member: int) -> str:
        """Return what differed and for which row; recorded requests are not quoted, as they may be confidential."""
        if self._inputs.examples:
            return f"{mismatch.without_values}; the row was made of the examples"
        row = self._rows[member]
        shown = [f"{spec.name} = {_excerpt(row[spec.name])}" for spec in self._signature.inputs if spec.name in row]
        return f"{mismatch}; the row was {', '.join(shown)}"


def _members(random: np.random.Generator, count: int, size: int) -> list[int]:
    """Return the rows of a batch in random order, without duplicates if there are enough."""
    order = list(random.permutation(count))
    while len(order) < size:
        order += list(random.permutation(count))
    return [int(member) for member in order[:size]]


def _has_objects(row: Mapping[str, Array]) -> bool:
    return any(array.dtype.hasobject for array in row.values())


def _excerpt(array: Array) -> str:
    shown = [
        item.decode(errors="replace") if isinstance(item, bytes) else f"{item:.4g}" if isinstance(item, float) else item
        for item in array.ravel()[:4].tolist()
    ]
    more = ", …" if array.size > len(shown) else ""
    return f"[{', '.join(map(str, shown))}{more}]"
