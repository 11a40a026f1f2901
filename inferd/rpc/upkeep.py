"""Ends calls whose message does not arrive in time, and runs the checks of the memory budget."""

import math
from collections.abc import Mapping

from inferd.rpc.call_ends import message_timeout
from inferd.rpc.live_calls import UNREAD, LiveCall, LiveCalls
from inferd.rpc.memory_guard import MemoryGuard, MemoryMeter
from inferd.rpc.worker_pool import WorkerPool

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


def _unread(calls: Mapping[LiveCall, int], started_before: float) -> list[LiveCall]:
    """Return those of `LiveCalls.calls` that started early enough and have no complete message."""
    found = []
    for call, size in calls.items():
        if call.started_at > started_before:
            break
        if size == UNREAD and call.ended_at == math.inf:
            found.append(call)
    return found
