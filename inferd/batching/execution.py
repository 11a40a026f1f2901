"""Runs batches: drop answered requests, stack, run, check, split, answer; bisect a batch whose run fails."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferd.batching.bisection import Bisection
from inferd.batching.ports import Clock, PollThread, Session
from inferd.batching.request import Answers, Batch, BatchTiming, FailedRunError, InferenceRequest, InferenceResult
from inferd.batching.run_guard import RunEndedError, RunGuard
from inferd.batching.self_check import RunAt, SelfCheck
from inferd.errors import DeadlineExceededError, InferenceFailedError, ServingError
from inferd.observability.metrics.models import BatchReport, RunOutcome
from inferd.runtime.signature import ModelSignature, Tensors
from inferd.runtime.stacking import RowsDoNotFollowError, chunks, join, split, stack

_logger = logging.getLogger("inferd.batching")

#: From this many answers on, the poll thread sends them: each send releases the interpreter lock, which that thread
#: would take every time. Fewer answers are sent sooner than another thread is woken.
_WORTH_HANDING_OVER = 3

_Outputs = dict[str, NDArray[np.generic]]


class _Before(NamedTuple):
    """Durations before a run in seconds, one for each of its requests that runs for the first time."""

    decode_s: Sequence[float]
    queue_s: Sequence[float]


_RAN_BEFORE = _Before((), ())


class _Group(NamedTuple):
    """Requests that run together, and what the run takes of each, in the same order; gathered in one walk."""

    requests: list[InferenceRequest]
    inputs: list[Tensors]
    rows: list[int]
    decode_s: list[float]
    queue_s: list[float]


@dataclass(frozen=True, slots=True)
class _Done:
    """Requests that ran successfully: the outputs of each, and the report of the run, which is still to be made."""

    parts: list[_Outputs]
    report: BatchReport
    timing: BatchTiming
    cpu_s: float


class _Failed(NamedTuple):
    """Why a run failed, and its timing."""

    error: Exception
    timing: BatchTiming


class _MismatchError(Exception):
    """A request gets another answer alone than in its batch; the text says which output and how, without values."""


class Executor:
    """Answers every request of a batch, whatever happens, and raises nothing.

    Any number of threads may call `execute` at a time. A batch that is given up meanwhile no longer belongs to the
    executor. A request with more than ``chunk_rows`` rows is alone in its batch and runs in pieces; with None every
    request runs in one piece. ``on_mismatch`` is called when requests turn out to get other answers in a batch than
    alone; from then on, and in the batch at hand, each runs alone.
    """

    def __init__(
        self,
        *,
        name: str,
        session: Session,
        guard: RunGuard,
        chunk_rows: int | None,
        clock: Clock,
        answers: Answers,
        poll_thread: PollThread,
        check: SelfCheck,
        on_mismatch: Callable[[], None],
        thread_clock: Clock = time.thread_time,
    ) -> None:
        self._check = check
        #: Whether the mismatch has been logged; it is logged twice if two threads find one at the same time.
        self._mismatch_told = False
        self._on_mismatch = on_mismatch
        self._poll_thread = poll_thread
        self._name = name
        self._session = session
        self._on_accelerator = session.on_accelerator
        self._guard = guard
        self._chunk_rows = chunk_rows
        self._clock = clock
        self._thread_clock = thread_clock
        self._answers = answers

    def execute(self, batch: Batch) -> None:
        """Run ``batch`` and answer its requests; blocks for as long as the model takes."""
        try:
            self._run(batch, batch.requests, first=not batch.ran_before)
        except BaseException:  # whatever it is, the requests must be answered and the thread must survive
            _logger.exception("running a batch of model %s failed", self._name)
            for request in batch.requests:
                self._answers.fail(request, InferenceFailedError())

    def _run(self, batch: Batch, requests: Sequence[InferenceRequest], *, first: bool) -> None:
        failed = self._attempt(batch, requests, first=first)
        if not failed:
            return
        bisection = Bisection(failed)
        while (group := bisection.next()) is not None:
            failed = self._attempt(batch, group, first=False)
            if failed:
                bisection.failed(failed)

    def _attempt(
        self, batch: Batch, requests: Sequence[InferenceRequest], *, first: bool
    ) -> Sequence[InferenceRequest]:
        """Run ``requests`` together and answer them. Returns those that failed together and have no answer yet."""
        group = self._gather(batch, requests)
        live = group.requests
        if not live or batch.given_up:
            return ()
        if len(live) > 1 and not self._session.signature.batchable:
            # Dispatched before the queue stopped batching.
            self._run_each(batch, live, first=first)
            return ()
        done = self._try(batch, group, _Before(group.decode_s, group.queue_s) if first else _RAN_BEFORE)
        if isinstance(done, _Failed):
            return self._failed(batch, live, done, group.queue_s)
        batch.answering = True
        if done is not None:
            batch.run_s = done.timing.run_s
            batch.cpu_s = None if self._on_accelerator else done.cpu_s
            self._answer(live, done, group.queue_s)
        return ()

    def _failed(
        self, batch: Batch, live: Sequence[InferenceRequest], failed: _Failed, queue_s: Sequence[float]
    ) -> Sequence[InferenceRequest]:
        """Answer the requests of a failed run, if only one can be at fault. Returns the others, to be bisected."""
        error = failed.error
        if isinstance(error, _MismatchError | RowsDoNotFollowError):
            stops = self._stop_batching(live, error)
            if stops or isinstance(error, _MismatchError):
                # If the operator has set that the model batches, only this batch runs one by one.
                self._run_each(batch, live)
                return ()
        if len(live) > 1:
            _logger.warning(
                "a batch of %d requests to model %s failed; running it again in parts: %r", len(live), self._name, error
            )
            return live
        if isinstance(error, ServingError):
            self._answers.fail(live[0], error)
            return ()
        extra = {"request_id": live[0].reply.request_id}
        _logger.error("a request to model %s failed", self._name, exc_info=error, extra=extra)
        self._answers.fail(live[0], FailedRunError(failed.timing, queue_s[0]))
        return ()

    def _try(self, batch: Batch, group: _Group, before: _Before) -> _Done | _Failed | None:
        """Run the model, or return why that failed; None if no request needs an answer any more.

        The failure is returned and not raised: parts of a batch that ran inside an ``except`` block would chain their
        exceptions to the earlier ones.
        """
        signature, live = self._session.signature, group.requests
        started_at = self._clock()
        try:
            if signature.batchable and self._chunk_rows is not None and live[0].rows > self._chunk_rows:
                return self._run_in_chunks(batch, signature, live[0], self._chunk_rows, before)
            run = partial(self._guard.run, live, batch)
            wanted = self._wanted(live) if len(live) > 1 else live[0].outputs
            return self._run_once(run, signature, group.inputs, group.rows, wanted, before)
        except RunEndedError:
            batch.cut_off = True
            return None
        except Exception as error:  # noqa: BLE001  whatever a runtime raises; logged with the failing request
            took_s = self._clock() - started_at
            rows = sum(group.rows)
            return _Failed(error, BatchTiming(started_at=started_at, stack_s=0.0, run_s=took_s, rows=rows))

    def _gather(self, batch: Batch, requests: Sequence[InferenceRequest]) -> _Group:
        """Return the requests that still need a run; answer the expired ones."""
        now = self._clock()
        group = _Group([], [], [], [], [])
        live, inputs, rows, decode_s, queue_s = group
        for request in requests:
            if request.deadline <= now:
                self._answers.fail(request, DeadlineExceededError("the deadline passed before the model ran"))
            elif not request.reply.done():
                live.append(request)
                inputs.append(request.inputs)
                rows.append(request.rows)
                decode_s.append(request.offered_at - request.received_at)
                queue_s.append(batch.started_at - request.enqueued_at)
        return group

    def _stop_batching(self, live: Sequence[InferenceRequest], error: Exception) -> bool:
        """Stop batching; False if the operator has set that the model batches."""
        if not self._session.signature.batchable:
            return True
        stops = self._session.stop_batching(f"found while serving: {error}")
        if stops:
            self._on_mismatch()
        elif self._mismatch_told:
            return False
        self._mismatch_told = True
        _logger.error(
            "a request to model %s gets another answer in a batch than alone; %s",
            self._name,
            "its version is no longer batched" if stops else "it is still batched, because batch_axis is set",
            extra={"request_ids": [request.reply.request_id for request in live], "reason": str(error)},
        )
        return stops

    def _run_each(self, batch: Batch, live: Sequence[InferenceRequest], *, first: bool = False) -> None:
        for request in live:
            self._run(batch, [request], first=first)

    def _run_in_chunks(
        self, batch: Batch, signature: ModelSignature, request: InferenceRequest, chunk_rows: int, before: _Before
    ) -> _Done | None:
        """Run one request in pieces; None if it was answered, for example expired, before the last one."""
        runs: list[_Done] = []
        sizes: list[int] = []
        rows_left = request.rows
        run = partial(self._guard.run, [request], batch)
        for chunk in chunks(signature, request.inputs, chunk_rows):
            if runs:
                self._answers.batch_done(runs[-1].report)
                if not self._gather(batch, [request]).requests:
                    return None
            rows = min(chunk_rows, rows_left)
            rows_left -= rows
            sizes.append(rows)
            before = _RAN_BEFORE if runs else before
            runs.append(self._run_once(run, signature, [chunk], [rows], request.outputs, before, is_piece=True))
        timing = BatchTiming(
            started_at=runs[0].timing.started_at,
            stack_s=sum(run.timing.stack_s for run in runs),
            run_s=sum(run.timing.run_s for run in runs),
            rows=sum(sizes),
        )
        outputs = join(signature, [run.parts[0] for run in runs], sizes)
        report = runs[-1].report
        report.earlier = [run.report for run in runs[:-1]]
        return _Done([outputs], report, timing, sum(run.cpu_s for run in runs))

    def _wanted(self, live: Sequence[InferenceRequest]) -> tuple[str, ...]:
        """Return every output that at least one of the requests wants."""
        first = live[0].outputs
        for request in live:
            if request.outputs != first:
                break
        else:
            return first
        wanted = {name for request in live for name in request.outputs}
        return tuple(spec.name for spec in self._session.signature.outputs if spec.name in wanted)

    def _run_once(
        self,
        run: RunAt,
        signature: ModelSignature,
        batch: Sequence[Tensors],
        rows: Sequence[int],
        wanted: tuple[str, ...],
        before: _Before,
        *,
        is_piece: bool = False,
    ) -> _Done:
        started_at = self._clock()
        try:
            # One request needs neither stacking nor splitting.
            inputs = stack(signature, batch) if len(batch) > 1 else batch[0]
            stacked_at, stacked_cpu_s = self._clock(), self._thread_clock()
            arrays = run(inputs, wanted, stacked_at)
            ran_at, ran_cpu_s = self._clock(), self._thread_clock()
            outputs = dict(zip(wanted, arrays, strict=True))
            parts = split(signature, outputs, rows) if len(rows) > 1 else [outputs]
        except Exception as error:
            outcome = RunOutcome.TERMINATED if isinstance(error, RunEndedError) else RunOutcome.FAILED
            self._answers.batch_done(_report(rows, before, outcome, run_s=self._clock() - started_at))
            raise
        stack_s, run_s, split_s = stacked_at - started_at, ran_at - stacked_at, self._clock() - ran_at
        report = _report(rows, before, RunOutcome.COMPLETED, run_s=run_s, stack_s=stack_s, split_s=split_s)
        if (len(rows) > 1 or (is_piece and report.rows > 1)) and self._check.schedule.is_due(
            inputs, report.rows, run_s
        ):
            try:
                self._run_check(run, inputs, outputs, rows if len(rows) > 1 else [1] * report.rows)
            except Exception:
                report.outcome = RunOutcome.DISCARDED
                self._answers.batch_done(report)
                raise
        timing = BatchTiming(started_at=started_at, stack_s=stack_s, run_s=run_s, rows=report.rows)
        return _Done(parts, report, timing, ran_cpu_s - stacked_cpu_s)

    def _run_check(
        self,
        run: RunAt,
        inputs: Tensors,
        outputs: Mapping[str, NDArray[np.generic]],
        members: Sequence[int],
    ) -> None:
        """Run one request of a batch again alone. Raises `_MismatchError` if its answer differs."""
        try:
            mismatch, run_s = self._check.find(run, inputs, outputs, members)
        except RunEndedError:
            raise
        except Exception as error:  # noqa: BLE001  (the batch ran; a failed check must not cost its answers)
            _logger.warning("a batch of model %s could not be checked: %r", self._name, error)
            return
        self._answers.checked(run_s, mismatch=mismatch is not None)
        if mismatch is not None:
            raise _MismatchError(mismatch.without_values)

    def _answer(self, live: Sequence[InferenceRequest], done: _Done, queue_s: Sequence[float]) -> None:
        finished_at = self._clock()
        report, answered = done.report, []
        for request, part, waited_s in zip(live, done.parts, queue_s, strict=True):
            if not request.reply.done():
                answered.append((request, part, waited_s))
                report.waited_s += waited_s
                report.success_s += finished_at - request.enqueued_at
        report.answered = len(answered)
        self._answers.batch_done(report)
        give = partial(self._give, answered, done.timing, finished_at - report.split_s)
        if len(answered) < _WORTH_HANDING_OVER:
            give()
        else:
            self._poll_thread.call_soon(give)

    def _give(
        self, answered: Sequence[tuple[InferenceRequest, _Outputs, float]], timing: BatchTiming, ran_at: float
    ) -> None:
        succeed = self._answers.succeed
        for request, part, waited_s in answered:
            outputs = part if tuple(part) == request.outputs else {name: part[name] for name in request.outputs}
            succeed(request, InferenceResult(outputs, timing, waited_s))
        self._answers.answered(self._clock() - ran_at)


def _report(
    rows: Sequence[int],
    before: _Before,
    outcome: RunOutcome,
    *,
    run_s: float,
    stack_s: float = 0.0,
    split_s: float = 0.0,
) -> BatchReport:
    return BatchReport(
        rows=sum(rows),
        decode_s=before.decode_s,
        queue_s=before.queue_s,
        stack_s=stack_s,
        run_s=run_s,
        split_s=split_s,
        outcome=outcome,
    )
