"""All open connections of a server: which to close when there are too many, when it is time, and in a drain."""

import asyncio
import logging
import math
import threading
from collections.abc import Iterator

from aiohttp import web

from inferd.http.connections import Connection
from inferd.http.errors import ErrorAnswer
from inferd.http.limits import ConnectionLimits

#: Connections that are to end are closed when they have been idle for this long: a request may be on its way.
_LAST_IDLE_S = 1.0


#: Statuses with which requests are refused that are not well-formed, too slow, or not for this server.
REFUSAL_STATUSES = (400, 408, 414, 417, 431, 500, 501, 505)

_log = logging.getLogger(__name__)


class OpenConnections:
    """The connections of one server, idle and busy ones in the order in which they became so.

    In the thread of the loop only, except ``count``, ``drained`` and ``refused``.
    """

    def __init__(self, limits: ConnectionLimits, error: ErrorAnswer) -> None:
        self.limits = limits
        self._error = error
        #: What was refused before it was a request for the handler, by status.
        self.refused = dict.fromkeys(REFUSAL_STATUSES, 0)
        self.is_draining = False
        #: Set when the last connection has been closed in a drain.
        self.drained = threading.Event()
        #: With the times when they began.
        self._handshakes: dict[asyncio.Task[None], float] = {}
        #: Those that have had no request yet, and those that have.
        self._new: dict[Connection, None] = {}
        self._idle: dict[Connection, None] = {}
        self._busy: dict[Connection, None] = {}

    @property
    def count(self) -> int:
        """Number of open connections, those in a handshake included."""
        return len(self._handshakes) + len(self._new) + len(self._idle) + len(self._busy)

    def all(self) -> list[Connection]:
        """Return all connections whose handshake is complete."""
        return [*self._new, *self._idle, *self._busy]

    @property
    def are_idle(self) -> bool:
        """Whether none of them has a request."""
        return not self._busy

    def begin_handshake(self, task: asyncio.Task[None], now: float, limit: int) -> None:
        """Count a connection in its handshake; above ``limit`` the oldest of them is closed."""
        if len(self._handshakes) >= limit:
            self._cancel_handshake()
        self._handshakes[task] = now
        task.add_done_callback(self._end_handshake)

    def make_room(self) -> bool:
        """Close a connection if there are as many as there may be. Returns False if all of them are being served.

        First the oldest that has brought no request yet, so that many of these cost no client its connection.
        """
        if self.count < self.limits.max_connections:
            return True
        new = next(iter(self._new), None)
        handshake_at = next(iter(self._handshakes.values()), math.inf)
        if handshake_at < (math.inf if new is None else new.began_at):
            self._cancel_handshake()
            return True
        victim = new or next(iter(self._idle), None) or next(self._incomplete(), None)
        if victim is None:
            return False
        # At once, or it would be chosen again.
        self.closed(victim)
        victim.hang_up()
        return True

    def check(self, now: float) -> None:
        """Enforce the limits of time."""
        for connection in self.all():
            connection.check(now)
        self._close_idle(now)

    def drain(self, now: float) -> None:
        """Close idle connections from now on."""
        self.is_draining = True
        while self._handshakes:
            self._cancel_handshake()
        self._close_idle(now)

    # -- called by connections

    def refuse(self, status: int, text: str) -> web.Response:
        """Count what is refused before it is a request for the handler, and return the answer."""
        if status in self.refused:
            self.refused[status] += 1
        _log.debug("refused a request", extra={"http_status": status, "error": text})
        return self._error(status, text)

    def opened(self, connection: Connection) -> None:
        """Count a connection, whose handshake is complete, and which is idle."""
        if connection.handshake is not None:
            self._handshakes.pop(connection.handshake, None)
            connection.handshake = None
        self._new[connection] = None

    def became_busy(self, connection: Connection) -> None:
        """Take note of a request."""
        self._new.pop(connection, None)
        self._idle.pop(connection, None)
        self._busy[connection] = None

    def became_idle(self, connection: Connection) -> None:
        """Take note that the request has ended."""
        if self._busy.pop(connection, False) is None:
            self._idle[connection] = None

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._new.pop(connection, None)
        self._idle.pop(connection, None)
        self._busy.pop(connection, None)
        self.note_drained()

    def _cancel_handshake(self) -> None:
        task = next(iter(self._handshakes))
        del self._handshakes[task]
        task.cancel()

    def _end_handshake(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)
        self.note_drained()

    def _incomplete(self) -> Iterator[Connection]:
        """Yield connections with a request whose body has not been received."""
        return (each for each in self._busy if each.body is not None and not each.body.is_eof())

    def _close_idle(self, now: float) -> None:
        idle = (each for each in (*self._new, *self._idle) if now - each.began_at >= _LAST_IDLE_S)
        for connection in [each for each in idle if self.is_draining or now >= each.ends_at]:
            connection.force_close()

    def note_drained(self) -> None:
        """Set ``drained`` in a drain if there are no connections any more, nor any to accept."""
        if self.is_draining and not self.count:
            self.drained.set()
