"""Keeps what requests take of the process' memory within a budget.

gRPC's core takes no quota from Python, and does not tell how much of an unfinished message it keeps. What shows is how
much the whole process holds, so that is watched: what it holds beyond its baseline, which is what it held when its
models had been loaded, counts as taken by requests.

| taken, of the budget | what is done |
|---|---|
| half | freed memory is given back to the system now and then, so that what is left is in use |
| three quarters | new calls are refused before their message is read, until less than five eighths are taken |
| seven eighths, or refusing calls has not helped for a second | calls that hold unfinished messages are ended |

The process may also grow for other reasons, a model's run for one. So what it holds while no call is open becomes its
baseline, up to half of the budget more than at first; and all of it does if memory is short although no call is left to
blame.
"""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from inferd.rpc.call import UNREAD, CallBase, LiveCalls
from inferd.rpc.refusals import MEMORY_BUDGET
from inferd.rpc.worker_pool import WorkerPool

_log = logging.getLogger("inferd.rpc")

_MIB = 1024 * 1024

#: Nothing the poll thread reads makes the process grow faster: it copies every byte.
_FASTEST_GROWTH_PER_S = 2048 * _MIB
_SHORTEST_INTERVAL_S = 0.01
_LONGEST_INTERVAL_S = 0.5

#: How long refusing calls may do as the only measure.
_PATIENCE_S = 1.0

#: Growth that is worth giving back when it is not used any more, and how long it must not have been.
_WORTH_GIVING_BACK = 16 * _MIB
_QUIET_S = 1.0

#: What was freed does not show. So it is tried now and then, less often if little came of it.
_LONGEST_QUIET_S = 8.0

#: How much is freed at a time: while it is given back, which takes 0.1 ms for a MiB, the poll thread may have to wait.
_MOST_AT_ONCE = 256 * _MIB

#: While memory is short, and no call was ended.
_GIVE_BACK_INTERVAL_S = 0.25

#: How long an answer may take to be sent before its call counts as one that holds memory.
_SENDING_S = 5.0


@dataclass(frozen=True, slots=True)
class MemoryMeter:
    """Where the memory of the process is read and given back; ``give_back`` may take long, and runs in a thread."""

    resident: Callable[[], int]
    give_back: Callable[[], None]


class MemoryGuard:
    """Looks at the memory of the process, and acts on the live calls; on the poll thread only.

    Invariant: at most one ``give_back`` is under way. What was freed shows only after it, so meanwhile calls are
    refused, and they are ended only if the process grows by another eighth of the budget: on a busy machine the thread
    that gives back may wait long for a core.
    """

    def __init__(self, budget_bytes: int, meter: MemoryMeter, live: LiveCalls, pool: WorkerPool) -> None:
        self.budget_bytes = budget_bytes
        self._meter = meter
        self._live = live
        self._pool = pool
        self._resident = self._baseline = meter.resident()
        #: The most that the baseline follows what does not come back from requests that have ended.
        self._idle_baseline_limit = self._baseline + budget_bytes // 2
        #: What the process held after memory was last given back, and when that was.
        self._given_back_to = self._baseline
        self._gave_back_at = -math.inf
        self._is_giving_back = False
        #: What the process may hold before further calls are ended, while memory is given back.
        self._growth_limit = 0
        self._ended_while_giving_back = False
        self._short_since = math.inf
        self._quiet_s = _QUIET_S
        self._busy_at = self._open_at = live.loop.now()

    @property
    def taken_bytes(self) -> int:
        """How much requests took when that was last looked at; any thread."""
        return self._resident - self._baseline

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to look after before the next call comes."""
        if self._is_giving_back or self._live.is_short_of_memory:
            return False
        return self.taken_bytes < _WORTH_GIVING_BACK or self._gave_back_at > self._open_at

    def check(self) -> float:
        """Look, do what is to be done, and return in how many seconds to look again."""
        now = self._live.loop.now()
        self._resident = resident = self._meter.resident()
        self._baseline = min(self._baseline, resident)
        self._given_back_to = min(self._given_back_to, resident)
        if self._live.calls:
            self._open_at = now
        if 2 * self._live.held_bytes >= self.taken_bytes:
            self._busy_at = now
        if self.taken_bytes >= self.budget_bytes * 3 // 4:
            self._run_short(now)
        if self._is_giving_back:
            self._limit_growth(now)
            return _SHORTEST_INTERVAL_S
        if self._live.is_short_of_memory:
            self._relieve(now)
        elif self._is_worth_giving_back(now):
            self._give_back(now)
        return self._interval_s()

    def _interval_s(self) -> float:
        """Return how long it takes at least until calls have to be ended."""
        if self._live.is_short_of_memory or self._is_giving_back:
            return _SHORTEST_INTERVAL_S
        left = self.budget_bytes * 7 // 8 - self.taken_bytes
        return min(max(left / _FASTEST_GROWTH_PER_S, _SHORTEST_INTERVAL_S), _LONGEST_INTERVAL_S)

    def _run_short(self, now: float) -> None:
        if not self._live.is_short_of_memory:
            self._live.is_short_of_memory = True
            self._short_since = now
            _log.warning("memory for requests is short, calls are refused", extra=self._fields())

    def _relieve(self, now: float) -> None:
        """Refuse calls no longer if there is room again, else see to it that there will be."""
        if self.taken_bytes < self.budget_bytes * 5 // 8:
            self._live.is_short_of_memory = False
            _log.info("memory for requests is there again", extra=self._fields())
            return
        ended = 0
        if self.taken_bytes >= self.budget_bytes * 7 // 8 or now - self._short_since >= _PATIENCE_S:
            ended = self._end_some(now)
            if not ended:
                self._find_others_to_blame()
        if ended or now - self._gave_back_at >= _GIVE_BACK_INTERVAL_S:
            self._give_back(now)

    def _limit_growth(self, now: float) -> None:
        if self._live.is_short_of_memory and self._resident >= self._growth_limit:
            self._ended_while_giving_back = self._end_some(now) > 0 or self._ended_while_giving_back
            self._growth_limit = self._resident + self.budget_bytes // 8

    def _end_some(self, now: float) -> int:
        """End as many of the oldest calls that hold what Python does not see as are likely to hold enough of it."""
        live = self._live
        holders = _holders(live.calls, now)
        if not holders:
            return 0
        unseen = max(self.taken_bytes - live.held_bytes, 1)
        excess = min(self.taken_bytes - self.budget_bytes // 2, _MOST_AT_ONCE)
        count = math.ceil(len(holders) * min(excess / unseen, 1.0))
        _log.warning("calls are ended to free memory", extra={"calls": count, **self._fields()})
        for call in holders[:count]:
            if call.ended_at == math.inf:
                live.refuse(call, MEMORY_BUDGET)
            else:
                call.cancel()
        return count

    def _find_others_to_blame(self) -> None:
        """Count what is held to the baseline if hardly any of it can be the calls'."""
        live = self._live
        is_sending = any(call.ended_at < math.inf for call in live.calls)
        if not is_sending and live.held_bytes < self.budget_bytes // 8:
            self._baseline = self._resident - live.held_bytes
            _log.warning("the process has grown for other reasons than its requests", extra=self._fields())

    def _is_worth_giving_back(self, now: float) -> bool:
        grown = self._resident - self._given_back_to
        if grown >= _WORTH_GIVING_BACK:
            self._quiet_s = _QUIET_S
        if self.taken_bytes >= self.budget_bytes // 2 and grown >= self.budget_bytes // 8:
            return True
        quiet_s = now - max(self._busy_at, self._gave_back_at)
        return self.taken_bytes >= _WORTH_GIVING_BACK and quiet_s >= self._quiet_s

    def _give_back(self, now: float) -> None:
        self._is_giving_back = True
        self._ended_while_giving_back = False
        self._growth_limit = max(self._resident, self._baseline + self.budget_bytes * 7 // 8) + self.budget_bytes // 8
        self._gave_back_at = now

        def give_back() -> None:
            try:
                self._meter.give_back()
            finally:
                self._live.loop.call_soon(self._gave_back)

        self._pool.submit(give_back)

    def _gave_back(self) -> None:
        before, self._resident = self._resident, self._meter.resident()
        self._given_back_to = self._resident
        self._is_giving_back = False
        was_worth_it = before - self._resident >= _WORTH_GIVING_BACK
        self._quiet_s = _QUIET_S if was_worth_it else min(2 * self._quiet_s, _LONGEST_QUIET_S)
        if not self._live.calls:
            self._baseline = max(self._baseline, min(self._resident, self._idle_baseline_limit))
        if self._ended_while_giving_back:
            self._give_back(self._live.loop.now())

    def _fields(self) -> dict[str, object]:
        return {"taken_bytes": self.taken_bytes, "budget_bytes": self.budget_bytes, "calls_open": self._live.count}


def _holders(calls: Iterable[CallBase], now: float) -> list[CallBase]:
    """Return the calls that are the first to be ended, the oldest first.

    Those whose only message is not complete; else those whose answer is not taken; else streams, which may have begun a
    message, and those first that have not yet sent one.
    """
    uploading, sending, streams = [], [], []
    for call in calls:
        if call.ended_at < now - _SENDING_S:
            sending.append(call)
        elif call.ended_at < math.inf:
            continue
        elif not call.has_single_message:
            streams.append(call)
        elif call.message_bytes == UNREAD:
            uploading.append(call)
    return uploading or sending or sorted(streams, key=lambda call: call.message_bytes != UNREAD)
