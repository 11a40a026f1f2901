"""Counts and durations since a model was loaded, in the terms of the Open Inference Protocol's ModelStatistics."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from inferd.batching.ports import BatchReport

_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Durations:
    """A number of durations and their sum."""

    count: int
    ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSizeStatistics:
    """Durations of the runs with one number of rows."""

    compute_input: Durations
    compute_infer: Durations
    compute_output: Durations


@dataclass(frozen=True, kw_only=True, slots=True)
class StatisticsSnapshot:
    """The statistics of a model at one moment.

    Per request: ``success`` from admission to the answer; ``fail`` from arrival, including rejections; ``queue`` and
    the compute durations of successful requests, each of which counts the whole duration of its batch. Per successful
    run: ``inference_count`` rows in ``execution_count`` runs, and ``batch_sizes`` by number of rows.
    ``last_inference_ms`` is since the epoch, 0 before the first run. ``checks`` counts batches of which one request ran
    again alone, ``mismatches`` those whose answer differed.
    """

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
    checks: int = 0
    mismatches: int = 0


@dataclass(slots=True)
class _Sum:
    """Durations added up."""

    count: int = 0
    seconds: float = 0.0

    def frozen(self) -> Durations:
        return _durations(self.count, self.seconds)


@dataclass(slots=True)
class _Compute:
    """The three stages of runs added up."""

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


class Statistics:
    """Adds up reported runs and failures. Any thread may call; the lock is taken once per batch or failure."""

    def __init__(self, *, epoch_s: Callable[[], float] = time.time) -> None:
        self._epoch_s = epoch_s
        self._lock = threading.Lock()
        self._success = _Sum()
        self._fail = _Sum()
        self._queue = _Sum()
        self._of_requests = _Compute()
        self._of_runs: dict[int, _Compute] = {}
        self._rows = 0
        self._runs = 0
        self._last_run_s = 0.0
        self._checks = 0
        self._mismatches = 0

    def ran(self, runs: Sequence[BatchReport], *, queue_s: Sequence[float], success_s: Sequence[float]) -> None:
        """Add successful ``runs``, that of a batch or those of one large request, and one duration per request."""
        requests = len(success_s)
        stack_s = run_s = split_s = 0.0
        with self._lock:
            for run in runs:
                of_size = self._of_runs.get(run.rows)
                if of_size is None:
                    of_size = self._of_runs[run.rows] = _Compute()
                of_size.add(1, run.stack_s, run.run_s, run.split_s)
                stack_s += run.stack_s
                run_s += run.run_s
                split_s += run.split_s
                self._rows += run.rows
            self._runs += len(runs)
            self._of_requests.add(requests, stack_s, run_s, split_s)
            self._success.count += requests
            self._success.seconds += sum(success_s)
            self._queue.count += requests
            self._queue.seconds += sum(queue_s)
            self._last_run_s = self._epoch_s()

    def failed(self, duration_s: float) -> None:
        """Add a request that failed ``duration_s`` after its arrival."""
        with self._lock:
            self._fail.count += 1
            self._fail.seconds += duration_s

    def checked(self, *, mismatch: bool) -> None:
        """Add a check of a batch."""
        with self._lock:
            self._checks += 1
            self._mismatches += mismatch

    def snapshot(self) -> StatisticsSnapshot:
        """Return the statistics so far."""
        with self._lock:
            compute = self._of_requests.frozen()
            return StatisticsSnapshot(
                success=self._success.frozen(),
                fail=self._fail.frozen(),
                queue=self._queue.frozen(),
                compute_input=compute.compute_input,
                compute_infer=compute.compute_infer,
                compute_output=compute.compute_output,
                inference_count=self._rows,
                execution_count=self._runs,
                last_inference_ms=round(self._last_run_s * 1000),
                batch_sizes={rows: of_runs.frozen() for rows, of_runs in sorted(self._of_runs.items())},
                checks=self._checks,
                mismatches=self._mismatches,
            )
