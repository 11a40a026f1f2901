"""One request that is served directly, as the http thread sees it."""

import asyncio
from collections.abc import Callable

from inferd.http.direct import DirectConnection
from inferd.http.exchange import Exchange
from inferd.http.hand_over import HandOver
from inferd.http.requests import Head
from inferd.http.responses import encoded
from inferd.rpc.entrance import Entrance


class DirectExchange(Exchange):
    """An exchange whose answer is written at once, on the http thread. ``done`` is called when it needs no more."""

    __slots__ = ("_direct", "_done", "timer")

    def __init__(
        self,
        head: Head,
        connection: DirectConnection,
        hand_over: HandOver,
        entrance: Entrance,
        done: Callable[["DirectExchange"], None],
    ) -> None:
        super().__init__(head, connection, hand_over, entrance)
        self._direct = connection
        self._done = done
        #: For the deadline.
        self.timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Write the answer."""
        answer = self.answer
        assert answer is not None, "its body is complete"
        connection = self._direct
        is_last = connection.is_ending
        connection.answer(encoded(answer, self.added, is_last=is_last), answer.rest, is_last=is_last)

    def written(self) -> None:
        """See `InProgress.written`."""
        self._end()
        self._hand_over.submit_late(self.release)

    def lost(self) -> None:
        """See `InProgress.lost`."""
        self._end()
        self._hand_over.submit(self.lose_caller)

    def _end(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self._done(self)
