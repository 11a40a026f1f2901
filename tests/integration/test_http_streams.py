"""Answers that are sent bit by bit: as chunks, as far as their client reads them, until either side ends them."""

import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc
import pytest

from inferd.http.calls import HttpCall, on_deadline
from inferd.http.connections import Connection
from inferd.http.messages import HttpBody, HttpUnaryCall
from tests.certificates import LOCAL_NAMES, Authority
from tests.http_calls import JSON, MIB, Running, running
from tests.integration.test_http_large_answers import ask, read
from tests.integration.test_http_tls import loaded, trusting
from tests.patience import PATIENCE_S, eventually
from tests.raw_http import connect, until_closed

T = TypeVar("T")

HEADERS = (("Content-Type", "text/event-stream"),)
REQUEST = b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
OF_A_PAGE = REQUEST.replace(b"Host", b"Origin: http://a\r\nHost")
#: Requests that are served directly, and by aiohttp's tasks.
BOTH = pytest.mark.parametrize("request_", [REQUEST, OF_A_PAGE], ids=["direct", "by a task"])


@pytest.fixture(scope="module")
def unlimited() -> Iterator[Running]:
    with running() as made:
        yield made


@pytest.fixture
def server(unlimited: Running) -> Running:
    unlimited.wait_idle()
    eventually(lambda: not unlimited.http.open_connections, "earlier connections are closed")
    while not unlimited.ends.ended.empty():
        unlimited.ends.ended.get()
    return unlimited


def on_poll(server: Running, work: Callable[[], T]) -> T:
    """Return what ``work`` does on the poll thread."""
    found: list[T] = []
    done = threading.Event()

    def run() -> None:
        found.append(work())
        done.set()

    server.server.poll_loop.call_soon(run)
    assert done.wait(PATIENCE_S)
    return found[0]


def begin(server: Running) -> HttpUnaryCall:
    """Begin the answer to the next call, without a first part."""
    call, _ = server.next()
    assert on_poll(server, lambda: call.begin_stream(HEADERS, lambda body: b"error: " + body))
    return call


def send(server: Running, call: HttpUnaryCall, *parts: bytes) -> None:
    """Send ``parts`` in one round of the poll thread."""
    assert on_poll(server, lambda: all(call.send(part) for part in parts))


def finish(server: Running, call: HttpUnaryCall, last: bytes = b"") -> None:
    assert on_poll(server, lambda: call.finish_stream(last))


def fill(server: Running, call: HttpUnaryCall, part: bytes) -> int:
    """Send ``part`` again and again until the client's system takes no more; return how often."""
    (connection,) = server.http._connections.all()
    sent = 0

    def send_more() -> bool:
        nonlocal sent
        if not call.is_backed_up:
            call.send(part)
            sent += 1
        return call.is_backed_up and connection.writing_paused

    eventually(lambda: on_poll(server, send_more), "the system takes no more")
    return sent


def head_of(client: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read(client, 1)
    return head


def chunk(client: socket.socket) -> bytes:
    """Return the next chunk, empty for the last one."""
    line = b""
    while not line.endswith(b"\r\n"):
        line += read(client, 1)
    data = read(client, int(line, 16) + 2)
    assert data.endswith(b"\r\n")
    return data[:-2]


def rest(client: socket.socket) -> bytes:
    """Return the rest of a body in chunks."""
    return b"".join(iter(lambda: chunk(client), b""))


@BOTH
def test_parts_come_when_they_are_sent(server: Running, request_: bytes) -> None:
    """Those of one round together; then the connection is used again."""
    with ask(server, request_) as client:
        for _ in range(2):
            call = begin(server)
            send(server, call, b"a", b"bc")
            head = head_of(client)
            assert head.startswith(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
            )
            assert b"x-seen: yes" in head, "what interceptors have added by then"
            assert b"Content-Length" not in head
            assert chunk(client) == b"abc"
            send(server, call, b"d")
            assert chunk(client) == b"d"
            finish(server, call, b"e")
            assert (chunk(client), chunk(client)) == (b"e", b"")
            assert not on_poll(server, partial(call.send, b"f")), "it has ended"
            assert not on_poll(server, call.finish_stream), "once"
            assert server.ends.next() == (grpc.StatusCode.OK, 200)
            assert (call.annotations["messages_out"], call.annotations["bytes_out"]) == (4, 5)
            client.sendall(request_)
        server.next()[0].reply(HttpBody(b"{}", JSON))
        assert head_of(client).startswith(b"HTTP/1.1 200 OK\r\n")
    server.wait_idle()
    assert server.server.usage.held_bytes == 0


def test_empty_answer(server: Running) -> None:
    """Has a head all the same."""
    with ask(server, REQUEST) as client:
        call = begin(server)
        finish(server, call)
        assert head_of(client).startswith(b"HTTP/1.1 200 OK\r\n")
        assert chunk(client) == b""


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("verb", [b"GET", b"HEAD"])
def test_versions_and_verbs(server: Running, verb: bytes, version: bytes) -> None:
    """HTTP/1.0 has no chunks, so the answer ends with its connection; HEAD asks for the head only."""
    with socket.create_connection(("127.0.0.1", server.http.port), timeout=PATIENCE_S) as client:
        client.sendall(verb + b" /watched HTTP/" + version + b"\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
        call = begin(server)
        on_poll(server, lambda: call.send(b"ab") and call.finish_stream(b"c"))
        head = head_of(client)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert (b"Transfer-Encoding" in head) == (version == b"1.1")
        is_last = (verb, version) == (b"GET", b"1.0")
        assert (b"Connection: close" in head) == is_last
        if is_last:
            assert until_closed(client) == b"abc"
            return
        if verb == b"GET":
            assert rest(client) == b"abc"
        client.sendall(b"GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert until_closed(client).startswith(b"HTTP/1.1 404 ")


@BOTH
def test_error_in_the_middle(server: Running, request_: bytes) -> None:
    """Is the last part; any thread may end the call, and the connection goes on."""
    with ask(server, request_) as client:
        call = begin(server)
        send(server, call, b"a")
        head_of(client)
        assert chunk(client) == b"a"
        assert call.abort(grpc.StatusCode.UNAUTHENTICATED, "revoked")
        assert rest(client) == b'error: {"error":"revoked"}'
        assert server.ends.next() == (grpc.StatusCode.UNAUTHENTICATED, 200)
        client.sendall(request_)
        server.next()[0].reply(HttpBody(b"{}", JSON))
        assert head_of(client)


def test_error_before_the_answer_begins(server: Running) -> None:
    """Has its own status, and there is no stream any more."""
    with ask(server, REQUEST) as client:
        call, _ = server.next()
        call.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        assert not on_poll(server, lambda: call.begin_stream(HEADERS, bytes))
        assert head_of(client).startswith(b"HTTP/1.1 404 ")


@BOTH
def test_deadline_in_the_middle(server: Running, request_: bytes) -> None:
    """Ends the answer, and tells who generates it."""
    with ask(server, request_.replace(b"Host", b"X-Request-Timeout-Ms: 3600000\r\nHost")) as client:
        call = begin(server)
        terminated = threading.Event()
        call.on_terminated(terminated.set)
        send(server, call, b"a")
        head_of(client)
        assert chunk(client) == b"a"
        assert isinstance(call, HttpCall)
        exchange = call._exchange
        assert exchange.timer is not None
        assert not exchange.timer.cancelled(), "the deadline is watched"
        on_poll(server, lambda: on_deadline(exchange))
        text = b'{"error":"the deadline passed before there was an answer","reason":"DEADLINE_EXCEEDED"}'
        assert rest(client) == b"error: " + text
        assert terminated.wait(PATIENCE_S)
        assert server.ends.next() == (grpc.StatusCode.DEADLINE_EXCEEDED, 200)
        eventually(exchange.timer.cancelled, "the deadline is not watched any more")


@BOTH
def test_client_that_leaves(server: Running, request_: bytes) -> None:
    """Ends the call, and nothing more is sent."""
    terminated = threading.Event()
    with ask(server, request_) as client:
        call = begin(server)
        call.on_terminated(terminated.set)
        send(server, call, b"a")
        head_of(client)
    assert terminated.wait(PATIENCE_S)
    assert server.ends.next() == (grpc.StatusCode.CANCELLED, 200)
    assert not on_poll(server, lambda: call.send(b"b"))
    server.wait_idle()
    eventually(lambda: not server.http.open_connections, "the connection is closed")


@BOTH
def test_client_that_does_not_read(server: Running, request_: bytes) -> None:
    """The sender hears of it, and of when the client reads on; hardly anything waits meanwhile, and nothing is lost."""
    part = bytes(range(256)) * 512
    with ask(server, request_) as client:
        call = begin(server)
        sent = fill(server, call, part)
        (connection,) = server.http._connections.all()
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() < MIB
        read_on = threading.Event()
        on_poll(server, lambda: call.when_read(read_on.set))
        head_of(client)
        received = bytearray()
        while len(received) < sent * len(part):
            received += chunk(client)
        assert read_on.wait(PATIENCE_S)
        assert not call.is_backed_up
        finish(server, call, b"end")
        assert received + rest(client) == part * sent + b"end"
    server.wait_idle()


@BOTH
def test_end_of_an_answer_that_is_not_read(server: Running, request_: bytes) -> None:
    """The call has ended, its answer waits for the client, and then the connection is used again."""
    part = bytes(128 * 1024)
    with ask(server, request_) as client:
        call = begin(server)
        sent = fill(server, call, part)
        finish(server, call, b"end")
        assert server.ends.next() == (grpc.StatusCode.OK, 200)
        head_of(client)
        assert rest(client) == part * sent + b"end"
        server.wait_idle()
        client.sendall(request_)
        server.next()[0].reply(HttpBody(b"{}", JSON))
        assert head_of(client)


@BOTH
def test_client_that_never_reads_is_ended(server: Running, request_: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the rule for all answers; one that is sent slowly is no slow reader's."""
    check = Connection.check
    # The server's own checks have another clock.
    monkeypatch.setattr(Connection, "check", lambda _connection, _now: None)
    terminated = threading.Event()
    with ask(server, request_):
        call = begin(server)
        call.on_terminated(terminated.set)
        send(server, call, b"a")
        (connection,) = server.http._connections.all()
        loop = server.http._loop
        assert loop is not None
        now = 0.0

        def is_ended() -> bool:
            nonlocal now
            now += 50.0
            on_poll(server, lambda: call.is_backed_up or call.send(bytes(128 * 1024)))
            loop.call_soon_threadsafe(check, connection, now)
            return terminated.is_set()

        for moment in (-200.0, -100.0, 0.0):
            loop.call_soon_threadsafe(check, connection, moment)
        send(server, call, b"b")
        assert not terminated.is_set()
        eventually(is_ended, "the client is too slow")
        assert server.ends.next() == (grpc.StatusCode.CANCELLED, 200)
    server.wait_idle()


def test_stream_over_tls(tmp_path: Path) -> None:
    """As without: a sender hears that its caller does not read, and nothing is lost."""
    authority = Authority()
    tls = loaded(tmp_path, authority.issue(*LOCAL_NAMES))
    part = bytes(range(256)) * 512
    with running(tls=tls.http_context) as server:
        client = trusting(authority, tmp_path).wrap_socket(connect(server.http.port), server_hostname="127.0.0.1")
        with client:
            client.sendall(REQUEST)
            call = begin(server)
            sent = fill(server, call, part)
            finish(server, call, b"end")
            head_of(client)
            assert rest(client) == part * sent + b"end"


def test_drain_and_stop() -> None:
    """A drain lets an answer finish; the end of the grace period ends one with an error."""
    with running() as server, ask(server, REQUEST) as first:
        one = begin(server)
        with ask(server, OF_A_PAGE) as second:
            other = begin(server)
            send(server, one, b"a")
            send(server, other, b"a")
            for client in (first, second):
                head_of(client)
                assert chunk(client) == b"a"
            server.http.drain()
            stopped = server.server.stop(PATIENCE_S)
            finish(server, one, b"b")
            assert rest(first) == b"b"
            on_poll(server, server.handling.cancel_all)
            assert rest(second) == b'error: {"error":"the server stopped before there was an answer"}'
            assert stopped.wait(PATIENCE_S)
