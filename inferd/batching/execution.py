"""Runs batches: drop answered requests, stack, run, check, split, answer."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inferd.batching.failed_runs import FailedRun, FailedRuns, MismatchError
from inferd.batching.ports import Clock, PollThread, Session
from inferd.batching.request import Batch, BatchTiming, InferenceRequest, InferenceResult, ReplyDispatcher
from inferd.batching.run_guard import RunEndedError, RunGuard
from inferd.batching.self_check import RunAt, SelfCheck
from inferd.errors import DeadlineExceededError, InferenceFailedError
from inferd.observability.metrics.models import BatchReport, RunOutcome
from inferd.runtime.signature import ModelSignature, Tensors
from inferd.runtime.stacking import chunks, join, split, stack

_logger = logging.getLogger("inferd.batching")

#: From this many answers on, the poll thread sends them: each send releases the interpreter lock, which that thread
#: would take every time. Fewer answers are sent sooner than another thread is woken.
_WORTH_HANDING_OVER = 3

_Outputs = dict[str, NDArray[np.generic]]


class _Waits(NamedTuple):
    """Durations before a run in seconds, one for each of its requests that runs for the first time."""

    decode_s: Sequence[float]
    queue_s: Sequence[float]


_NO_WAITS = _Waits((), ())


class _Group(NamedTuple):
    """Requests that run together; for each, in the same order, its inputs, rows and durations before the run."""

    requests: list[InferenceRequest]
    inputs: list[Tensors]
    rows: list[int]
    decode_s: list[float]
    queue_s: list[float]


@dataclass(frozen=True, slots=True)
class _FinishedRun:
    """Requests that ran successfully: the outputs of each, and the report of the run, which is still to be made."""

    parts: list[_Outputs]
    report: BatchReport
    timing: BatchTiming
    cpu_s: float


class Executor:
    """Answers every request of a batch, whatever happens, and raises nothing.

    Any number of threads may call `execute` at a time. A batch that is given up meanwhile no longer belongs to the
    executor. A request with more than ``chunk_rows`` rows is alone in its batch and runs in pieces; with None every
    request runs in one piece. ``failures`` answers the requests of a run that fails.
    """

    def __init__(
        self,
        *,
        name: str,
        session: Session,
        guard: RunGuard,
        chunk_rows: int | None,
        clock: Clock,
        replies: ReplyDispatcher,
        poll_thread: PollThread,
        check: SelfCheck,
        failures: FailedRuns,
        thread_clock: Clock = time.thread_time,
    ) -> None:
        self._check = check
        self._failures = failures
        self._poll_thread = poll_thread
        self._name = name
        self._session = session
        self._on_accelerator = session.on_accelerator
        self._guard = guard
        #: Changed while the memory is not enough for more rows; by any thread.
        self.chunk_rows = chunk_rows
        self._clock = clock
        self._thread_clock = thread_clock
        self._replies = replies

    def execute(self, batch: Batch) -> None:
        """Run ``batch`` and answer its requests; blocks for as long as the model takes."""
        try:
            self._run(batch, batch.requests, first=not batch.ran_before)
        except BaseException:  # whatever it is, the requests must be answered and the thread must survive
            _logger.exception("running a batch of model %s failed", self._name)
            for request in batch.requests:
                self._replies.fail(request, InferenceFailedError())

    def _run(self, batch: Batch, requests: Sequence[InferenceRequest], *, first: bool) -> None:
        failed = self._attempt(batch, requests, first=first)
        if failed is not None:
            self._failures.answer(batch, failed, self._attempt)

    def _attempt(
        self, batch: Batch, requests: Sequence[InferenceRequest], pieces_of: int = 0, *, first: bool = False
    ) -> FailedRun | None:
        """Run ``requests`` together and answer them, or return why they have no answer yet."""
        group = self._gather(batch, requests)
        live = group.requests
        if not live or batch.given_up:
            return None
        if len(live) > 1 and not self._session.signature.batchable:
            # Dispatched before the queue stopped batching.
            for request in live:
                self._run(batch, [request], first=first)
            return None
        done = self._run_group(batch, group, _Waits(group.decode_s, group.queue_s) if first else _NO_WAITS, pieces_of)
        if isinstance(done, FailedRun):
            return done
        batch.answering = True
        if done is not None:
            batch.run_s = done.timing.run_s
            batch.cpu_s = None if self._on_accelerator else done.cpu_s
            self._answer(live, done, group.queue_s)
        return None

    def _run_group(self, batch: Batch, group: _Group, waits: _Waits, pieces_of: int) -> _FinishedRun | FailedRun | None:
        """Run the model, or return why that failed; None if no request needs an answer any more.

        The failure is returned and not raised: parts of a batch that ran inside an ``except`` block would chain their
        exceptions to the earlier ones.
        """
        signature, live = self._session.signature, group.requests
        chunk_rows = self.chunk_rows if signature.batchable else None
        if pieces_of and chunk_rows is not None:
            chunk_rows = pieces_of
        started_at = self._clock()
        try:
            # Several were dispatched when there was memory for more rows, and run together all the same.
            if chunk_rows is not None and len(live) == 1 and live[0].rows > chunk_rows:
                return self._run_in_chunks(batch, signature, live[0], chunk_rows, waits)
            run = partial(self._guard.run, live, batch)
            names = self._requested_outputs(live) if len(live) > 1 else live[0].outputs
            return self._run_once(run, signature, group.inputs, group.rows, names, waits)
        except RunEndedError:
            batch.cut_off = True
            return None
        except Exception as error:  # noqa: BLE001  whatever a runtime raises; logged with the failing request
            took_s, rows = self._clock() - started_at, sum(group.rows)
            timing = BatchTiming(started_at=started_at, stack_s=0.0, run_s=took_s, rows=rows)
            ran = rows if chunk_rows is None or len(live) > 1 else min(rows, chunk_rows)
            return FailedRun(live, error, timing, group.queue_s, ran)

    def _gather(self, batch: Batch, requests: Sequence[InferenceRequest]) -> _Group:
        """Return the requests that still need a run; answer the expired ones."""
        now = self._clock()
        group = _Group([], [], [], [], [])
        live, inputs, rows, decode_s, queue_s = group
        for request in requests:
            if request.deadline <= now:
                self._replies.fail(request, DeadlineExceededError("the deadline passed before the model ran"))
            elif not request.reply.done():
                live.append(request)
                inputs.append(request.inputs)
                rows.append(request.rows)
                decode_s.append(request.offered_at - request.received_at)
                queue_s.append(batch.started_at - request.enqueued_at)
        return group

    def _run_in_chunks(
        self, batch: Batch, signature: ModelSignature, request: InferenceRequest, chunk_rows: int, waits: _Waits
    ) -> _FinishedRun | None:
        """Run one request in pieces; None if it was answered, for example expired, before the last one."""
        runs: list[_FinishedRun] = []
        sizes: list[int] = []
        rows_left = request.rows
        run = partial(self._guard.run, [request], batch)
        for chunk in chunks(signature, request.inputs, chunk_rows):
            if runs:
                self._replies.batch_done(runs[-1].report)
                if not self._gather(batch, [request]).requests:
                    return None
            rows = min(chunk_rows, rows_left)
            rows_left -= rows
            sizes.append(rows)
            waits = _NO_WAITS if runs else waits
            runs.append(self._run_once(run, signature, [chunk], [rows], request.outputs, waits, is_piece=True))
        timing = BatchTiming(
            started_at=runs[0].timing.started_at,
            stack_s=sum(run.timing.stack_s for run in runs),
            run_s=sum(run.timing.run_s for run in runs),
            rows=sum(sizes),
        )
        outputs = join(signature, [run.parts[0] for run in runs], sizes)
        report = runs[-1].report
        report.earlier = [run.report for run in runs[:-1]]
        return _FinishedRun([outputs], report, timing, sum(run.cpu_s for run in runs))

    def _requested_outputs(self, live: Sequence[InferenceRequest]) -> tuple[str, ...]:
        """Return every output that at least one of the requests asks for."""
        first = live[0].outputs
        for request in live:
            if request.outputs != first:
                break
        else:
            return first
        requested = {name for request in live for name in request.outputs}
        return tuple(spec.name for spec in self._session.signature.outputs if spec.name in requested)

    def _run_once(
        self,
        run: RunAt,
        signature: ModelSignature,
        batch: Sequence[Tensors],
        rows: Sequence[int],
        names: tuple[str, ...],
        waits: _Waits,
        *,
        is_piece: bool = False,
    ) -> _FinishedRun:
        started_at = self._clock()
        try:
            # One request needs neither stacking nor splitting.
            inputs = stack(signature, batch) if len(batch) > 1 else batch[0]
            stacked_at, stacked_cpu_s = self._clock(), self._thread_clock()
            arrays = run(inputs, names, stacked_at)
            ran_at, ran_cpu_s = self._clock(), self._thread_clock()
            outputs = dict(zip(names, arrays, strict=True))
            parts = split(signature, outputs, rows) if len(rows) > 1 else [outputs]
        except Exception as error:
            outcome = RunOutcome.TERMINATED if isinstance(error, RunEndedError) else RunOutcome.FAILED
            self._replies.batch_done(_report(rows, waits, outcome, run_s=self._clock() - started_at))
            raise
        stack_s, run_s, split_s = stacked_at - started_at, ran_at - stacked_at, self._clock() - ran_at
        report = _report(rows, waits, RunOutcome.COMPLETED, run_s=run_s, stack_s=stack_s, split_s=split_s)
        if (len(rows) > 1 or (is_piece and report.rows > 1)) and self._check.schedule.is_due(
            inputs, report.rows, run_s
        ):
            try:
                self._run_check(run, inputs, outputs, rows if len(rows) > 1 else [1] * report.rows)
            except Exception:
                report.outcome = RunOutcome.DISCARDED
                self._replies.batch_done(report)
                raise
        timing = BatchTiming(started_at=started_at, stack_s=stack_s, run_s=run_s, rows=report.rows)
        return _FinishedRun(parts, report, timing, ran_cpu_s - stacked_cpu_s)

    def _run_check(
        self,
        run: RunAt,
        inputs: Tensors,
        outputs: Mapping[str, NDArray[np.generic]],
        members: Sequence[int],
    ) -> None:
        """Run one request of a batch again alone. Raises `MismatchError` if its answer differs."""
        try:
            mismatch, run_s = self._check.compare(run, inputs, outputs, members)
        except RunEndedError:
            raise
        except Exception as error:  # noqa: BLE001  (the batch ran; a failed check must not cost its answers)
            _logger.warning("a batch of model %s could not be checked: %r", self._name, error)
            return
        self._replies.checked(run_s, mismatch=mismatch is not None)
        if mismatch is not None:
            raise MismatchError(mismatch.without_values)

    def _answer(self, live: Sequence[InferenceRequest], done: _FinishedRun, queue_s: Sequence[float]) -> None:
        finished_at = self._clock()
        report, answered = done.report, []
        for request, part, waited_s in zip(live, done.parts, queue_s, strict=True):
            if not request.reply.done():
                answered.append((request, part, waited_s))
                report.waited_s += waited_s
                report.success_s += finished_at - request.enqueued_at
        report.answered = len(answered)
        self._replies.batch_done(report)
        send = partial(self._send, answered, done.timing, finished_at - report.split_s)
        if len(answered) < _WORTH_HANDING_OVER:
            send()
        else:
            self._poll_thread.call_soon(send)

    def _send(
        self, answered: Sequence[tuple[InferenceRequest, _Outputs, float]], timing: BatchTiming, ran_at: float
    ) -> None:
        succeed = self._replies.succeed
        for request, part, waited_s in answered:
            outputs = part if tuple(part) == request.outputs else {name: part[name] for name in request.outputs}
            succeed(request, InferenceResult(outputs, timing, waited_s))
        self._replies.answered(self._clock() - ran_at)


def _report(
    rows: Sequence[int],
    waits: _Waits,
    outcome: RunOutcome,
    *,
    run_s: float,
    stack_s: float = 0.0,
    split_s: float = 0.0,
) -> BatchReport:
    return BatchReport(
        rows=sum(rows),
        decode_s=waits.decode_s,
        queue_s=waits.queue_s,
        stack_s=stack_s,
        run_s=run_s,
        split_s=split_s,
        outcome=outcome,
    )
