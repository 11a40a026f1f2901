"""Periodic checks while calls are open: message timeouts and memory."""

import math
from collections.abc import Iterable

from inferd.rpc.call import UNREAD, CallBase, LiveCalls
from inferd.rpc.memory_guard import MemoryGuard
from inferd.rpc.rejections import message_timeout

#: Message timeout after `Call.expect_small_message`.
SMALL_MESSAGE_S = 5.0

_INTERVAL_S = 0.5


class Upkeep:
    """Ends calls whose first message is not complete in time, and runs the checks of a `MemoryGuard`.

    One timer serves all calls, as a timer per call would cost every request; timeouts are accurate to half a second.
    There is no timer while nothing needs a check.

    On the poll thread only, except ``memory``, which any thread may set once. Invariant: either a timer is set, or
    ``live.on_call`` sets it.
    """

    def __init__(self, live: LiveCalls, *, message_timeout_s: float | None) -> None:
        self._live = live
        self._message_timeout_s = math.inf if message_timeout_s is None else message_timeout_s
        self._sweep_at = -math.inf
        self.memory: MemoryGuard | None = None
        live.on_call = self._begin

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
            if call.expects_small_message:
                within_s = SMALL_MESSAGE_S
            elif call.has_single_message:
                within_s = self._message_timeout_s
            if now - call.started_at >= within_s:
                self._live.reject(call, message_timeout(within_s))


def _unread(calls: Iterable[CallBase], started_before: float) -> list[CallBase]:
    """Return the ``calls``, ordered by start, that started early enough and have no complete message."""
    found = []
    for call in calls:
        if call.started_at > started_before:
            break
        if call.message_bytes == UNREAD and call.ended_at == math.inf:
            found.append(call)
    return found
