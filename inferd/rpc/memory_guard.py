"""Keeps the memory of requests within a budget.

gRPC's core accepts no quota from Python and does not expose the size of incomplete messages. So the resident memory of
the process is measured, without that of the models: its growth over a baseline, taken at the start, counts as memory of
requests.

| taken, of the budget | action |
|---|---|
| half | return freed memory to the system from time to time, so that what is measured is in use |
| three quarters | reject new calls before their message is read, until less than five eighths are taken |
| seven eighths, or rejecting has not helped for a second | end calls with incomplete messages |

The process may also grow for other reasons, such as a model's run. So the memory held while no call is open becomes the
baseline, up to half of the budget above the first one; and all of it does if memory is short although calls cannot be
the reason.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from inferd.rpc.call_ends import MEMORY_BUDGET
from inferd.rpc.live_calls import UNREAD, LiveCall, LiveCalls
from inferd.rpc.poll_loop import PollLoop
from inferd.rpc.worker_pool import WorkerPool

_log = logging.getLogger("inferd.rpc")

_MIB = 1024 * 1024

#: Upper bound for growth by reading: the poll thread copies every byte.
_FASTEST_GROWTH_PER_S = 2048 * _MIB
_MIN_INTERVAL_S = 0.01
_MAX_INTERVAL_S = 0.5

#: How long calls are only rejected before some are ended.
_PATIENCE_S = 1.0

#: Growth in bytes that is worth returning to the system, and how long it must be unused.
_WORTH_TRIMMING = 16 * _MIB
_QUIET_S = 1.0

#: Freed memory is not measurable before it is returned, so this is tried, less often if it frees little.
_MAX_QUIET_S = 8.0

#: Memory freed at a time: returning it takes 0.1 ms for a MiB, during which the poll thread may have to wait.
_MAX_AT_ONCE = 256 * _MIB

#: Between attempts while memory is short and no call was ended.
_TRIM_INTERVAL_S = 0.25

#: A call whose answer is not sent after this time counts as one that holds memory.
_SENDING_S = 5.0


@dataclass(frozen=True, slots=True)
class MemoryMeter:
    """Reads the resident memory, without that of the models.

    ``give_back`` returns freed memory to the system, may be slow and runs in a thread. While models come or go, it is
    not ``is_steady``: part of their memory is then missing from what is read, or counts twice.
    """

    resident: Callable[[], int]
    give_back: Callable[[], None]
    is_steady: Callable[[], bool] = lambda: True


class MemoryUse:
    """The memory that requests take in bytes: the growth of the process over a baseline."""

    def __init__(self, budget_bytes: int, meter: MemoryMeter) -> None:
        self.budget_bytes = budget_bytes
        self.meter = meter
        self.resident = self.baseline = meter.resident()
        #: Maximum of a baseline that follows memory not returned after requests have ended.
        self._idle_baseline_limit = self.baseline + budget_bytes // 2

    @property
    def taken_bytes(self) -> int:
        """Memory taken by requests when it was last measured."""
        return self.resident - self.baseline

    def is_above(self, eighths: int) -> bool:
        """Return whether this many eighths of the budget are taken."""
        return self.resident - self.baseline >= self.budget_bytes * eighths // 8

    def measure(self) -> None:
        """Measure; the baseline follows a process that shrinks."""
        was_steady = self.meter.is_steady()
        self.resident = self.meter.resident()
        if was_steady and self.resident < self.baseline and self.meter.is_steady():
            self.baseline = self.resident

    def keep_idle_memory(self) -> None:
        """Move the baseline up to memory that is held while there are no calls."""
        self.baseline = max(self.baseline, min(self.resident, self._idle_baseline_limit))


class MemoryTrimmer:
    """Returns freed memory to the system in a thread of ``pool``, which makes the memory in use measurable.

    Due when memory has been unused for some time, which gets longer while little is freed. Invariant: at most one trim
    runs. On the poll thread only.
    """

    def __init__(self, use: MemoryUse, loop: PollLoop, pool: WorkerPool) -> None:
        self._use = use
        self._loop = loop
        self._pool = pool
        #: Resident memory in bytes after the last trim, and when that was started.
        self._left = use.resident
        self.started_at = -math.inf
        self.is_running = False
        self._quiet_s = _QUIET_S
        self._busy_at = loop.now()

    @property
    def frees_nothing(self) -> bool:
        """True if the last trims freed so little that no more is expected."""
        return self._quiet_s >= _MAX_QUIET_S

    def measured(self, now: float, held_bytes: int) -> None:
        """Record that memory was measured; ``held_bytes`` are known to be in use."""
        self._left = min(self._left, self._use.resident)
        if 2 * held_bytes >= self._use.taken_bytes:
            self._busy_at = now

    def is_due(self, now: float) -> bool:
        """Return whether to trim at ``now``."""
        use = self._use
        grown = use.resident - self._left
        if grown >= _WORTH_TRIMMING:
            self._quiet_s = _QUIET_S
        if grown >= use.budget_bytes // 8 and use.is_above(4):
            return True
        quiet_s = now - max(self._busy_at, self.started_at)
        return quiet_s >= self._quiet_s and use.taken_bytes >= _WORTH_TRIMMING

    def start(self, now: float, done: Callable[[], None]) -> None:
        """Return freed memory, and then call ``done`` on the poll thread."""
        self.is_running = True
        self.started_at = now

        def trim() -> None:
            try:
                self._use.meter.give_back()
            finally:
                self._loop.call_soon(partial(self._end, done))

        self._pool.submit(trim)

    def _end(self, done: Callable[[], None]) -> None:
        before = self._use.resident
        self._left = self._use.resident = self._use.meter.resident()
        self.is_running = False
        freed_enough = before - self._left >= _WORTH_TRIMMING
        self._quiet_s = _QUIET_S if freed_enough else min(2 * self._quiet_s, _MAX_QUIET_S)
        done()


class MemoryGuard:
    """Measures the memory of the process and acts on the live calls; on the poll thread only.

    Freed memory is measurable only after a trim, so meanwhile calls are rejected, and ended only if the process grows
    by another eighth of the budget: on a busy machine the thread that trims may wait long for a core.
    """

    def __init__(self, budget_bytes: int, meter: MemoryMeter, live: LiveCalls, pool: WorkerPool) -> None:
        self.use = MemoryUse(budget_bytes, meter)
        self._trimmer = MemoryTrimmer(self.use, live.loop, pool)
        self._live = live
        #: Resident memory in bytes at which further calls are ended during a trim.
        self._growth_limit = 0
        self._ended_while_trimming = False
        self._short_since = math.inf
        self._open_at = self._checked_at = live.loop.now()

    @property
    def is_settled(self) -> bool:
        """True if no check is needed before the next call."""
        trimmer = self._trimmer
        if trimmer.is_running or self._live.is_short_of_memory:
            return False
        # The core may free what an ended call held later than memory was last returned, so try until nothing comes.
        has_tried = trimmer.started_at > self._open_at and trimmer.frees_nothing
        return self.use.taken_bytes < _WORTH_TRIMMING or has_tried

    def check(self) -> float:
        """Measure and act; return the number of seconds until the next check."""
        now = self._live.loop.now()
        self.use.measure()
        self._trimmer.measured(now, self._live.held_bytes)
        if self._live.calls:
            self._open_at = now
        self._act(now)
        self._checked_at = now
        return self._interval_s()

    def _act(self, now: float) -> None:
        live = self._live
        if self.use.is_above(6) and not live.is_short_of_memory:
            live.is_short_of_memory = True
            self._short_since = now
            _log.warning("memory for requests is short, calls are rejected", extra=self._fields())
        if self._trimmer.is_running:
            self._limit_growth(now)
        elif live.is_short_of_memory:
            self._handle_shortage(now)
        elif self._trimmer.is_due(now):
            self._trim(now)

    def _interval_s(self) -> float:
        """Return a lower bound for the time until calls have to be ended."""
        if self._live.is_short_of_memory or self._trimmer.is_running:
            return _MIN_INTERVAL_S
        left = self.use.budget_bytes * 7 // 8 - self.use.taken_bytes
        return min(max(left / _FASTEST_GROWTH_PER_S, _MIN_INTERVAL_S), _MAX_INTERVAL_S)

    def _handle_shortage(self, now: float) -> None:
        """Admit calls again if there is room, else end some or trim."""
        if not self.use.is_above(5):
            self._live.is_short_of_memory = False
            _log.info("memory for requests is available again", extra=self._fields())
            return
        ended = 0
        if self.use.is_above(7) or now - self._short_since >= _PATIENCE_S:
            ended = self._end_some(now)
            if not ended:
                self._rebase_if_not_requests()
        if ended or now - self._trimmer.started_at >= _TRIM_INTERVAL_S:
            self._trim(now)

    def _limit_growth(self, now: float) -> None:
        if self._live.is_short_of_memory and self.use.resident >= self._growth_limit:
            self._ended_while_trimming = self._end_some(now) > 0 or self._ended_while_trimming
            self._growth_limit = self.use.resident + self.use.budget_bytes // 8

    def _end_some(self, now: float) -> int:
        """End the oldest calls whose memory Python cannot measure, as many as are likely to hold the excess."""
        live, taken = self._live, self.use.taken_bytes
        found = _calls_to_end(live.calls, now, self._checked_at)
        if not found:
            return 0
        unseen = max(taken - live.held_bytes, 1)
        excess = min(taken - self.use.budget_bytes // 2, _MAX_AT_ONCE)
        count = math.ceil(len(found) * min(excess / unseen, 1.0))
        _log.warning("ending calls to free memory", extra={"calls": count, **self._fields()})
        for call in found[:count]:
            if call.ended_at == math.inf:
                live.reject(call, MEMORY_BUDGET)
            else:
                call.cancel()
        return count

    def _rebase_if_not_requests(self) -> None:
        """Move the baseline to the present memory if calls can hold hardly any of it."""
        live, use = self._live, self.use
        may_hold = any(call.ended_at < math.inf or call.started_at > self._checked_at for call in live.calls)
        if not may_hold and live.held_bytes < use.budget_bytes // 8:
            use.baseline = use.resident - live.held_bytes
            _log.warning("the process has grown for reasons other than requests", extra=self._fields())

    def _trim(self, now: float) -> None:
        use = self.use
        self._ended_while_trimming = False
        self._growth_limit = max(use.resident, use.baseline + use.budget_bytes * 7 // 8) + use.budget_bytes // 8
        self._trimmer.start(now, self._trimmed)

    def _trimmed(self) -> None:
        if not self._live.calls and self._trimmer.frees_nothing:
            self.use.keep_idle_memory()
        if self._ended_while_trimming:
            self._trim(self._live.loop.now())

    def _fields(self) -> dict[str, object]:
        use = self.use
        return {"taken_bytes": use.taken_bytes, "budget_bytes": use.budget_bytes, "calls_open": self._live.count}


def _calls_to_end(calls: Mapping[LiveCall, int], now: float, began_by: float) -> list[LiveCall]:
    """Return those of `LiveCalls.calls` to end first, the oldest first.

    Calls whose only message is incomplete; else those whose answer is not sent; else streams, which may have begun a
    message, starting with those that have not sent any. Only calls that ``began_by`` the last check: the message of a
    later one may have arrived, but there was no time to read it.
    """
    uploading, sending, streams = [], [], []
    for call, size in calls.items():
        if call.started_at > began_by:
            break
        if call.ended_at < now - _SENDING_S:
            sending.append(call)
        elif call.ended_at < math.inf:
            continue
        elif not call.has_single_message:
            streams.append(call)
        elif size == UNREAD:
            uploading.append(call)
    return uploading or sending or sorted(streams, key=lambda call: calls[call] != UNREAD)
