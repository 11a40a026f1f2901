"""Large answers are written in parts, as their clients read them."""

import socket
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from inferd.http.connections import Connection
from inferd.http.messages import HttpBody
from tests.http_calls import MIB, Running, running
from tests.patience import PATIENCE_S, eventually

HEADERS = (("Content-Type", "application/octet-stream"),)
REQUEST = b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
#: Requests that are served directly, and by aiohttp's tasks.
BOTH = pytest.mark.parametrize("request_", [REQUEST, REQUEST.replace(b"Host", b"Origin: http://a\r\nHost")])


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as made:
        yield made


def ask(server: Running, request: bytes) -> socket.socket:
    client = socket.socket()
    # Without it, the system lets it grow to any size while a client reads fast.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
    client.settimeout(PATIENCE_S)
    client.connect(("127.0.0.1", server.http.port))
    client.sendall(request)
    return client


def read(client: socket.socket, size: int) -> bytes:
    """Return the next ``size`` bytes."""
    received = bytearray()
    while len(received) < size:
        piece = client.recv(min(size - len(received), MIB))
        assert piece, "the connection was closed"
        received += piece
    return bytes(received)


def read_answer(client: socket.socket) -> bytes:
    """Return the body of an answer."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read(client, 1)
    return read(client, int(head.lower().partition(b"content-length: ")[2].split()[0]))


@BOTH
def test_parts_in_their_order(server: Running, request_: bytes) -> None:
    """As one body; the connection is used again."""
    array = np.arange(5 * MIB, dtype=np.uint32)
    with ask(server, request_) as client:
        for _ in range(2):
            server.next()[0].reply(HttpBody(b"first", HEADERS, rest=(b"second", array.view(np.uint8).data, b"last")))
            assert read_answer(client) == b"firstsecond" + array.tobytes() + b"last"
            client.sendall(request_)
        server.next()[0].reply(HttpBody(b"small", HEADERS))
        assert read_answer(client) == b"small"


@BOTH
def test_client_that_does_not_read(server: Running, request_: bytes) -> None:
    """Hardly any of the answer waits in the server's buffers; the rest comes as the client reads."""
    part = bytes(range(256)) * 4096
    with ask(server, request_) as client:
        server.next()[0].reply(HttpBody(b"", HEADERS, rest=(part,) * 32))
        (connection,) = server.http._connections.all()
        eventually(lambda: connection.writing_paused, "the system takes no more")
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() < MIB
        assert server.server.live_calls == 1
        assert read_answer(client) == part * 32
    server.wait_idle()


@BOTH
def test_client_that_leaves(server: Running, request_: bytes) -> None:
    """Nothing is kept of its call."""
    with ask(server, request_) as client:
        server.next()[0].reply(HttpBody(b"", HEADERS, rest=(bytes(32 * MIB),)))
        client.recv(10)
    server.wait_idle()
    eventually(lambda: not server.http.open_connections, "the connection is closed")


@BOTH
def test_nothing_is_kept_for_an_idle_connection(server: Running, request_: bytes) -> None:
    """Many of them would hold much."""
    array = np.zeros(MIB, np.uint8)
    kept = weakref.ref(array)
    with ask(server, request_) as client:
        server.next()[0].reply(HttpBody(b"", HEADERS, rest=(array.view(np.uint8).data,)))
        del array
        assert read_answer(client) == bytes(MIB)
        server.wait_idle()
        while not server.ends.ended.empty():
            server.ends.ended.get()
        eventually(lambda: kept() is None, "the answer is free")


def test_slow_reader_makes_progress(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has read counts, although about as much waits for it at any time."""
    check = Connection.check
    # The server's own checks have another clock.
    monkeypatch.setattr(Connection, "check", lambda _connection, _now: None)
    with ask(server, REQUEST) as client:
        server.next()[0].reply(HttpBody(b"", HEADERS, rest=(bytes(64 * MIB),)))
        (connection,) = server.http._connections.all()
        eventually(lambda: connection.writing_paused, "the system takes no more")
        written = connection.written_bytes
        for now in (0.0, 15.0):
            check(connection, now)
        read(client, 24 * MIB)
        eventually(lambda: connection.writing_paused and connection.written_bytes > written, "more is written")
        for now in (30.0, 45.0):
            check(connection, now)
        read(client, 40 * MIB)
    server.wait_idle()
