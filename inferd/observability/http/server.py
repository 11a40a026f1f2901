"""``/metrics``, ``/livez`` and ``/readyz`` over HTTP."""

import asyncio
import functools
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from inferd.observability.http.messages import BadRequestError, HeadTooLargeError, Request, Response, parse_request
from inferd.observability.http.pace import Pace
from inferd.observability.http.scrapes import Renderings
from inferd.observability.metrics.exposition import render, requested_format
from inferd.plain_text import escaped

_LONGEST_HEAD_BYTES = 16 * 1024
_LISTEN_BACKLOG = 128
#: More than probes and Prometheus open at a time.
MOST_CONNECTIONS = 128

#: Share of a core for this thread under a flood of requests, and its burst,
#: within which ordinary scrapes and probes never wait.
_SHARE = 0.2
_BURST_S = 0.1
_LONGEST_WAIT_S = 0.5
#: Pause if connections cannot be accepted, because there are no file descriptors left.
_RETRY_S = 1.0
#: Interval of reading requests that arrive in pieces, because each read costs as much as a whole request.
_GATHER_S = 0.02
#: Time without data after which the peer counts as gone.
_QUIET_S = 0.25

log = logging.getLogger(__name__)


class BindError(OSError):
    """The address cannot be bound; the text has the address and the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """Whether the server is healthy, the reason if not, and details for ``?verbose``, a line each."""

    ok: bool
    reason: str = "ok"
    details: Iterable[str] = ()


def _alive() -> Health:
    return Health(ok=True)


class HttpServer:
    """Serves monitoring in a separate thread; one request per connection.

    One thread serves all connections with an event loop, so slow clients cost no threads: a connection has
    ``timeout_s`` in all, and above ``max_connections`` the oldest is closed. Probes are therefore answered however many
    clients are slow. Work is limited as well: connections are accepted, and metrics rendered, so that the thread stays
    within its share of a core.

    ``readiness`` and ``liveness`` are called in that thread and must not block. ``tls``, called for each connection,
    makes it HTTPS; if its context requests client certificates, ``/metrics`` requires one. Probes need none, because
    Kubernetes' have none.

    Threads: ``start`` and ``stop`` are called by one thread, once each; ``_connections`` is used in the server's only.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        registry: CollectorRegistry,
        readiness: Callable[[], Health],
        liveness: Callable[[], Health] = _alive,
        tls: Callable[[], ssl.SSLContext] | None = None,
        timeout_s: float = 5.0,
        max_connections: int = MOST_CONNECTIONS,
    ) -> None:
        self._host = host.removeprefix("[").removesuffix("]")
        self._renderings = Renderings(functools.partial(render, registry), share=_SHARE)
        self._health = {"/readyz": readiness, "/livez": liveness}
        self._tls = tls
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._stopping = asyncio.Event()
        # Ordered by age.
        self._connections: dict[asyncio.Task[None], None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._port = port

    @property
    def port(self) -> int:
        """The port; after the start the actual one, if 0 was given."""
        return self._port

    def start(self) -> None:
        """Listen and serve, or raise `BindError`."""
        listener = _listen(self._host, self._port)
        self._port = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(self._loop, listener), name="http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and end the thread; no effect if it never started."""
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def _serve(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._run(listener))

    async def _run(self, listener: socket.socket) -> None:
        with listener:
            listener.setblocking(False)
            accepting = asyncio.create_task(self._accept(listener))
            await self._stopping.wait()
            accepting.cancel()
            for task in self._connections:
                task.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        """Accept connections; nearly all work of the thread follows from one."""
        loop = asyncio.get_running_loop()
        # Created here, because it measures the thread that creates it.
        pace = Pace(_SHARE, burst_s=_BURST_S, longest_s=_LONGEST_WAIT_S)
        while True:
            await asyncio.sleep(pace.wait_s())
            try:
                connection, _ = await loop.sock_accept(listener)
                await self._take_in(connection)
            except ConnectionError:
                # Closed before it was accepted.
                continue
            except OSError:
                log.exception("connections cannot be taken in for now")
                await asyncio.sleep(_RETRY_S)

    async def _take_in(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(_LONGEST_HEAD_BYTES, loop)
        protocol = asyncio.StreamReaderProtocol(reader, self._connected, loop)
        await loop.connect_accepted_socket(lambda: protocol, connection)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a connection is served in a task"
        if len(self._connections) >= self._max_connections:
            next(iter(self._connections)).cancel()
        self._connections[task] = None
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._tls is not None:
                    # Here rather than where connections are accepted, so that the time and the number of connections
                    # also limit those that never finish this.
                    await writer.start_tls(self._tls())
                await self._answer(reader, writer)
        except (OSError, asyncio.CancelledError):
            # Too slow, gone, or closed by us: no client waits for an answer.
            writer.transport.abort()
        finally:
            del self._connections[task]
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await _read_head(reader, writer)
            if head is None:
                return
            request = parse_request(head)
        except HeadTooLargeError as error:
            response, head_only = Response(431, f"{error}\n"), False
        except BadRequestError as error:
            response, head_only = Response(400, f"{error}\n"), False
        else:
            response, head_only = await self._respond(request, _is_trusted(writer)), request.method == "HEAD"
        writer.write(response.encode(head_only=head_only))
        await writer.drain()
        # Reading to the end keeps the system from discarding the answer if there is a body.
        if writer.can_write_eof():
            writer.write_eof()
            while await reader.read(_LONGEST_HEAD_BYTES):
                await _gather(writer)
            return
        # TLS cannot close one direction only, so a client that waits for the end does not end by itself.
        with suppress(TimeoutError):
            while await asyncio.wait_for(reader.read(_LONGEST_HEAD_BYTES), _QUIET_S):
                await _gather(writer)
        writer.close()
        await writer.wait_closed()

    async def _respond(self, request: Request, is_trusted: bool) -> Response:
        try:
            return await self._route(request, is_trusted)
        except Exception:
            log.exception("failed to answer %s", request.path)
            return Response(500, "failed, see the log\n")

    async def _route(self, request: Request, is_trusted: bool) -> Response:
        if request.path != "/metrics" and request.path not in self._health:
            return Response(404, "try /metrics, /livez or /readyz\n")
        if request.method not in ("GET", "HEAD"):
            return Response(405, "only GET and HEAD\n", headers=(("Allow", "GET, HEAD"),))
        if request.path == "/metrics":
            if not is_trusted:
                return Response(403, "expected a client certificate\n")
            form = requested_format(request.accept, request.accept_encoding)
            body = await self._renderings.get(form)
            return Response(200, body, content_type=form.content_type, headers=form.headers)
        health = self._health[request.path]()
        lines = [health.reason, *(health.details if request.has_query("verbose") else ())]
        return Response(200 if health.ok else 503, "".join(f"{escaped(line)}\n" for line in lines))


async def _read_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
    """Return the request line and headers, None if the connection ends before. Raises `HeadTooLargeError`."""
    head = b""
    while (end := head.find(b"\r\n\r\n")) < 0:
        if len(head) > _LONGEST_HEAD_BYTES:
            raise HeadTooLargeError
        if head:
            await _gather(writer)
        piece = await reader.read(_LONGEST_HEAD_BYTES)
        if not piece:
            return None
        head += piece
    return head[:end]


async def _gather(writer: asyncio.StreamWriter) -> None:
    """Wait, so that the system collects more data."""
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport), "a connection goes both ways"
    transport.pause_reading()
    await asyncio.sleep(_GATHER_S)
    transport.resume_reading()


def _is_trusted(writer: asyncio.StreamWriter) -> bool:
    """Whether the client has presented a valid certificate, or none is requested."""
    encryption: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
    if encryption is None or encryption.context.verify_mode is ssl.CERT_NONE:
        return True
    certificate = encryption.getpeercert()
    if not certificate:
        return False
    # In a resumed session, it was presented earlier, and may have expired since.
    return ssl.cert_time_to_seconds(str(certificate["notAfter"])) > time.time()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # As in gRPC, [::] is all interfaces of both families.
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, backlog=_LISTEN_BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        shown = f"[{host}]" if ":" in host else host
        raise BindError(f"cannot listen on {shown}:{port} for HTTP: {_cause(error)}") from error


def _cause(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)
