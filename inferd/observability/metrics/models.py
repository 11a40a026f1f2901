"""What happened to the requests of one model version."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from inferd.errors import OVERLOAD_REASONS
from inferd.observability.metrics.histogram import DURATION_BOUNDS_S, ROWS_BOUNDS, Histogram

#: Why runs are ended early.
END_REASONS = ("time_limit", "abandoned")


class BatchReport(Protocol):
    """What is counted of a finished run; durations in seconds, those of decoding and of the queue one per request."""

    @property
    def rows(self) -> int:
        """Rows that ran together."""
        ...

    @property
    def decode_s(self) -> Sequence[float]:
        """How long it took to read each request."""
        ...

    @property
    def queue_s(self) -> Sequence[float]:
        """How long each request waited."""
        ...

    @property
    def stack_s(self) -> float:
        """How long it took to put the rows together."""
        ...

    @property
    def run_s(self) -> float:
        """How long the model ran."""
        ...

    @property
    def failed(self) -> bool:
        """Whether the run gave no result."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCounts:
    """The numbers of one model version at one moment."""

    offered_rows: int
    rejected: dict[str, int]
    caller_runs: int
    batch_failures: int
    ended_runs: dict[str, int]
    batch_checks: int
    batch_check_s: float
    batch_mismatches: int
    decode_s: Histogram
    queue_s: Histogram
    stack_s: Histogram
    run_s: Histogram
    encode_s: Histogram
    batch_rows: Histogram


class ModelMetrics:
    """Counts what batching tells of one model version.

    Invariant: every number is changed and read under the one lock, which is only ever held for a few additions.
    Threads: the poll thread offers and is refused, the batch workers report, the scrape reads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offered_rows = 0
        # All of them from the start: Prometheus does not see the increase of a series that begins with it.
        self._rejected = dict.fromkeys(OVERLOAD_REASONS, 0)
        self._caller_runs = 0
        self._batch_failures = 0
        self._ended_runs = dict.fromkeys(END_REASONS, 0)
        self._batch_checks = 0
        self._batch_check_s = 0.0
        self._batch_mismatches = 0
        self._decode_s = Histogram(DURATION_BOUNDS_S)
        self._queue_s = Histogram(DURATION_BOUNDS_S)
        self._stack_s = Histogram(DURATION_BOUNDS_S)
        self._run_s = Histogram(DURATION_BOUNDS_S)
        self._encode_s = Histogram(DURATION_BOUNDS_S)
        self._batch_rows = Histogram(ROWS_BOUNDS)

    def offered(self, rows: int) -> None:
        """Count rows that asked to be admitted, whatever came of it. Only the poll thread calls: without the lock."""
        self._offered_rows += rows

    def refused(self, reason: str, rows: int) -> None:  # noqa: ARG002 (the observer's contract; requests are counted)
        """Count a request that was refused or shed."""
        with self._lock:
            self._rejected[reason] += 1

    def caller_ran(self) -> None:
        """Count a request that ran outside the queue."""
        with self._lock:
            self._caller_runs += 1

    def batch_done(self, report: BatchReport) -> None:
        """Count a run, successful or not."""
        with self._lock:
            self._batch_rows.observe(report.rows)
            self._run_s.observe(report.run_s)
            self._decode_s.observe_all(report.decode_s)
            self._queue_s.observe_all(report.queue_s)
            if report.failed:
                self._batch_failures += 1
            else:
                self._stack_s.observe(report.stack_s)

    def run_ended(self, reason: str) -> None:
        """Count a run that was ended early."""
        with self._lock:
            self._ended_runs[reason] += 1

    def checked(self, run_s: float, *, mismatch: bool) -> None:
        """Count a member of a batch that ran again alone, and whether it got another answer."""
        with self._lock:
            self._batch_checks += 1
            self._batch_check_s += run_s
            self._batch_mismatches += mismatch

    def answered(self, encode_s: float) -> None:
        """Count the answers of a batch."""
        with self._lock:
            self._encode_s.observe(encode_s)

    @property
    def busy_s(self) -> float:
        """For how long the model has been running so far; without the lock, as it is one number."""
        return self._run_s.sum

    def read(self) -> ModelCounts:
        """Return the numbers as they are now, all of the same moment."""
        with self._lock:
            return ModelCounts(
                offered_rows=self._offered_rows,
                rejected=dict(self._rejected),
                caller_runs=self._caller_runs,
                batch_failures=self._batch_failures,
                ended_runs=dict(self._ended_runs),
                batch_checks=self._batch_checks,
                batch_check_s=self._batch_check_s,
                batch_mismatches=self._batch_mismatches,
                decode_s=self._decode_s.copy(),
                queue_s=self._queue_s.copy(),
                stack_s=self._stack_s.copy(),
                run_s=self._run_s.copy(),
                encode_s=self._encode_s.copy(),
                batch_rows=self._batch_rows.copy(),
            )
