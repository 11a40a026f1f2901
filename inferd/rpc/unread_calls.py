"""Calls that have only so long to bring their first message."""

from typing import Protocol

import grpc

from inferd.rpc.poll_loop import PollLoop

#: Long enough for any message that is meant to be small.
WITHIN_S = 5.0

_DETAILS = f"expected the whole request within {WITHIN_S:g} s"


class Unread(Protocol):
    """A call; of all its ends only the first has an effect."""

    def abort(self, code: grpc.StatusCode, details: str, /) -> bool:
        """End it."""
        ...


class UnreadCalls:
    """Ends calls whose first message does not come in time, as gRPC's core keeps what has come of it until then.

    Invariant: a timer is set whenever there are calls. On the poll thread only.
    """

    def __init__(self, loop: PollLoop) -> None:
        self._loop = loop
        self._has_timer = False
        #: By when each must have brought its message, the first to be due first; mostly empty.
        self.until: dict[Unread, float] = {}

    def add(self, call: Unread) -> None:
        """Look after a call of which nothing was read yet."""
        until = self._loop.now() + WITHIN_S
        self.until[call] = until
        self._set_timer(until)

    def discard(self, call: Unread) -> None:
        """Its message is here, or none will come."""
        self.until.pop(call, None)

    def _set_timer(self, when: float) -> None:
        if not self._has_timer:
            self._has_timer = True
            self._loop.call_at(when, self._end_late)

    def _end_late(self) -> None:
        self._has_timer = False
        now = self._loop.now()
        while self.until:
            call, until = next(iter(self.until.items()))
            if until > now:
                self._set_timer(until)
                return
            del self.until[call]
            call.abort(grpc.StatusCode.DEADLINE_EXCEEDED, _DETAILS)
