"""Puts the claim that a model batches to the test: by its graph, and by running it. Knows no session.

The claim of `inferd.runtime.batch_axes.inference` is: these dimensions count rows. It is wrong if an answer depends on
the rows beside it, on their number, or on its place among them. The graph can show that without a run, whatever the
numbers are (`inferd.runtime.row_analysis`); where it cannot be followed to the end, and always to be sure, the model
runs rows alone and in batches of several sizes, in other orders and beside other rows, and every output is compared.

An answer that differs is looked into by `inferd.runtime.batch_axes.row_comparison` before it counts.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from inferd.runtime.batch_axes.inference import Inspection
from inferd.runtime.batch_axes.input_search import Hints, Run, find_inputs, variants
from inferd.runtime.batch_axes.row_comparison import (
    Cause,
    Mismatch,
    Profiles,
    difference,
    find_mismatch,
    profile,
)
from inferd.runtime.batch_axes.synthetic_inputs import SyntheticInputs
from inferd.runtime.batch_axes.verdict import Standing, Verdict
from inferd.runtime.resources import MemoryGrowth
from inferd.runtime.row_analysis.analysis import GraphAnalysis
from inferd.runtime.run_timeout import TrialTimeoutError
from inferd.runtime.signature import Array, ModelSignature, Tensors, TensorSpec, format_shape
from inferd.runtime.stacking import stack

#: Rows of a trial: at least, for the first one, and for the others.
_LEAST_ROWS = 3
_ROWS = 20
_ROWS_OF_OTHERS = 7
#: Sizes of the batches; the first two are tried however long they take.
_SIZES = (2, 3, 5, 8, 17, 33)
_TRIED_ALWAYS = 2
#: How often each size is tried with other rows, and from which time on only a model whose runs are cheap.
_ROUNDS = 8
_ROUNDS_OF_ALL = 2
_CHEAP_S = 0.1
#: After this long, what has been tried must do.
_BUDGET_S = 1.0
#: Part of the rows in which whole numbers may differ where floats were rounded to them.
_RARE = 0.1

_log = logging.getLogger("inferd.runtime")

Outputs = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What came of it: the claim as far as it stands, the verdict, and inputs that the model runs on if any were found.

    ``inspection`` has no batch axes unless the verdict allows batching.
    """

    inspection: Inspection
    verdict: Verdict
    trial: SyntheticInputs | None


class _ContradictedError(Exception):
    """A trial has shown that the claim is wrong; the text says how. ``misfit``: by shapes."""

    def __init__(self, reason: str, *, misfit: bool = False) -> None:
        super().__init__(reason)
        self.misfit = misfit


class _UnprovenError(Exception):
    """Nothing can be shown; the text says why."""


def prove(
    claim: Inspection,
    run: Run,
    *,
    graph: GraphAnalysis | None = None,
    hints: Hints | None = None,
    given: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Proof:
    """Hold ``claim`` against the graph and against runs of the model.

    ``graph`` is None if nothing is known of it. ``given``: the claim is the operator's own.
    """
    hints = Hints() if hints is None else hints
    trial = find_inputs(claim.signature, run, hints, clock)
    if not claim.signature.batchable:
        verdict = Verdict(standing=Standing.CONTRADICTED, reason=claim.why_not_batchable, misfit=True)
        return _concluded(_with_true_ranks(claim, trial, run), verdict, trial)
    prover = _Prover(claim.signature, run, graph, clock, given=given)
    try:
        prover.prove(trial, hints)
        verdict = Verdict(standing=Standing.PROVEN, given=given)
    except _UnprovenError as error:
        verdict = Verdict(standing=Standing.UNPROVEN, reason=str(error), given=given)
    except _ContradictedError as error:
        verdict = Verdict(standing=Standing.CONTRADICTED, reason=str(error), misfit=error.misfit, given=given)
    if graph is not None and graph.mixes:
        # Whatever runs show, they do not show it for all numbers; what they do show says it best.
        shown = f"; for example, {verdict.reason}" if verdict.standing is Standing.CONTRADICTED else ""
        verdict = replace(verdict, standing=Standing.CONTRADICTED, reason=f"{graph.mixes}{shown}")
    if trial is None and not verdict.allows_batching:
        # One row may be too few for what are no rows.
        trial = find_inputs(unbatchable(claim.signature, "").signature, run, hints, clock)
    return _concluded(Inspection(signature=prover.signature), verdict, trial)


_NOTHING_RUNS = (
    "the model does not run on made-up inputs; give it some that it takes: inputs.NAME.example in model.yaml, or "
    "recorded requests in examples.npz or examples.json beside the model"
)


def unbatchable(signature: ModelSignature, why: str) -> Inspection:
    """Return the same inputs and outputs without batch axes."""
    return Inspection(
        signature=replace(
            signature,
            inputs=tuple(replace(spec, batch_axis=None) for spec in signature.inputs),
            outputs=tuple(replace(spec, batch_axis=None) for spec in signature.outputs),
            batchable=False,
        ),
        why_not_batchable=why,
    )


def _concluded(inspection: Inspection, verdict: Verdict, trial: SyntheticInputs | None) -> Proof:
    if not verdict.allows_batching:
        inspection = unbatchable(inspection.signature, verdict.reason)
    trial = None if trial is None else replace(trial, signature=inspection.signature)
    return Proof(inspection=inspection, verdict=verdict, trial=trial)


def _with_true_ranks(claim: Inspection, trial: SyntheticInputs | None, run: Run) -> Inspection:
    """Open the dimensions of outputs that were declared without any, which may mean that their rank is not known."""
    if trial is None or all(spec.shape for spec in claim.signature.outputs):
        return claim
    seen = run(trial.row(0))
    outputs = tuple(_with_true_rank(spec, seen[spec.name]) for spec in claim.signature.outputs)
    return replace(claim, signature=replace(claim.signature, outputs=outputs))


def _with_true_rank(spec: TensorSpec, seen: Array) -> TensorSpec:
    return spec if spec.shape or seen.ndim == 0 else replace(spec, shape=(None,) * seen.ndim)


class _Prover:
    """Runs the trials of one claim."""

    def __init__(
        self,
        signature: ModelSignature,
        run: Run,
        graph: GraphAnalysis | None,
        clock: Callable[[], float],
        *,
        given: bool,
    ) -> None:
        #: The claim, with the axes of outputs as they are found.
        self.signature = signature
        self._run = run
        self._graph = graph
        self._clock = clock
        self._given = given
        self._ends_at = clock() + _BUDGET_S

    def prove(self, first: SyntheticInputs | None, hints: Hints) -> None:
        """Try the inputs that were found, and others like them. Raises `_ContradictedError` or `_UnprovenError`."""
        if first is None:
            raise _UnprovenError(_NOTHING_RUNS)
        self.signature = replace(self.signature, outputs=self._found_outputs(first))
        is_clear = self._graph is not None and not (self._graph.unclear or self._graph.mixes)
        self._try(first, _ROWS, is_clear=is_clear)
        others = variants(first, self._run, hints)
        while not self._late() and (trial := next(others, None)) is not None:
            self._try(trial, _ROWS_OF_OTHERS, is_clear=is_clear)
        if self._graph is not None and self._graph.doubtful and not self._graph.mixes:
            msg = f"all rows that were tried agree, but the graph could not be followed: {self._graph.unclear}"
            raise _UnprovenError(msg)

    def _try(self, trial: SyntheticInputs, rows: int, *, is_clear: bool) -> None:
        ends_at = min(self._clock() + _CHEAP_S, self._ends_at) if is_clear else self._ends_at
        enough = partial(self._is_past, ends_at)
        _Trial(self.signature, self._run, trial, self._late, MemoryGrowth()).go(rows, enough)

    def _late(self) -> bool:
        return self._is_past(self._ends_at)

    def _is_past(self, when: float) -> bool:
        return self._clock() >= when

    def _found_outputs(self, trial: SyntheticInputs) -> tuple[TensorSpec, ...]:
        """Return the outputs with the axes that the graph tells, or else the way in which their shapes grow."""
        one = self._run(trial.row(0))
        rows = stack(self.signature, [trial.row(number) for number in range(_LEAST_ROWS)])
        try:
            several = self._run(rows)
        except Exception as error:
            _log.debug("the model does not run with %d rows: %s", _LEAST_ROWS, error)
            _require_time(error)
            self._require_rows_alone(trial)
            msg = f"the model runs with one row, but not with {_LEAST_ROWS}"
            raise _ContradictedError(msg, misfit=True) from error
        outputs = tuple(self._found_output(spec, one, several) for spec in self.signature.outputs)
        if all(spec.batch_axis is None for spec in outputs):
            msg = "no output has a dimension that follows the rows"
            raise _ContradictedError(msg, misfit=True)
        return outputs

    def _require_rows_alone(self, trial: SyntheticInputs) -> None:
        """Raise `_UnprovenError` unless each of a few rows runs alone, so that it is running together that fails."""
        try:
            for number in range(_LEAST_ROWS):
                self._run(trial.row(number))
        except Exception:  # noqa: BLE001  (see above)
            msg = "the model does not run on all of the made-up rows"
            raise _UnprovenError(msg) from None

    def _found_output(self, spec: TensorSpec, one: Outputs, several: Outputs) -> TensorSpec:
        first, more = one[spec.name], several[spec.name]
        open_shape = not spec.shape or all(size is None for size in spec.shape)
        spec = _with_true_rank(spec, first)
        axis = None if self._graph is None or self._given else self._graph.axes.get(spec.name)
        if axis is not None:
            return replace(spec, batch_axis=axis)
        if spec.batch_axis is not None or not open_shape:
            return spec
        places = enumerate(zip(first.shape, more.shape, strict=False))
        axes = [axis for axis, sizes in places if sizes == (1, _LEAST_ROWS)]
        return replace(spec, batch_axis=axes[0]) if len(axes) == 1 else spec


class _Trial:
    """Rows alone and in batches, of one kind of inputs."""

    def __init__(
        self,
        signature: ModelSignature,
        run: Run,
        trial: SyntheticInputs,
        late: Callable[[], bool],
        memory: MemoryGrowth,
    ) -> None:
        self._signature = signature
        self._run = run
        self._late = late
        self._memory = memory
        self._trial = replace(trial, signature=signature)
        self._rows: list[dict[str, Array]] = []
        self._alone: list[Outputs] = []
        self._usual: Profiles = {}
        self._compared = 0
        self._flips: list[str] = []

    def go(self, rows: int, enough: Callable[[], bool]) -> None:
        """Compare ``rows`` rows in batches of each size, again and again until it is ``enough``.

        Raises as `_Prover.prove`.
        """
        self._run_alone(rows)
        self._require_determinism()
        self._usual = {
            spec.name: profile([answer[spec.name] for answer in self._alone]) for spec in self._signature.outputs
        }
        random = np.random.default_rng(len(self._rows))
        for turn in range(_ROUNDS):
            if turn >= _ROUNDS_OF_ALL and enough():
                break
            for place, size in enumerate(_SIZES):
                if place >= _TRIED_ALWAYS and not self._memory.fits(size):
                    break
                if (turn or place >= _TRIED_ALWAYS) and self._late():
                    break
                self._try_batch(_members(random, len(self._rows), size))
                self._memory.ran(size)
        if len(self._flips) > _RARE * self._compared:
            raise _ContradictedError(self._flips[0])

    def _run_alone(self, rows: int) -> None:
        for number in range(rows):
            row = self._trial.row(number)
            try:
                answer = self._run(row)
            except Exception as error:  # noqa: BLE001  (some rows may be more than a model takes)
                _log.debug("the model does not run on made-up row %d: %s", number, error)
                if self._late():
                    break
                continue
            self._rows.append(row)
            self._alone.append(answer)
            for spec in self._signature.outputs:
                self._require_one_row(spec, answer[spec.name])
            if len(self._rows) >= _LEAST_ROWS and self._late():
                break
        distinct = {tuple(array.tobytes() for array in row.values()) for row in self._rows if _plain(row)}
        if len(self._rows) < _LEAST_ROWS or len(distinct) == 1:
            msg = f"the model runs on {len(self._rows)} of {rows} made-up rows only, too few to compare"
            raise _UnprovenError(msg)

    def _require_one_row(self, spec: TensorSpec, answer: Array) -> None:
        axis = spec.batch_axis
        if axis is not None and (answer.ndim <= axis or answer.shape[axis] != 1):
            msg = f'output "{spec.name}" {format_shape(spec.shape)} is of shape {list(answer.shape)} for one row'
            raise _ContradictedError(f"{msg}: its rows do not follow those of the inputs", misfit=True)

    def _require_determinism(self) -> None:
        again = self._run(self._rows[0])
        for name, answer in self._alone[0].items():
            if difference(answer, again[name]) is not None:
                msg = f'the model is not deterministic: output "{name}" differs when the same request runs again'
                raise _UnprovenError(msg)

    def _try_batch(self, members: Sequence[int]) -> None:
        inputs = stack(self._signature, [self._rows[member] for member in members])
        try:
            outputs = self._run(inputs)
        except Exception as error:
            _log.debug("the model does not run with %d rows: %s", len(members), error)
            _require_time(error)
            msg = f"the model runs with one row, but not with {len(members)}"
            raise _ContradictedError(msg, misfit=True) from error
        for spec in self._signature.outputs:
            self._require_rows(spec, outputs[spec.name], members)
        for place in range(len(members)):
            self._compare(inputs, outputs, members, place)

    def _require_rows(self, spec: TensorSpec, batched: Array, members: Sequence[int]) -> None:
        alone = self._alone[members[0]][spec.name]
        expected = list(alone.shape)
        if spec.batch_axis is not None:
            expected[spec.batch_axis] = len(members)
        if list(batched.shape) != expected:
            others = {self._alone[member][spec.name].shape for member in members}
            shapes = f"{format_shape(alone.shape)} for one row and {format_shape(batched.shape)} for {len(members)}"
            msg = f'output "{spec.name}" {format_shape(spec.shape)} is {shapes}'
            # Where rows alone have shapes of their own, what is wrong is not the axis.
            raise _ContradictedError(f"{msg}: its rows do not follow those of the inputs", misfit=len(others) == 1)

    def _compare(self, inputs: Tensors, outputs: Outputs, members: Sequence[int], place: int) -> None:
        self._compared += 1
        member = members[place]
        mismatch = find_mismatch(
            self._signature,
            self._run,
            inputs=inputs,
            outputs=outputs,
            alone=self._alone[member],
            start=place,
            stop=place + 1,
            usual=self._usual,
        )
        if mismatch is None or mismatch.cause is Cause.NOISE:
            return
        told = self._told(mismatch, member)
        if mismatch.cause is Cause.ROUNDING:
            # What is wrong with the model, if anything is, shows in more than a few rows.
            self._flips.append(told)
            return
        raise _ContradictedError(told)

    def _told(self, mismatch: Mismatch, member: int) -> str:
        """Say what differed and for which row; recorded requests are not quoted, as they may be somebody's."""
        if self._trial.examples:
            return f"{mismatch.without_values}; the row was made of the examples"
        row = self._rows[member]
        shown = [f"{spec.name} = {_beginning(row[spec.name])}" for spec in self._signature.inputs if spec.name in row]
        return f"{mismatch}; the row was {', '.join(shown)}"


def _require_time(error: Exception) -> None:
    """Raise `_UnprovenError` if a run did not fail but was ended."""
    if isinstance(error, TrialTimeoutError):
        msg = f"rows take much longer in a batch than alone: {error}"
        raise _UnprovenError(msg) from error


def _members(random: np.random.Generator, count: int, size: int) -> list[int]:
    """Return which rows make a batch, in any order; each once as long as there are enough."""
    order = list(random.permutation(count))
    while len(order) < size:
        order += list(random.permutation(count))
    return [int(member) for member in order[:size]]


def _plain(row: Mapping[str, Array]) -> bool:
    return not any(array.dtype.hasobject for array in row.values())


def _beginning(array: Array) -> str:
    shown = [
        item.decode(errors="replace") if isinstance(item, bytes) else f"{item:.4g}" if isinstance(item, float) else item
        for item in array.ravel()[:4].tolist()
    ]
    more = ", …" if array.size > len(shown) else ""
    return f"[{', '.join(map(str, shown))}{more}]"
