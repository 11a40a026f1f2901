"""Verifies candidate batch axes by graph analysis and by trial runs; README.md in this package explains the proof."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from inferd.runtime.batch_axes.batch_trial import (
    LEAST_ROWS,
    BatchTrial,
    ContradictedError,
    Outputs,
    UnprovenError,
    raise_if_timed_out,
)
from inferd.runtime.batch_axes.inference import Candidate
from inferd.runtime.batch_axes.input_search import Hints, Run, find_inputs, input_variants, is_accepted
from inferd.runtime.batch_axes.synthetic_inputs import SyntheticInputs
from inferd.runtime.batch_axes.verdict import Standing, Verdict
from inferd.runtime.resources import MemoryGrowth
from inferd.runtime.row_analysis.analysis import GraphAnalysis
from inferd.runtime.signature import Array, ModelSignature, TensorSpec
from inferd.runtime.stacking import stack

#: Rows of the first trial, and of each trial with other inputs.
_ROWS = 20
_ROWS_OF_VARIANTS = 7
#: Time limit of all trials of a candidate, and of one trial if the graph alone is already conclusive.
_BUDGET_S = 1.0
_BUDGET_OF_CLEAR_GRAPH_S = 0.1

_log = logging.getLogger("inferd.runtime")

_NOTHING_RUNS = (
    "the model does not run on synthetic inputs; provide some that it accepts: inputs.NAME.example in model.yaml, or "
    "recorded requests in examples.npz or examples.json beside the model"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """The verdict, the verified signature, and inputs on which the model runs, if any were found.

    ``signature`` has no batch axes unless the verdict allows batching.
    """

    signature: ModelSignature
    verdict: Verdict
    inputs: SyntheticInputs | None


def verify_batch_axes(
    candidate: Candidate,
    run: Run,
    *,
    graph: GraphAnalysis | None = None,
    hints: Hints | None = None,
    configured: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Verification:
    """Verify ``candidate`` by the analysis of its graph and by runs of the model.

    ``graph`` is None if the graph was not analysed. ``configured``: the batch axes are from the settings.
    """
    hints = Hints() if hints is None else hints
    inputs = find_inputs(candidate.signature, run, hints, clock)
    if not candidate.signature.batchable:
        standing = Standing.UNPROVEN if candidate.is_chosen else Standing.CONTRADICTED
        verdict = Verdict(standing=standing, reason=candidate.why_not_batchable, shape_mismatch=True)
        return _verification(_with_observed_ranks(candidate.signature, inputs, run), verdict, inputs)
    verifier = _Verifier(candidate.signature, run, graph, clock, configured=configured)
    verdict = _combined(verifier.verdict(inputs, hints), graph)
    if not verdict.allows_batching and not _run_unbatched(inputs, run):
        # One row along the candidate axes may be too small an input if they are not batch axes.
        inputs = find_inputs(candidate.signature.without_batch_axes(), run, hints, clock)
    return _verification(verifier.signature, verdict, inputs)


def _run_unbatched(inputs: SyntheticInputs | None, run: Run) -> bool:
    """Whether there are ``inputs``, and they still run without batch axes, which other values are drawn for."""
    if inputs is None:
        return False
    return is_accepted(replace(inputs, signature=inputs.signature.without_batch_axes()), run)


def _combined(of_runs: Verdict, graph: GraphAnalysis | None) -> Verdict:
    """Return the verdict of the runs, overruled by a graph that mixes rows: runs cannot show all numbers."""
    if graph is None or not graph.mixes:
        return of_runs
    example = f"; for example, {of_runs.reason}" if of_runs.standing is Standing.CONTRADICTED else ""
    return replace(of_runs, standing=Standing.CONTRADICTED, reason=f"{graph.mixes}{example}")


def _verification(signature: ModelSignature, verdict: Verdict, inputs: SyntheticInputs | None) -> Verification:
    if not verdict.allows_batching:
        signature = signature.without_batch_axes()
    inputs = None if inputs is None else replace(inputs, signature=signature)
    return Verification(signature=signature, verdict=verdict, inputs=inputs)


def _with_observed_ranks(signature: ModelSignature, inputs: SyntheticInputs | None, run: Run) -> ModelSignature:
    """Add open dimensions to outputs declared without any, which may mean that their rank is undeclared."""
    if inputs is None or all(spec.shape for spec in signature.outputs):
        return signature
    observed = run(inputs.row(0))
    return replace(
        signature, outputs=tuple(_with_observed_rank(spec, observed[spec.name]) for spec in signature.outputs)
    )


def _with_observed_rank(spec: TensorSpec, observed: Array) -> TensorSpec:
    return spec if spec.shape or observed.ndim == 0 else replace(spec, shape=(None,) * observed.ndim)


class _Verifier:
    """Runs the trials of one candidate."""

    def __init__(
        self,
        signature: ModelSignature,
        run: Run,
        graph: GraphAnalysis | None,
        clock: Callable[[], float],
        *,
        configured: bool,
    ) -> None:
        #: The candidate, with the batch axes of outputs as they are found.
        self.signature = signature
        self._run = run
        self._graph = graph
        self._clock = clock
        self._configured = configured
        self._ends_at = clock() + _BUDGET_S

    def verdict(self, inputs: SyntheticInputs | None, hints: Hints) -> Verdict:
        """Try ``inputs`` and variants of them, and return what the runs show."""
        try:
            self._try_all(inputs, hints)
        except UnprovenError as error:
            return Verdict(standing=Standing.UNPROVEN, reason=str(error), configured=self._configured)
        except ContradictedError as error:
            return Verdict(
                standing=Standing.CONTRADICTED,
                reason=str(error),
                shape_mismatch=error.shape_mismatch,
                configured=self._configured,
            )
        return Verdict(standing=Standing.PROVEN, configured=self._configured)

    def _try_all(self, first: SyntheticInputs | None, hints: Hints) -> None:
        if first is None:
            raise UnprovenError(_NOTHING_RUNS)
        self.signature = replace(self.signature, outputs=self._outputs_with_axes(first))
        is_clear = self._graph is not None and not (self._graph.undecided or self._graph.mixes)
        self._try(first, _ROWS, is_clear=is_clear)
        for inputs in self._variants_in_time(first, hints):
            self._try(inputs, _ROWS_OF_VARIANTS, is_clear=is_clear)
        if self._graph is not None and self._graph.doubtful and not self._graph.mixes:
            msg = f"all rows that were tried agree, but the graph could not be followed: {self._graph.undecided}"
            raise UnprovenError(msg)

    def _variants_in_time(self, first: SyntheticInputs, hints: Hints) -> Iterator[SyntheticInputs]:
        variants = input_variants(first, self._run, hints)
        while not self._is_late() and (inputs := next(variants, None)) is not None:
            yield inputs

    def _try(self, inputs: SyntheticInputs, rows: int, *, is_clear: bool) -> None:
        ends_at = min(self._clock() + _BUDGET_OF_CLEAR_GRAPH_S, self._ends_at) if is_clear else self._ends_at
        enough = partial(self._is_past, ends_at)
        BatchTrial(self.signature, self._run, inputs, self._is_late, MemoryGrowth()).execute(rows, enough)

    def _is_late(self) -> bool:
        return self._is_past(self._ends_at)

    def _is_past(self, when: float) -> bool:
        return self._clock() >= when

    def _outputs_with_axes(self, inputs: SyntheticInputs) -> tuple[TensorSpec, ...]:
        """Return the outputs with batch axes from the graph, or else from how their shapes grow with the rows."""
        one = self._run(inputs.row(0))
        rows = stack(self.signature, [inputs.row(number) for number in range(LEAST_ROWS)])
        try:
            several = self._run(rows)
        except Exception as error:
            _log.debug("the model does not run with %d rows: %s", LEAST_ROWS, error)
            raise_if_timed_out(error)
            self._require_rows_alone(inputs)
            msg = f"the model runs with one row, but not with {LEAST_ROWS}"
            raise ContradictedError(msg, shape_mismatch=True) from error
        outputs = tuple(self._output_with_axis(spec, one, several) for spec in self.signature.outputs)
        if all(spec.batch_axis is None for spec in outputs):
            msg = "no output has a dimension that follows the rows"
            raise ContradictedError(msg, shape_mismatch=True)
        return outputs

    def _require_rows_alone(self, inputs: SyntheticInputs) -> None:
        """Raise `UnprovenError` unless each row runs alone, so that it is the batch that fails."""
        try:
            for number in range(LEAST_ROWS):
                self._run(inputs.row(number))
        except Exception:  # noqa: BLE001  (see above)
            msg = "the model does not run on all of the synthetic rows"
            raise UnprovenError(msg) from None

    def _output_with_axis(self, spec: TensorSpec, one: Outputs, several: Outputs) -> TensorSpec:
        first, more = one[spec.name], several[spec.name]
        is_open = not spec.shape or all(size is None for size in spec.shape)
        spec = _with_observed_rank(spec, first)
        axis = None if self._graph is None or self._configured else self._graph.axes.get(spec.name)
        if axis is not None:
            return replace(spec, batch_axis=axis)
        if spec.batch_axis is not None or not is_open:
            return spec
        sizes_by_axis = enumerate(zip(first.shape, more.shape, strict=False))
        axes = [axis for axis, sizes in sizes_by_axis if sizes == (1, LEAST_ROWS)]
        return replace(spec, batch_axis=axes[0]) if len(axes) == 1 else spec
