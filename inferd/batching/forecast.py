"""Predicts when requests finish, and what follows for a queue: its limit, early rejections and retry hints. Pure.

**Queue delay.** The queue is limited by time, not by length: as many rows may wait as the workers took within the
delay limit lately. The limit is three full batches, at least 100 ms and at most ``max_delay_ms``: a queue needs some
batches to keep the workers busy, and everything beyond only makes answers late.

**Deadlines.** A request that would finish after its deadline is rejected on arrival: its caller would not get the
answer in time, and another request can have its place. So is one that would make requests behind it miss theirs.

**Retries.** The hint is a random time between half of what the rows that wait now take and all of it: clients that were
rejected together must not come back together.
"""

import math
import random
from collections.abc import Callable, Iterable

from inferd.batching.cost_model import CostModel
from inferd.batching.request import Batch, InferenceRequest, RunningBatches
from inferd.batching.waiting import WaitingRequests

#: Fading per batch: about the last twenty batches count.
_KEPT = 0.95
_SHORTEST_HINT_S = 0.01
_LONGEST_HINT_S = 30.0
#: The retry delay before any batch has run.
_UNKNOWN_HINT_S = 1.0
#: The delay limit, in full batches and in seconds at least.
_DELAY_BATCHES = 3
_LEAST_DELAY_S = 0.1
#: Full batches per worker that may always wait, whatever the delay limit.
_BATCHES_THAT_MAY_WAIT = 2
#: Requests behind a new one whose deadlines are checked, at most: all of them would take too long in a full queue.
_CHECKED_BEHIND = 32
#: Weight of a batch in the average time between the end of its run and its answers.
_OVERHEAD_WEIGHT = 0.1


class DrainRate:
    """Rows per second that leave the queue while it is not empty.

    Measured from one dispatched batch to the next, and only where the first left rows behind: whatever limits the rate
    counts, be it the model, its workers or the handling of requests, and idle time does not.
    """

    def __init__(self) -> None:
        #: The rate; None until it is known.
        self.rows_per_s: float | None = None
        self._rows = 0.0
        self._seconds = 0.0
        self._last_rows = 0
        #: When the last batch was dispatched, measured or not; 0 before the first one.
        self.last_at = 0.0
        #: Whether the last batch left rows behind, so that the time to the next one counts.
        self.is_measuring = False

    def taken(self, rows: int, now: float, *, left: int) -> None:
        """Record that a batch of ``rows`` was dispatched at ``now`` and ``left`` rows still wait."""
        if self.is_measuring:
            self._rows = self._rows * _KEPT + self._last_rows
            self._seconds = self._seconds * _KEPT + (now - self.last_at)
            self.rows_per_s = self._rows / self._seconds if self._seconds > 0 else None
        self._last_rows, self.last_at = rows, now
        self.is_measuring = left > 0

    def scale(self, factor: float) -> None:
        """Expect ``factor`` times as many rows from now on."""
        self.is_measuring = False
        self._rows *= factor
        if self.rows_per_s is not None:
            self.rows_per_s *= factor

    def interrupted(self) -> None:
        """Ignore the time since the last batch, whose run was terminated or hangs."""
        self.is_measuring = False


class Forecast:
    """Predicts when the requests of a queue finish.

    ``cost`` is that of the runs at present, ``max_rows`` are those of a full batch, ``max_delay_s`` is 0 for no delay
    limit, and ``jitter`` returns numbers from 0 to 1. Not thread-safe: guarded by the lock of the `RequestQueue`.
    """

    def __init__(
        self,
        cost: CostModel,
        *,
        max_rows: int,
        workers: int,
        max_delay_s: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.cost = cost
        self.drain = DrainRate()
        self._max_rows = max_rows
        self._max_delay_s = max_delay_s
        self._jitter = jitter
        # Average time from the end of a run to the end of its batch.
        self._overhead_s = 0.0
        self._workers = workers
        #: There is always room for the next batch of each worker and the one gathered meanwhile, however slow they are.
        self.least_rows = _BATCHES_THAT_MAY_WAIT * max_rows * workers
        #: A request of at most a full batch with more than this to its deadline is in time, wherever it waits.
        self.ample_s = math.inf
        #: A request dispatched with more than this to its deadline is in time, in a batch of any size.
        self.near_s = 0.0

    def limit_rows(self, max_rows: int) -> None:
        """Take ``max_rows`` for those of a full batch from now on."""
        self.least_rows = self.least_rows // self._max_rows * max_rows
        self._max_rows = max_rows

    def set_workers(self, workers: int, *, soon: int, factor: float = 1.0) -> None:
        """Expect this many batches at a time, which take ``factor`` times as many rows as before.

        ``soon`` are how many there may be soon; the rows that these take may wait.
        """
        self._workers = workers
        self.least_rows = _BATCHES_THAT_MAY_WAIT * self._max_rows * soon
        self.drain.scale(factor)

    def run_on(self, cost: CostModel, workers: int) -> None:
        """Expect runs of ``cost``, ``workers`` at a time, from now on."""
        self.cost, self._workers = cost, workers

    def dispatched(
        self, batch: Batch, now: float, waiting: WaitingRequests[InferenceRequest], running: RunningBatches
    ) -> None:
        """Record that ``batch`` was taken from those that wait, and set how many rows may wait from now on."""
        left = waiting.rows
        if left and self._workers > 1 and not self.cost.short.are_short and running.computing < self._workers:
            # Another worker takes the rest immediately, which says nothing about how fast the queue drains. Short runs
            # are done one at a time, by the poll thread.
            left = 0
        if left or self.drain.is_measuring:
            self.drain.taken(batch.rows, now, left=left)
        else:
            self.drain.last_at = now
        waiting.row_limit = self.row_limit(waiting.max_rows, batch.rows)

    def ran(self, batch: Batch, run_s: float, now: float) -> None:
        """Record that ``batch``, whose run took ``run_s``, has been answered at ``now``.

        The cost model has learned from it already. If batches take longer than was assumed when the last one was
        dispatched, no time is ample until the next one is.
        """
        other_s = max(now - batch.started_at - run_s, 0.0)
        self._overhead_s += (other_s - self._overhead_s) * _OVERHEAD_WEIGHT
        if self.longest_s > self.near_s:
            self.near_s, self.ample_s = self.longest_s, math.inf

    def row_limit(self, most: int, running_rows: int) -> int:
        """Return how many rows, ``most`` at most, are likely to be dispatched within the delay limit.

        ``running_rows`` is the size of the batch that was dispatched last.
        """
        full_s = self.cost.predict(self._max_rows)
        self.near_s = self.longest_s
        rate = self._rate(full_s)
        if rate is None or self._max_delay_s == 0:
            return most
        delay_s = min(max(_LEAST_DELAY_S, _DELAY_BATCHES * full_s / self._workers), self._max_delay_s)
        limit = min(most, max(self.least_rows, int(rate * delay_s)))
        # A request of more rows than a batch occupies its worker for longer.
        running_s = full_s if running_rows <= self._max_rows else self._run_s(running_rows, self.cost.predict)
        self.ample_s = limit / rate + running_s + 2 * self.near_s
        return limit

    def _rate(self, full_s: float) -> float | None:
        """Return the drain rate, or what the time of a full batch suggests until that is known."""
        rate = self.drain.rows_per_s
        if rate is None and full_s > 0:
            rate = self._workers * self._max_rows / full_s
        return rate

    @property
    def longest_s(self) -> float:
        """Seconds from dispatch to answers that 19 of 20 full batches do not exceed."""
        return self.cost.upper(self._max_rows) + self._overhead_s

    def batch_s(self, rows: int) -> float:
        """Return the seconds from dispatch to answers that 19 of 20 batches of ``rows`` do not exceed."""
        return self._run_s(rows, self.cost.upper) + self._overhead_s

    def cannot_finish(self, request: InferenceRequest, waiting_rows: int, now: float) -> bool:
        """Return whether ``request`` would miss its deadline although it is dispatched now.

        While full batches wait, it has to be in time in half a full batch: a smaller one would save this request and
        make all others later.
        """
        rows = request.rows
        if waiting_rows >= self._max_rows and self.cost.is_current(self._max_rows, now):
            rows = max(rows, self._max_rows // 2)
        elif not self._is_sure(rows, now):
            return False
        return now + self._run_s(rows, self.cost.predict) + self._overhead_s > request.deadline

    def comes_too_late(
        self,
        request: InferenceRequest,
        waiting: WaitingRequests[InferenceRequest],
        running: Iterable[Batch],
        now: float,
    ) -> bool:
        """Return whether ``request`` would miss its deadline in the queue, or make one behind it miss its own."""
        if request.deadline == math.inf:
            return False
        ahead = waiting.rows_ahead(request)
        own_rows = max(request.rows, min(self._max_rows, ahead + request.rows))
        if not (ahead and self.cost.is_current(self._max_rows, now)) and not self._is_sure(own_rows, now):
            return False
        free_at = self._free_at(running, now)
        if self._end(free_at, ahead, own_rows) > request.deadline:
            return True
        return any(
            self._end(free_at, rows + request.rows, own_rows) > other.deadline
            for rows, other in waiting.behind(request, _CHECKED_BEHIND)
        )

    def _end(self, free_at: float, ahead: int, rows: int) -> float:
        """Return when a request ends at the latest that runs in a batch of ``rows``, after ``ahead`` rows that wait.

        Batches do not end at multiples of a full one, so the rows ahead may take up to one batch more.
        """
        batches, rest = divmod(ahead, self._max_rows)
        rate = self._rate(self.cost.predict(self._max_rows))
        ahead_s = batches * self._max_rows / rate if rate else 0.0
        margin = 1.0 if batches else rest / self._max_rows
        return free_at + ahead_s + margin * self.longest_s + self.batch_s(rows)

    def _free_at(self, running: Iterable[Batch], now: float) -> float:
        """Return when the next worker takes a batch."""
        ends = [
            batch.started_at + self._run_s(batch.rows, self.cost.predict)
            for batch in running
            if not (batch.answering or batch.outside_queue)
        ]
        return now if len(ends) < self._workers else max(now, min(ends))

    def _run_s(self, rows: int, duration: Callable[[int], float]) -> float:
        """Return how long ``rows`` take, which run in pieces if they are more than a full batch."""
        if rows <= self._max_rows:
            return duration(rows)
        full, rest = divmod(rows, self._max_rows)
        return full * duration(self._max_rows) + (duration(rest) if rest else 0.0)

    def _is_sure(self, rows: int, now: float) -> bool:
        return self.cost.is_sure(min(rows, self._max_rows), now)

    def retry_after_s(self, waiting_rows: int) -> float:
        """Return after which time a retry is likely to be admitted."""
        rate = self.drain.rows_per_s
        if not rate:
            return _UNKNOWN_HINT_S
        seconds = waiting_rows / rate
        if self._max_delay_s > 0:
            # A slow model has more waiting than the delay limit allows; room comes with each batch.
            seconds = min(seconds, max(self._max_delay_s, self._max_rows / rate))
        return min(max(seconds * (1.0 - self._jitter() / 2), _SHORTEST_HINT_S), _LONGEST_HINT_S)
