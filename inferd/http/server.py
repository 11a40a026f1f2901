"""An HTTP server in a thread of its own: listen, accept, serve, drain."""

import asyncio
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from aiohttp import hdrs, web

from inferd.http.aiohttp_server import AiohttpServer, Handler, RejectedRequest
from inferd.http.connections import Connection
from inferd.http.cors import CrossOrigin
from inferd.http.direct import ServeDirectly
from inferd.http.errors import ErrorAnswer, plain_error
from inferd.http.limits import ConnectionLimits
from inferd.http.open_connections import OpenConnections
from inferd.http.pace import Pace
from inferd.http.selector import TurnTakingSelector
from inferd.rpc.turns import Turns

#: Connections that the system accepts for us. A flood must not fill it: the system would drop those of probes, which
#: try again after a second.
_BACKLOG = 2048
#: Pause if connections cannot be accepted, because there are no file descriptors left.
_RETRY_S = 1.0
#: Time limits are enforced at most this late.
_MAX_CHECK_INTERVAL_S = 1.0
#: TLS handshakes at a time; beyond that the oldest is ended.
_MAX_HANDSHAKES = 128
#: Instead of the versions of Python and aiohttp.
_SERVER = "inferd"
#: Time to send the last answers when the server stops.
_LAST_ANSWERS_S = 0.25
#: Time for the closing handshake of TLS.
_TLS_END_S = 2.0

log = logging.getLogger(__name__)


class BindError(OSError):
    """The address cannot be bound; the text has the address and the reason."""


class HttpServer:
    """Serves one port with an event loop in a thread, so slow clients cost no threads.

    ``handler`` is called in that thread for each well-formed request, or ``direct`` for the simple ones; others are
    answered here, in the form that ``error`` gives them. ``tls``, called for each connection, makes it HTTPS. Above
    ``limits.max_connections`` the connection that has waited longest for its client is closed. With ``pace``, created
    in the thread, connections are accepted so that the thread stays within its share of a core, and each connection
    serves one request. With ``turns``, it gives way to the poll thread.

    Bodies are not decompressed. Reading one raises `BodyError` or aiohttp's RequestPayloadError when it cannot be read
    to its end. ``Expect: 100-continue`` is answered when the handler begins to read the body.

    Threads: ``start`` and ``stop`` are called by one thread, once each; the rest of the methods by any.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        handler: Handler,
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        limits: ConnectionLimits | None = None,
        error: ErrorAnswer = plain_error,
        cors: CrossOrigin | None = None,
        pace: Callable[[], Pace] | None = None,
        direct: ServeDirectly | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._name = name
        self._address = (host, port)
        self._handler = handler
        self._tls = tls
        self._cors = cors
        self._pace = pace
        self._direct = direct
        self._turns = turns
        self._connections = OpenConnections(limits or ConnectionLimits(), error)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Event | None = None

    @property
    def port(self) -> int:
        """The port; after the start the actual one, if it was 0."""
        return self._address[1]

    @property
    def open_connections(self) -> int:
        """Number of open connections, those in the TLS handshake included."""
        return self._connections.count

    @property
    def refused(self) -> Mapping[int, int]:
        """Numbers of requests that were refused before they reached the handler, by status."""
        return dict(self._connections.refused)

    def start(self) -> None:
        """Listen and serve, or raise `BindError`."""
        listener = _listen(*self._address)
        self._address = (self._address[0], listener.getsockname()[1])
        self._loop = self._new_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, args=(listener,), name=self._name, daemon=True)
        self._thread.start()

    def _new_loop(self) -> asyncio.AbstractEventLoop:
        turns = self._turns
        if turns is None:
            return asyncio.new_event_loop()
        selector = TurnTakingSelector(turns)
        turns.http_waits = selector.has_work
        return asyncio.SelectorEventLoop(selector)

    def drain(self) -> None:
        """Accept no more connections, close idle ones, and the others after their answer, which says so.

        An idle connection is closed a second after its last request: the next one may be on its way.
        """
        self._call(self._begin_drain)

    def wait_drained(self, timeout_s: float) -> bool:
        """Wait until the last connection has been closed after `drain`. Returns False at the timeout."""
        return self._connections.drained.wait(timeout_s)

    def stop(self) -> None:
        """Close every connection and end the thread; no effect if it never started."""
        if self._thread is not None and self._thread.is_alive() and self._stopping is not None:
            self._call(self._stopping.set)
            self._thread.join()

    def _call(self, function: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    # -- the thread

    def _serve(self, listener: socket.socket) -> None:
        loop = self._loop
        assert loop is not None, "started"
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._run(listener))

    async def _run(self, listener: socket.socket) -> None:
        assert self._stopping is not None, "started"
        server = AiohttpServer(self._connections, self._handle, self._direct)
        with listener:
            self._accepting = asyncio.create_task(self._accept(listener, server))
            checking = asyncio.create_task(self._check())
            await self._stopping.wait()
            self._accepting.cancel()
            checking.cancel()
        await self._finish()
        for connection in self._connections.all():
            connection.hang_up()
        # Their handlers see that the client is gone.
        await asyncio.sleep(0)

    async def _finish(self) -> None:
        """Send the last answers, and stop waiting for incomplete bodies."""
        connections, loop = self._connections, asyncio.get_running_loop()
        for connection in connections.all():
            connection.give_up_body()
        ends_at = loop.time() + _LAST_ANSWERS_S
        while not connections.are_idle and loop.time() < ends_at:
            await asyncio.sleep(_LAST_ANSWERS_S / 50)

    async def _accept(self, listener: socket.socket, server: AiohttpServer) -> None:
        # Created here, because it measures the thread that creates it.
        pace = None if self._pace is None else self._pace()
        try:
            while True:
                if pace is not None:
                    await asyncio.sleep(pace.wait_s())
                # A cancellation loses no connection, as it could while one is accepted.
                await _readable(listener)
                try:
                    self._accept_pending(listener, server, 1)
                except OSError:
                    log.exception("cannot accept connections, trying again")
                    await asyncio.sleep(_RETRY_S)
        finally:
            if self._connections.is_draining:
                # Connections that the system has accepted would be reset otherwise.
                with suppress(OSError):
                    self._accept_pending(listener, server, self._connections.limits.max_connections)
            listener.close()

    def _accept_pending(self, listener: socket.socket, server: AiohttpServer, most: int) -> None:
        """Accept the connections that wait, at most ``most``."""
        for _ in range(most):
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                # Closed before it was accepted.
                continue
            connection.setblocking(False)
            self._begin_handshake(connection, server)

    def _begin_handshake(self, connection: socket.socket, server: AiohttpServer) -> None:
        connections = self._connections
        if not connections.make_room():
            connection.close()
            return
        task = asyncio.create_task(self._connect(connection, server))
        # Only one that was cancelled before it began counts as cancelled.
        task.add_done_callback(lambda task: connection.close() if task.cancelled() else None)
        connections.begin_handshake(task, asyncio.get_running_loop().time(), _MAX_HANDSHAKES)

    async def _connect(self, connection: socket.socket, server: AiohttpServer) -> None:
        """Serve a socket, after the TLS handshake."""
        options: dict[str, Any] = {}
        if self._tls is not None:
            options = {
                "ssl": self._tls(),
                "ssl_handshake_timeout": self._connections.limits.header_timeout_s,
                "ssl_shutdown_timeout": _TLS_END_S,
            }
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: server.protocol(task), connection, **options)
        except (OSError, asyncio.CancelledError):
            # Not TLS, too slow, gone, or closed by us; asyncio has closed it.
            return

    async def _check(self) -> None:
        """Enforce the time limits periodically."""
        connections, loop = self._connections, asyncio.get_running_loop()
        limits = connections.limits
        shortest_s = min(limits.header_timeout_s, limits.body_timeout_s, limits.stall_s)
        while True:
            await asyncio.sleep(min(_MAX_CHECK_INTERVAL_S, shortest_s / 4))
            connections.check(loop.time())

    def _begin_drain(self) -> None:
        self._connections.drain(asyncio.get_running_loop().time())
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting.add_done_callback(lambda _: self._connections.check_drained())

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection), "made by AiohttpServer"
        if isinstance(request, RejectedRequest):
            return connection.closing_answer(request.violation.status, request.violation.text)
        cors = self._cors
        response = (None if cors is None else cors.intercept(request)) or await self._handler(request)
        if cors is not None:
            cors.add_headers(request, response)
        if isinstance(response, web.Response):
            response.headers.setdefault(hdrs.SERVER, _SERVER)
        if self._pace is not None or connection.is_ending or connection.must_close(request):
            response.force_close()
        return response


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host``, in brackets if it is an IPv6 address. Raises `BindError`."""
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # As in gRPC, [::] is all interfaces of both families.
        both = host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        shown = f"[{host}]" if ":" in host else host
        cause = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        raise BindError(f"cannot listen on {shown}:{port} for HTTP: {cause}") from error
    listener.setblocking(False)
    return listener


async def _readable(listener: socket.socket) -> None:
    """Wait until there are connections to accept."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(listener, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(listener)
