"""The open connections of a server: close one to make room, those that are too slow or too old, and all in a drain."""

import asyncio
import logging
import math
import threading
from collections.abc import Iterator

from aiohttp import web

from inferd.http.closing import ClosingConnection
from inferd.http.errors import ErrorAnswer
from inferd.http.limits import ConnectionLimits

#: Connections at their end are closed after this idle time: a request may be on its way.
_LAST_IDLE_S = 1.0

#: Statuses of requests that are malformed, too slow, or not for this server.
REFUSAL_STATUSES = (400, 408, 414, 417, 431, 500, 501, 505)

_log = logging.getLogger(__name__)


class OpenConnections:
    """The connections of one server: in a handshake, new, idle and busy ones, each in the order of their change.

    Threads: the one of the loop; ``count``, ``drained`` and ``refused`` any.
    """

    def __init__(self, limits: ConnectionLimits, error: ErrorAnswer) -> None:
        self.limits = limits
        self._error = error
        #: Number of requests that were refused before they reached the handler, by status.
        self.refused = dict.fromkeys(REFUSAL_STATUSES, 0)
        self.is_draining = False
        #: Set when the last connection has been closed in a drain.
        self.drained = threading.Event()
        #: With the time when each began.
        self._handshakes: dict[asyncio.Task[None], float] = {}
        #: Without a request so far.
        self._new: dict[ClosingConnection, None] = {}
        self._idle: dict[ClosingConnection, None] = {}
        self._busy: dict[ClosingConnection, None] = {}

    @property
    def count(self) -> int:
        """Number of open connections, those in a handshake included."""
        return len(self._handshakes) + len(self._new) + len(self._idle) + len(self._busy)

    def all(self) -> list[ClosingConnection]:
        """Return all connections whose handshake is complete."""
        return [*self._new, *self._idle, *self._busy]

    @property
    def are_idle(self) -> bool:
        """True if none of them has a request."""
        return not self._busy

    def begin_handshake(self, task: asyncio.Task[None], now: float, limit: int) -> None:
        """Count a connection in its handshake; above ``limit`` the oldest of them is closed."""
        if len(self._handshakes) >= limit:
            self._cancel_handshake()
        self._handshakes[task] = now
        task.add_done_callback(self._end_handshake)

    def make_room(self) -> bool:
        """Close a connection if the maximum is reached. Returns False if all of them are being served.

        The oldest one without a request so far goes first, so that a flood of these costs no client its connection.
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
        # Removed at once, or it would be chosen again.
        self.closed(victim)
        victim.hang_up()
        return True

    def check(self, now: float) -> None:
        """Enforce the time limits."""
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

    def refusal(self, status: int, text: str) -> web.Response:
        """Count a request that does not reach the handler, and return its answer."""
        if status in self.refused:
            self.refused[status] += 1
        _log.debug("refused a request", extra={"http_status": status, "error": text})
        return self._error(status, text)

    def opened(self, connection: ClosingConnection) -> None:
        """Add a connection whose handshake is complete."""
        if connection.handshake is not None:
            self._handshakes.pop(connection.handshake, None)
            connection.handshake = None
        self._new[connection] = None

    def became_busy(self, connection: ClosingConnection) -> None:
        """Record that the head of a request is complete."""
        self._new.pop(connection, None)
        self._idle.pop(connection, None)
        self._busy[connection] = None

    def became_idle(self, connection: ClosingConnection) -> None:
        """Record that the request has ended; no effect after `closed`."""
        if self._busy.pop(connection, False) is None:
            self._idle[connection] = None

    def closed(self, connection: ClosingConnection) -> None:
        """Remove a connection."""
        self._new.pop(connection, None)
        self._idle.pop(connection, None)
        self._busy.pop(connection, None)
        self.check_drained()

    def _cancel_handshake(self) -> None:
        task = next(iter(self._handshakes))
        del self._handshakes[task]
        task.cancel()

    def _end_handshake(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)
        self.check_drained()

    def _incomplete(self) -> Iterator[ClosingConnection]:
        """Yield connections that wait for the rest of a body."""
        return (each for each in self._busy if each.is_receiving)

    def _close_idle(self, now: float) -> None:
        idle = (each for each in (*self._new, *self._idle) if now - each.began_at >= _LAST_IDLE_S)
        for connection in [each for each in idle if self.is_draining or now >= each.ends_at]:
            connection.force_close()

    def check_drained(self) -> None:
        """Set ``drained`` if the last connection has ended in a drain."""
        if self.is_draining and not self.count:
            self.drained.set()
