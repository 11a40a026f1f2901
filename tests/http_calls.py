"""A real server with HTTP, whose handler the test answers when it likes."""

import http.client
import queue
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from inferd.api.status import StatusTable
from inferd.http.handling import HttpCalls
from inferd.http.limits import ConnectionLimits
from inferd.http.messages import HttpMessage, HttpUnaryCall, Operation
from inferd.http.router import OperationRouter
from inferd.http.server import HttpServer
from inferd.rpc import Rejection, Server, UnaryCall
from tests.patience import PATIENCE_S

MIB = 1024 * 1024
JSON = (("Content-Type", "application/json"),)
METHOD = "POST /held"
_LIMITS = ConnectionLimits(linger_s=0.2)


class Ends:
    """An interceptor that lets tests wait for the end of calls, and rejects those with a header."""

    def __init__(self) -> None:
        self.ended: queue.SimpleQueue[tuple[UnaryCall, grpc.StatusCode, str]] = queue.SimpleQueue()

    def started(self, call: Any) -> Rejection | None:
        headers = dict(call.metadata)
        if "x-small" in headers:
            call.expect_small_message()
        if "x-reject" in headers:
            return Rejection(grpc.StatusCode.UNAUTHENTICATED, "who", (("www-authenticate", "Bearer"),))
        call.add_trailing_metadata((("x-seen", "yes"), ("x-raw-bin", b"\xff")))
        return None

    def finished(self, call: Any, code: grpc.StatusCode, details: str) -> None:
        self.ended.put((call, code, details))

    def next(self) -> tuple[grpc.StatusCode, object]:
        """Return the status of the next call that ends, of gRPC and of HTTP."""
        call, code, _ = self.ended.get(timeout=PATIENCE_S)
        return code, call.annotations["http_status"]


class Running:
    """A server with HTTP; ``calls`` are those that wait for their answer."""

    def __init__(
        self,
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        limits: ConnectionLimits = _LIMITS,
        **options: Any,
    ) -> None:
        self.ends = Ends()
        self.calls: queue.SimpleQueue[tuple[HttpUnaryCall, HttpMessage]] = queue.SimpleQueue()
        statuses = StatusTable(grpc.StatusCode.UNAVAILABLE)
        self.server = Server(interceptors=[self.ends], status_of=statuses.rejection, **options)
        held = Operation(method=METHOD, handler=lambda *call: self.calls.put(call), max_body_bytes=8 * MIB)
        broken = Operation(method="POST /broken", handler=self._fail, max_body_bytes=10)
        watched = Operation(method="GET /watched", handler=lambda *call: self.calls.put(call), max_body_bytes=0)
        table = [("/held", held), ("/broken", broken), ("/watched", watched)]
        self.handling = HttpCalls(self.server, OperationRouter(table))
        direct = self.handling.serve_directly
        self.http = HttpServer("test-http", "127.0.0.1", 0, self.handling.handle, tls=tls, limits=limits, direct=direct)
        self._connections: list[http.client.HTTPConnection] = []
        self.http.start()
        self.server.start()

    def _fail(self, call: UnaryCall, message: HttpMessage) -> None:
        raise RuntimeError("a secret")

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.http.port, timeout=PATIENCE_S)
        self._connections.append(connection)
        return connection

    def ask(self, body: bytes = b"{}", path: str = "/held", **headers: str) -> http.client.HTTPConnection:
        """Send a request and return its connection."""
        connection = self.connect()
        connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return connection

    def next(self) -> tuple[HttpUnaryCall, HttpMessage]:
        return self.calls.get(timeout=PATIENCE_S)

    def wait_idle(self) -> None:
        """Wait until no call lives; the answers are written then."""
        idle = threading.Event()

        def look() -> None:
            if self.server.live_calls:
                self.server.poll_loop.call_soon(look)
            else:
                idle.set()

        self.server.poll_loop.call_soon(look)
        assert idle.wait(PATIENCE_S)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self.handling.end()
        self.server.stop(0).wait(PATIENCE_S)
        self.http.stop()


@contextmanager
def running(**options: Any) -> Iterator[Running]:
    server = Running(**options)
    try:
        yield server
    finally:
        server.close()
