"""Keeps the memory of requests within a budget, and ends calls whose message does not arrive in time.

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

from inferd.rpc.call import CallBase
from inferd.rpc.call_ends import MEMORY_BUDGET, message_timeout
from inferd.rpc.live_calls import UNREAD, LiveCalls
from inferd.rpc.poll_loop import PollLoop
from inferd.rpc.worker_pool import WorkerPool

_log = logging.getLogger("inferd.rpc")

_MIB = 1024 * 1024

#: Upper bound for growth by reading: the poll thread copies every byte.
_FASTEST_GROWTH_PER_S = 2048 * _MIB
_MIN_INTERVAL_S = 0.01
_MAX_INTERVAL_S = 0.5

#: How long rejecting calls is the only action.
_PATIENCE_S = 1.0

#: Growth worth returning to the system, and how long it must be unused.
_WORTH_GIVING_BACK = 16 * _MIB
_QUIET_S = 1.0

#: Freed memory is not measurable before it is returned, so this is tried, less often if it frees little.
_MAX_QUIET_S = 8.0

#: Memory freed at a time: returning it takes 0.1 ms for a MiB, during which the poll thread may have to wait.
_MAX_AT_ONCE = 256 * _MIB

#: Between attempts while memory is short and no call was ended.
_GIVE_BACK_INTERVAL_S = 0.25

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
    """How much memory requests have taken: the growth of the process over a baseline."""

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
        """Whether this many eighths of the budget are taken."""
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


class GivingBack:
    """Returns freed memory to the system, which makes it measurable, in a thread of ``pool``.

    It is worth it when memory is unused for some time, which gets longer while little comes back. Invariant: at most
    one runs. On the poll thread only.
    """

    def __init__(self, use: MemoryUse, loop: PollLoop, pool: WorkerPool) -> None:
        self._use = use
        self._loop = loop
        self._pool = pool
        #: Resident memory after the last time, and when that was started.
        self._left = use.resident
        self.started_at = -math.inf
        self.is_running = False
        self._quiet_s = _QUIET_S
        self._busy_at = loop.now()

    @property
    def is_exhausted(self) -> bool:
        """Whether so little came back that no more is expected."""
        return self._quiet_s >= _MAX_QUIET_S

    def note(self, now: float, held_bytes: int) -> None:
        """Note a measurement; ``held_bytes`` are known to be in use."""
        self._left = min(self._left, self._use.resident)
        if 2 * held_bytes >= self._use.taken_bytes:
            self._busy_at = now

    def is_worth_it(self, now: float) -> bool:
        """Whether to start now."""
        use = self._use
        grown = use.resident - self._left
        if grown >= _WORTH_GIVING_BACK:
            self._quiet_s = _QUIET_S
        if grown >= use.budget_bytes // 8 and use.is_above(4):
            return True
        quiet_s = now - max(self._busy_at, self.started_at)
        return quiet_s >= self._quiet_s and use.taken_bytes >= _WORTH_GIVING_BACK

    def start(self, now: float, done: Callable[[], None]) -> None:
        """Return freed memory, and then call ``done`` on the poll thread."""
        self.is_running = True
        self.started_at = now

        def give_back() -> None:
            try:
                self._use.meter.give_back()
            finally:
                self._loop.call_soon(partial(self._end, done))

        self._pool.submit(give_back)

    def _end(self, done: Callable[[], None]) -> None:
        before = self._use.resident
        self._left = self._use.resident = self._use.meter.resident()
        self.is_running = False
        was_worth_it = before - self._left >= _WORTH_GIVING_BACK
        self._quiet_s = _QUIET_S if was_worth_it else min(2 * self._quiet_s, _MAX_QUIET_S)
        done()


class MemoryGuard:
    """Measures the memory of the process and acts on the live calls; on the poll thread only.

    Freed memory is measurable only after it was given back, so meanwhile calls are rejected, and ended only if the
    process grows by another eighth of the budget: on a busy machine the thread that gives back may wait long for a
    core.
    """

    def __init__(self, budget_bytes: int, meter: MemoryMeter, live: LiveCalls, pool: WorkerPool) -> None:
        self.use = MemoryUse(budget_bytes, meter)
        self._giving_back = GivingBack(self.use, live.loop, pool)
        self._live = live
        #: Resident memory at which further calls are ended while memory is given back.
        self._growth_limit = 0
        self._ended_while_giving_back = False
        self._short_since = math.inf
        self._open_at = self._checked_at = live.loop.now()

    @property
    def is_settled(self) -> bool:
        """Whether no check is needed before the next call."""
        giving_back = self._giving_back
        if giving_back.is_running or self._live.is_short_of_memory:
            return False
        # The core may free what an ended call held later than memory was last returned, so try until nothing comes.
        has_tried = giving_back.started_at > self._open_at and giving_back.is_exhausted
        return self.use.taken_bytes < _WORTH_GIVING_BACK or has_tried

    def check(self) -> float:
        """Measure and act; return the number of seconds until the next check."""
        now = self._live.loop.now()
        self.use.measure()
        self._giving_back.note(now, self._live.held_bytes)
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
        if self._giving_back.is_running:
            self._limit_growth(now)
        elif live.is_short_of_memory:
            self._relieve(now)
        elif self._giving_back.is_worth_it(now):
            self._give_back(now)

    def _interval_s(self) -> float:
        """Return a lower bound for the time until calls have to be ended."""
        if self._live.is_short_of_memory or self._giving_back.is_running:
            return _MIN_INTERVAL_S
        left = self.use.budget_bytes * 7 // 8 - self.use.taken_bytes
        return min(max(left / _FASTEST_GROWTH_PER_S, _MIN_INTERVAL_S), _MAX_INTERVAL_S)

    def _relieve(self, now: float) -> None:
        """Stop rejecting calls if there is room again, else free memory."""
        if not self.use.is_above(5):
            self._live.is_short_of_memory = False
            _log.info("memory for requests is available again", extra=self._fields())
            return
        ended = 0
        if self.use.is_above(7) or now - self._short_since >= _PATIENCE_S:
            ended = self._end_some(now)
            if not ended:
                self._rebase_if_not_requests()
        if ended or now - self._giving_back.started_at >= _GIVE_BACK_INTERVAL_S:
            self._give_back(now)

    def _limit_growth(self, now: float) -> None:
        if self._live.is_short_of_memory and self.use.resident >= self._growth_limit:
            self._ended_while_giving_back = self._end_some(now) > 0 or self._ended_while_giving_back
            self._growth_limit = self.use.resident + self.use.budget_bytes // 8

    def _end_some(self, now: float) -> int:
        """End the oldest calls whose memory Python cannot measure, as many as are likely to hold the excess."""
        live, taken = self._live, self.use.taken_bytes
        holders = _holders(live.calls, now, self._checked_at)
        if not holders:
            return 0
        unseen = max(taken - live.held_bytes, 1)
        excess = min(taken - self.use.budget_bytes // 2, _MAX_AT_ONCE)
        count = math.ceil(len(holders) * min(excess / unseen, 1.0))
        _log.warning("ending calls to free memory", extra={"calls": count, **self._fields()})
        for call in holders[:count]:
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

    def _give_back(self, now: float) -> None:
        use = self.use
        self._ended_while_giving_back = False
        self._growth_limit = max(use.resident, use.baseline + use.budget_bytes * 7 // 8) + use.budget_bytes // 8
        self._giving_back.start(now, self._gave_back)

    def _gave_back(self) -> None:
        if not self._live.calls and self._giving_back.is_exhausted:
            self.use.keep_idle_memory()
        if self._ended_while_giving_back:
            self._give_back(self._live.loop.now())

    def _fields(self) -> dict[str, object]:
        use = self.use
        return {"taken_bytes": use.taken_bytes, "budget_bytes": use.budget_bytes, "calls_open": self._live.count}


def _holders(calls: Mapping[CallBase, int], now: float, began_by: float) -> list[CallBase]:
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


#: Message timeout after `Call.expect_small_message`.
SMALL_MESSAGE_S = 5.0

_INTERVAL_S = 0.5


class Upkeep:
    """Ends calls whose first message is not complete in time, and runs the checks of a `MemoryGuard`.

    One timer serves all calls, as a timer per call would cost every request; timeouts are accurate to half a second.
    There is no timer while nothing needs a check.

    On the poll thread only, except `limit_memory` and `stop`, which any thread may call once. Invariant: either a timer
    is set, or ``live.on_call`` sets it.
    """

    def __init__(self, live: LiveCalls, *, message_timeout_s: float | None) -> None:
        self._live = live
        self._message_timeout_s = math.inf if message_timeout_s is None else message_timeout_s
        self._sweep_at = -math.inf
        self._pool = WorkerPool("inferd-rpc-memory", threads=1)
        self.memory: MemoryGuard | None = None
        live.on_call = self._begin

    def limit_memory(self, budget_bytes: int, meter: MemoryMeter) -> None:
        """Keep the memory that calls take within ``budget_bytes``, from the next call on."""
        # Complete before the poll thread can see it.
        self.memory = MemoryGuard(budget_bytes, meter, self._live, self._pool)

    def stop(self, timeout_s: float) -> bool:
        """End the thread that gives memory back. Returns False if it is still working after the timeout."""
        return self._pool.stop(timeout_s)

    def _begin(self) -> None:
        self._live.on_call = None
        self._plan(_INTERVAL_S if self.memory is None else self.memory.check())

    def _plan(self, after_s: float) -> None:
        loop = self._live.loop
        loop.call_at(loop.now() + min(after_s, _INTERVAL_S), self._check)

    def _check(self) -> None:
        now = self._live.loop.now()
        if now >= self._sweep_at:
            self._sweep_at = now + _INTERVAL_S
            self._end_late(now)
        after_s = _INTERVAL_S if self.memory is None else self.memory.check()
        if self._live.calls or not (self.memory is None or self.memory.is_settled):
            self._plan(after_s)
        else:
            self._live.on_call = self._begin

    def _end_late(self, now: float) -> None:
        for call in _unread(self._live.calls, now - min(SMALL_MESSAGE_S, self._message_timeout_s)):
            within_s = math.inf
            if call.check is self._live.small_check:
                within_s = SMALL_MESSAGE_S
            elif call.has_single_message:
                within_s = self._message_timeout_s
            if now - call.started_at >= within_s:
                self._live.reject(call, message_timeout(within_s))


def _unread(calls: Mapping[CallBase, int], started_before: float) -> list[CallBase]:
    """Return those of `LiveCalls.calls` that started early enough and have no complete message."""
    found = []
    for call, size in calls.items():
        if call.started_at > started_before:
            break
        if size == UNREAD and call.ended_at == math.inf:
            found.append(call)
    return found
