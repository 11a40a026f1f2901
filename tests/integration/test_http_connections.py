"""What the connections of an HTTP server may take, and how they end, over real sockets."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from aiohttp import web

from inferd.http.aiohttp_server import Handler
from inferd.http.limits import ConnectionLimits
from inferd.http.server import HttpServer
from tests.patience import PATIENCE_S, eventually
from tests.raw_http import RawAnswer, answers, connect, read_answer, until_closed

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\n"
LAST = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

Serve = Callable[..., HttpServer]


async def echo(request: web.BaseRequest) -> web.Response:
    return web.Response(body=await request.read())


class Held:
    """A handler that answers when it is told to; ``cancelled`` counts requests whose clients have gone."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.cancelled = threading.Semaphore(0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._go: asyncio.Event | None = None

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        if self._go is None:
            self._loop, self._go = asyncio.get_running_loop(), asyncio.Event()
        self.arrived.release()
        try:
            await self._go.wait()
        except asyncio.CancelledError:
            self.cancelled.release()
            raise
        return web.Response(text="held")

    def go(self) -> None:
        """Answer all requests."""
        assert self._loop is not None, "a request has arrived"
        assert self._go is not None, "a request has arrived"
        self._loop.call_soon_threadsafe(self._go.set)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers on free ports, and stop them."""
    with ExitStack() as stack:

        def _serve(handler: Handler = echo, **limits: float) -> HttpServer:
            server = HttpServer("http", "127.0.0.1", 0, handler, limits=ConnectionLimits(**limits))  # type: ignore[arg-type]
            server.start()
            stack.callback(server.stop)
            return server

        yield _serve


def test_keeps_connections(serve: Serve) -> None:
    """One connection, many requests, in order, also if they do not wait for answers."""
    server = serve()
    with connect(server.port) as connection:
        for n in range(3):
            connection.sendall(HEAD + b"Content-Length: 1\r\n\r\n%d" % n)
            assert read_answer(connection).body == b"%d" % n
        pipelined = b"".join(HEAD + b"Content-Length: 3\r\n\r\n%03d" % n for n in range(100))
        connection.sendall(pipelined + LAST)
        found = answers(until_closed(connection))
    assert [answer.body for answer in found] == [*(b"%03d" % n for n in range(100)), b""]


def test_old_connections(serve: Serve) -> None:
    """The next answer says that it is the last one."""
    server = serve(max_age_s=1e-9)
    with connect(server.port) as connection:
        connection.sendall(HEAD + b"Content-Length: 1\r\n\r\na")
        (answer,) = answers(until_closed(connection))
    assert (answer.body, answer.headers["connection"]) == (b"a", "close")


def test_http_1_0(serve: Serve) -> None:
    """Closes unless the client asks not to."""
    server = serve()
    with connect(server.port) as connection:
        connection.sendall(b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert read_answer(connection).headers["connection"] == "keep-alive"
        connection.sendall(b"GET /x HTTP/1.0\r\n\r\n")
        (answer,) = answers(until_closed(connection))
    assert answer.status == 200


def test_expectation_is_met_when_the_body_is_read(serve: Serve) -> None:
    """A request that is refused need not send its body."""

    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(status=401) if request.path == "/refused" else await echo(request)

    server = serve(handler, linger_s=0.1)
    asking = b"Host: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    with connect(server.port) as connection:
        connection.sendall(b"POST /x HTTP/1.1\r\n" + asking)
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abcd")
        assert read_answer(connection).body == b"abcd"
        connection.sendall(b"POST /refused HTTP/1.1\r\n" + asking)
        (answer,) = answers(until_closed(connection))
    # It is not known whether the body follows.
    assert (answer.status, answer.headers["connection"]) == (401, "close")


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"", []),
        (b"GET /x HTTP/1.1\r\nHost", [408]),
        (HEAD + b"Content-Length: 5\r\n\r\nabcd", [408]),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", [408]),
        (GET + b"GET /x HTTP/1.1\r\nHo", [200, 408]),
        (b"nonsense\r\n\r\n", [400]),
    ],
)
def test_incomplete_requests_end(serve: Serve, sent: bytes, statuses: list[int]) -> None:
    """With the status that says so, if there was a part of a request; these are counted."""
    keep_alive_s = PATIENCE_S if sent else 0.3
    server = serve(header_timeout_s=0.1, body_timeout_s=0.1, keep_alive_s=keep_alive_s, linger_s=0.1)
    with connect(server.port) as connection:
        connection.sendall(sent)
        assert [answer.status for answer in answers(until_closed(connection))] == statuses
    eventually(lambda: server.open_connections == 0, "its place is free")
    assert {status: count for status, count in server.refused.items() if count} == Counter({*statuses} - {200})


def test_idle_connections_end(serve: Serve) -> None:
    """After the time between two requests."""
    server = serve(keep_alive_s=0.1)
    with connect(server.port) as connection:
        connection.sendall(GET)
        assert read_answer(connection).status == 200
        assert until_closed(connection) == b""


LONG = HEAD + b"Content-Length: 300000\r\n\r\n" + bytes(300_000)


def test_idle_after_a_long_body(serve: Serve) -> None:
    """What its last request had is no part of the head of the next, which might never come."""
    server = serve(header_timeout_s=0.1, keep_alive_s=0.4)
    with connect(server.port) as connection:
        connection.sendall(LONG)
        assert [answer.status for answer in answers(until_closed(connection))] == [200]


def test_head_in_pieces_after_a_long_body(serve: Serve) -> None:
    """It is no longer than what it has itself."""
    server = serve()
    with connect(server.port) as connection, connect(server.port) as other:
        connection.sendall(LONG)
        assert read_answer(connection).status == 200
        connection.sendall(GET[:10])
        for _ in range(2):
            # The server reads all connections in turn.
            other.sendall(GET)
            assert read_answer(other).status == 200
        connection.sendall(GET[10:])
        assert read_answer(connection).status == 200


def test_no_keep_alive(serve: Serve) -> None:
    """With 0, each connection has one request."""
    server = serve(keep_alive_s=0.0)
    with connect(server.port) as connection:
        connection.sendall(GET)
        (answer,) = answers(until_closed(connection))
    assert answer.headers["connection"] == "close"


def test_slow_body_ends(serve: Serve) -> None:
    """One that comes too slowly, long before the time for a whole one."""
    server = serve(stall_s=0.2, min_bytes_per_s=10_000_000.0)
    with connect(server.port) as connection:
        connection.sendall(HEAD + b"Content-Length: 500000\r\n\r\n" + b"x" * 100_000)
        (answer,) = answers(until_closed(connection))
    assert answer.status == 408


def test_client_that_does_not_read(serve: Serve) -> None:
    """Its connection is closed, whatever is left of the answer."""
    asked = threading.Event()

    async def large(request: web.BaseRequest) -> web.Response:
        asked.set()
        return web.Response(body=bytes(32 * 1024 * 1024))

    server = serve(large, stall_s=0.2)
    with connect(server.port) as connection:
        connection.sendall(GET)
        assert asked.wait(PATIENCE_S)
        eventually(lambda: server.open_connections == 0, "it is closed")


def test_client_that_vanishes(serve: Serve) -> None:
    """Its request is cancelled, and its place is free."""
    held = Held()
    server = serve(held)
    with connect(server.port) as connection:
        connection.sendall(GET)
        held.arrived.acquire()
    held.cancelled.acquire()
    eventually(lambda: server.open_connections == 0, "its place is free")


def test_oldest_idle_connection_makes_room(serve: Serve) -> None:
    """A connection that is being served is not closed; if all are, the new one is."""
    held = Held()
    server = serve(held, max_connections=2)
    with connect(server.port) as idle, connect(server.port) as busy, ExitStack() as stack:
        busy.sendall(GET)
        held.arrived.acquire()
        third = stack.enter_context(connect(server.port))
        third.sendall(GET)
        held.arrived.acquire()
        assert until_closed(idle) == b""
        with connect(server.port) as fourth:
            assert until_closed(fourth) == b""
        held.go()
        assert [read_answer(each).body for each in (busy, third)] == [b"held", b"held"]


def test_connections_without_a_request_go_first(serve: Serve) -> None:
    """However many there are, a client that has been served keeps its connection."""
    server = serve(max_connections=3)
    with connect(server.port) as kept, ExitStack() as stack:
        kept.sendall(GET)
        read_answer(kept)
        for _ in range(20):
            stack.enter_context(connect(server.port)).sendall(GET[:10])
        assert answered(server.port).status == 200
        kept.sendall(GET)
        assert read_answer(kept).status == 200


def test_incomplete_bodies_make_room(serve: Serve) -> None:
    """Uploads that never end do not keep others out."""
    server = serve(max_connections=2)
    with connect(server.port) as first, connect(server.port) as second:
        for upload in (first, second):
            upload.sendall(HEAD + b"Content-Length: 5\r\n\r\nab")
        eventually(lambda: answered(server.port).status == 200, "there is room")


def answered(port: int) -> RawAnswer:
    with connect(port) as connection:
        connection.sendall(LAST)
        found = answers(until_closed(connection))
    return found[0] if found else RawAnswer(0, {})


def test_drain(serve: Serve) -> None:
    """Busy connections get their answer, which says that it is the last; idle ones end; no new ones are accepted."""
    held = Held()
    server = serve(held)
    with connect(server.port) as busy, connect(server.port) as idle:
        busy.sendall(GET)
        held.arrived.acquire()
        eventually(lambda: server.open_connections == 2, "both are open")
        server.drain()
        assert until_closed(idle) == b""
        assert not server.wait_drained(0.0)
        held.go()
        (answer,) = answers(until_closed(busy))
    assert (answer.body, answer.headers["connection"]) == (b"held", "close")
    assert server.wait_drained(PATIENCE_S)
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        connect(server.port)


def test_request_during_drain_is_answered(serve: Serve) -> None:
    """One that was on its way when the drain began."""
    server = serve()
    with connect(server.port) as connection:
        connection.sendall(GET)
        read_answer(connection)
        server.drain()
        connection.sendall(GET)
        (answer,) = answers(until_closed(connection))
    assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_drain_serves_clients_that_the_system_has_let_in(serve: Serve) -> None:
    """They have not been accepted yet, and do not know that."""
    arrived, go = threading.Event(), threading.Event()

    async def blocking(request: web.BaseRequest) -> web.Response:
        arrived.set()
        go.wait()
        return web.Response(text="answer")

    server = serve(blocking)
    with connect(server.port) as first:
        first.sendall(GET)
        arrived.wait()
        # The thread of the server can accept nothing now.
        with connect(server.port) as second:
            second.sendall(GET)
            server.drain()
            go.set()
            for each in (first, second):
                (answer,) = answers(until_closed(each))
                assert answer.body == b"answer"
    assert server.wait_drained(PATIENCE_S)


def test_drain_without_connections(serve: Serve) -> None:
    """Takes no time."""
    server = serve()
    server.drain()
    assert server.wait_drained(PATIENCE_S)


def test_bounds_requests_sent_ahead(serve: Serve) -> None:
    """What it sends while one is served stays in the system, so that it has to wait."""
    held = Held()
    server = serve(held)
    with connect(server.port) as connection:
        connection.sendall(GET)
        held.arrived.acquire()
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.sendall(GET * 1_000_000)


def test_nothing_is_left(serve: Serve) -> None:
    """No descriptors, connections or tasks remain of clients of any kind."""
    server = serve(header_timeout_s=0.2, body_timeout_s=0.2, linger_s=0.1)
    answered(server.port)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        for sent in (GET, HEAD, b"\x00", HEAD + b"Content-Length: 9\r\n\r\n", HEAD + b"Expect: x\r\n\r\n", GET * 3):
            with connect(server.port) as connection:
                connection.sendall(sent)
    eventually(lambda: server.open_connections == 0, "all are closed")
    eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before, "no descriptor is left")


def test_error_in_a_handler_stays_inside(serve: Serve) -> None:
    """The client learns nothing of it, and the server goes on."""

    async def broken(request: web.BaseRequest) -> web.Response:
        raise RuntimeError("internals")

    server = serve(broken)
    for _ in range(2):
        answer = answered(server.port)
        assert (answer.status, answer.body) == (500, b"failed, see the log\n")
