"""Counts of one model version, for Prometheus and for ModelStatistics."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import chain
from typing import NamedTuple

from inferd.errors import OVERLOAD_REASONS
from inferd.observability.metrics.histogram import DURATION_BOUNDS_S, ROWS_BOUNDS, Histogram

#: Why runs are terminated early.
END_REASONS = ("time_limit", "abandoned")

_NS_PER_S = 1_000_000_000

#: Reports that are kept before they are added up: adding many at a time is faster.
_MAX_PENDING = 32


class RunOutcome(Enum):
    """How a run ended."""

    COMPLETED = auto()
    FAILED = auto()
    #: Terminated early, for one of the `END_REASONS`.
    TERMINATED = auto()
    #: Completed, but its outputs were not used.
    DISCARDED = auto()


#: Outcomes of runs that had their rows stacked and split.
_STACKED = (RunOutcome.COMPLETED, RunOutcome.DISCARDED)


@dataclass(kw_only=True, slots=True)
class BatchReport:
    """One run of the model. Durations in seconds.

    ``decode_s`` and ``queue_s`` have one duration for each request that runs for the first time: none when parts of a
    failed batch run again, or for the later pieces of a request that is larger than a batch. Only a completed run has
    ``stack_s`` and ``split_s``.

    ``answered`` requests are answered with its outputs; ``waited_s`` and ``success_s`` are the sums of their queue
    times and of their times from admission to the answer. ``earlier`` are the other runs of a request in pieces, which
    have been reported already.

    Do not modify once reported. (Not frozen, because creating a frozen dataclass takes twice as long.)
    """

    rows: int
    decode_s: Sequence[float]
    queue_s: Sequence[float]
    stack_s: float
    run_s: float
    split_s: float
    outcome: RunOutcome
    answered: int = 0
    waited_s: float = 0.0
    success_s: float = 0.0
    earlier: Sequence["BatchReport"] = ()


@dataclass(frozen=True, slots=True)
class Durations:
    """A number of durations and their sum."""

    count: int
    ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSizeStatistics:
    """Durations of the completed runs with one number of rows."""

    compute_input: Durations
    compute_infer: Durations
    compute_output: Durations


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCounts:
    """The numbers of one model version at one moment.

    For Prometheus, the counters and histograms. In the terms of the Open Inference Protocol's ModelStatistics, per
    request: ``success`` from admission to the answer; ``fail`` from arrival, including rejections; ``queue`` and the
    compute durations of answered requests, each of which counts the whole duration of its batch. Per completed run:
    ``inference_count`` rows in ``execution_count`` runs, and ``batch_sizes`` by number of rows. ``last_inference_ms``
    is since the epoch, 0 before the first run. ``model_failures`` are requests for which the model
    failed or took too long. ``checks`` counts batches of which one request ran again alone, ``mismatches`` those whose
    answer differed. ``out_of_memory`` are runs without enough memory, ``reopened`` attempts to open the session again
    by whether they worked.
    """

    offered_rows: int
    model_failures: int
    out_of_memory: int
    reopened: Mapping[bool, int]
    rejected: Mapping[str, int]
    caller_runs: int
    batch_failures: int
    ended_runs: Mapping[str, int]
    checks: int
    check_s: float
    mismatches: int
    decode_s: Histogram
    queue_s: Histogram
    stack_s: Histogram
    run_s: Histogram
    encode_s: Histogram
    batch_rows: Histogram
    success: Durations
    fail: Durations
    queue: Durations
    compute_input: Durations
    compute_infer: Durations
    compute_output: Durations
    inference_count: int
    execution_count: int
    last_inference_ms: int
    batch_sizes: Mapping[int, BatchSizeStatistics]


class Activity(NamedTuple):
    """Totals of a version so far: few numbers, cheap enough to read every few seconds.

    Requests that were ``answered``, that ``failed``, and how many of the latter were ``rejected`` for overload;
    ``rows`` in ``runs`` of the model; ``batches`` by the buckets of `ROWS_BOUNDS`.
    """

    answered: int
    failed: int
    rejected: int
    rows: int
    runs: int
    batches: tuple[int, ...]


@dataclass(slots=True)
class _Compute:
    """The three stages of runs added up, in seconds."""

    count: int = 0
    stack_s: float = 0.0
    run_s: float = 0.0
    split_s: float = 0.0

    def add(self, count: int, stack_s: float, run_s: float, split_s: float) -> None:
        """Add stages ``count`` times."""
        self.count += count
        self.stack_s += count * stack_s
        self.run_s += count * run_s
        self.split_s += count * split_s

    def frozen(self) -> BatchSizeStatistics:
        return BatchSizeStatistics(
            compute_input=_durations(self.count, self.stack_s),
            compute_infer=_durations(self.count, self.run_s),
            compute_output=_durations(self.count, self.split_s),
        )


def _durations(count: int, seconds: float) -> Durations:
    return Durations(count, round(seconds * _NS_PER_S))


class _Runs:
    """Histograms of all runs and their stages, and the number of runs that failed."""

    def __init__(self) -> None:
        self.decode_s = Histogram(DURATION_BOUNDS_S)
        self.queue_s = Histogram(DURATION_BOUNDS_S)
        self.stack_s = Histogram(DURATION_BOUNDS_S)
        self.run_s = Histogram(DURATION_BOUNDS_S)
        self.encode_s = Histogram(DURATION_BOUNDS_S)
        self.batch_rows = Histogram(ROWS_BOUNDS)
        self.failures = 0

    def add(self, reports: Sequence[BatchReport], encode_s: Sequence[float]) -> None:
        """Observe the durations and rows of ``reports``, and how long it took to encode answers."""
        self.encode_s.observe_all(encode_s)
        self.batch_rows.observe_all([report.rows for report in reports])
        self.run_s.observe_all([report.run_s for report in reports])
        self.decode_s.observe_all(list(chain.from_iterable([report.decode_s for report in reports])))
        self.queue_s.observe_all(list(chain.from_iterable([report.queue_s for report in reports])))
        self.stack_s.observe_all([report.stack_s for report in reports if report.outcome in _STACKED])
        self.failures += sum(report.outcome is RunOutcome.FAILED for report in reports)


class _Inferences:
    """Totals in the terms of ModelStatistics: of requests, of completed runs, and of these by number of rows."""

    def __init__(self) -> None:
        self.failed_requests = 0
        self.model_failures = 0
        self.fail_s = 0.0
        self.success_s = 0.0
        self.waited_s = 0.0
        self.of_requests = _Compute()
        self.of_sizes: dict[int, _Compute] = {}
        self.rows = 0
        self.runs = 0

    def add(self, report: BatchReport) -> None:
        """Add a completed run and the requests that it answers."""
        self.rows += report.rows
        self.runs += 1
        of_size = self.of_sizes.get(report.rows)
        if of_size is None:
            of_size = self.of_sizes[report.rows] = _Compute()
        of_size.add(1, report.stack_s, report.run_s, report.split_s)
        stack_s, run_s, split_s = report.stack_s, report.run_s, report.split_s
        for piece in report.earlier:
            stack_s += piece.stack_s
            run_s += piece.run_s
            split_s += piece.split_s
        self.of_requests.add(report.answered, stack_s, run_s, split_s)
        self.success_s += report.success_s
        self.waited_s += report.waited_s


@dataclass(slots=True)
class _Checks:
    """Batches of which one request ran again alone, the time of these runs, and how many answers differed."""

    count: int = 0
    run_s: float = 0.0
    mismatches: int = 0

    def add(self, run_s: float, *, mismatch: bool) -> None:
        self.count += 1
        self.run_s += run_s
        self.mismatches += mismatch


@dataclass(slots=True)
class _Incidents:
    """Runs that were out of memory, and attempts to open the session again by whether they worked."""

    out_of_memory: int = 0
    reopened: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})


class ModelStats:
    """Counts what batching reports about one model version.

    A batch only appends its report; reports are added up `_MAX_PENDING` at a time, or when the counts are read.

    Invariant: every number but ``offered_rows`` is changed and read under the one lock, which is held for a few
    additions. Threads: ``offered`` the poll thread, everything else any.
    """

    def __init__(self, *, epoch_s: Callable[[], float] = time.time) -> None:
        self._epoch_s = epoch_s
        self._lock = threading.Lock()
        self._pending: deque[BatchReport] = deque()
        self._pending_encode_s: deque[float] = deque()
        self._offered_rows = 0
        # All reasons from the start, because `rate()` misses the first increase of a new series.
        self._rejected = dict.fromkeys(OVERLOAD_REASONS, 0)
        self._caller_runs = 0
        self._ended_runs = dict.fromkeys(END_REASONS, 0)
        self._runs = _Runs()
        self._inferences = _Inferences()
        self._checks = _Checks()
        self._incidents = _Incidents()
        self._last_run_s = 0.0

    def offered(self, rows: int) -> None:
        """Count rows that were offered, whether they are admitted or rejected."""
        self._offered_rows += rows

    def caller_ran(self) -> None:
        """Count a request that ran outside the queue under the caller_runs policy."""
        with self._lock:
            self._caller_runs += 1

    def batch_done(self, report: BatchReport) -> None:
        """Count a run, before its requests are answered, so that a caller with an answer finds it counted."""
        if report.outcome is RunOutcome.COMPLETED:
            self._last_run_s = self._epoch_s()
        self._pending.append(report)
        if len(self._pending) >= _MAX_PENDING:
            with self._lock:
                self._add_pending()

    def answered(self, encode_s: float) -> None:
        """Count how long it took to encode and send the answers of a batch."""
        self._pending_encode_s.append(encode_s)

    def answered_by_runs(self, waited_s: float, run_s: float, success_s: float) -> None:
        """Count a request answered by many runs, which are reported without it."""
        with self._lock:
            inferences = self._inferences
            inferences.of_requests.add(1, 0.0, run_s, 0.0)
            inferences.success_s += success_s
            inferences.waited_s += waited_s

    def failed(self, duration_s: float, overload_reason: str = "", *, by_model: bool = False) -> None:
        """Count a request that failed ``duration_s`` after its arrival.

        With a reason if it was rejected or shed; ``by_model`` if the model failed on it.
        """
        with self._lock:
            self._inferences.failed_requests += 1
            self._inferences.fail_s += duration_s
            self._inferences.model_failures += by_model
            if overload_reason:
                self._rejected[overload_reason] += 1

    def run_ended(self, reason: str) -> None:
        """Count a run that is terminated early."""
        with self._lock:
            self._ended_runs[reason] += 1

    def out_of_memory(self) -> None:
        """Count a run that was out of memory."""
        with self._lock:
            self._incidents.out_of_memory += 1

    def reopened(self, *, worked: bool) -> None:
        """Count an attempt to open a session again that did not run any more."""
        with self._lock:
            self._incidents.reopened[worked] += 1

    def checked(self, run_s: float, *, mismatch: bool) -> None:
        """Count a request of a batch that ran again alone, and whether its answer differed."""
        with self._lock:
            self._checks.add(run_s, mismatch=mismatch)

    @property
    def busy_s(self) -> float:
        """How long the model has run so far, in seconds."""
        with self._lock:
            self._add_pending()
            return self._runs.run_s.sum

    def activity(self) -> Activity:
        """Return the few numbers of `Activity`, all of the same moment."""
        with self._lock:
            self._add_pending()
            inferences = self._inferences
            return Activity(
                answered=inferences.of_requests.count,
                failed=inferences.failed_requests,
                rejected=sum(self._rejected.values()),
                rows=inferences.rows,
                runs=inferences.runs,
                batches=self._runs.batch_rows.counts(),
            )

    def read(self) -> ModelCounts:
        """Return the present numbers, all of the same moment."""
        with self._lock:
            self._add_pending()
            runs, inferences = self._runs, self._inferences
            compute = inferences.of_requests.frozen()
            return ModelCounts(
                offered_rows=self._offered_rows,
                model_failures=inferences.model_failures,
                out_of_memory=self._incidents.out_of_memory,
                reopened=dict(self._incidents.reopened),
                rejected=dict(self._rejected),
                caller_runs=self._caller_runs,
                batch_failures=runs.failures,
                ended_runs=dict(self._ended_runs),
                checks=self._checks.count,
                check_s=self._checks.run_s,
                mismatches=self._checks.mismatches,
                decode_s=runs.decode_s.copy(),
                queue_s=runs.queue_s.copy(),
                stack_s=runs.stack_s.copy(),
                run_s=runs.run_s.copy(),
                encode_s=runs.encode_s.copy(),
                batch_rows=runs.batch_rows.copy(),
                success=_durations(inferences.of_requests.count, inferences.success_s),
                fail=_durations(inferences.failed_requests, inferences.fail_s),
                queue=_durations(inferences.of_requests.count, inferences.waited_s),
                compute_input=compute.compute_input,
                compute_infer=compute.compute_infer,
                compute_output=compute.compute_output,
                inference_count=inferences.rows,
                execution_count=inferences.runs,
                last_inference_ms=round(self._last_run_s * 1000),
                batch_sizes={rows: of_size.frozen() for rows, of_size in sorted(inferences.of_sizes.items())},
            )

    def _add_pending(self) -> None:
        """Add up the pending reports; with the lock."""
        reports = [self._pending.popleft() for _ in range(len(self._pending))]
        encode_s = [self._pending_encode_s.popleft() for _ in range(len(self._pending_encode_s))]
        self._runs.add(reports, encode_s)
        for report in reports:
            if report.outcome is RunOutcome.COMPLETED:
                self._inferences.add(report)
