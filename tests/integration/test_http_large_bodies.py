"""Bodies that are read past aiohttp's parser: what comes before, within and behind them, over real sockets."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd.http.limits import ConnectionLimits
from inferd.http.messages import HttpBody
from tests.certificates import LOCAL_NAMES, Authority
from tests.http_calls import JSON, MIB, Running, running
from tests.integration.test_http_tls import loaded, trusting
from tests.patience import eventually
from tests.raw_http import answers, connect, read_answer, until_closed

#: More than what is allocated at first.
SIZE = 2 * MIB + 1
HEAD = b"POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n"
SMALL = HEAD % 2 + b"\r\n{}"


def body_of(number: int, size: int = SIZE) -> bytes:
    """Return a body that differs from that of other numbers at every place."""
    return bytes((place + number) % 251 for place in range(251)) * (size // 251) + bytes(size % 251)


def whole(number: int, size: int = SIZE) -> bytes:
    return HEAD % size + b"\r\n" + body_of(number, size)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as made:
        yield made


@pytest.fixture
def client(server: Running) -> Iterator[socket.socket]:
    with connect(server.http.port) as connected:
        yield connected


def wait_past_parser(server: Running) -> None:
    """Wait until the only connection receives a body past its parser."""

    def is_there() -> bool:
        busy = [each for each in server.http._connections.all() if each.body is not None]
        return any(
            each._open_transport is not None and each._open_transport.get_protocol() is not each for each in busy
        )

    eventually(is_there, "the head has been read, and the call accepted")


def check_next(server: Running, client: socket.socket, body: bytes) -> None:
    """Answer the next request, which must have ``body``."""
    call, message = server.next()
    assert message.body == body
    call.reply(HttpBody(b"%d" % len(body), JSON))
    assert read_answer(client).body == b"%d" % len(body)


@pytest.mark.parametrize("size", [64 * 1024 + 1, MIB, MIB + 1, SIZE])
@pytest.mark.parametrize("first", [0, 1, 70_000, -1])
def test_in_two_parts(server: Running, client: socket.socket, size: int, first: int) -> None:
    """Wherever it is split; the second part ends with the next request, which has its own body."""
    sent = whole(1, size)
    split = first + (len(sent) if first < 0 else len(sent) - size)
    client.sendall(sent[:split])
    if split < len(sent) - size + 70_000:
        wait_past_parser(server)
    client.sendall(sent[split:] + SMALL)
    check_next(server, client, body_of(1, size))
    check_next(server, client, b"{}")


def test_many_small_parts(server: Running, client: socket.socket) -> None:
    """Each goes behind the one before."""
    size = 100_000
    client.sendall(HEAD % size + b"\r\n")
    wait_past_parser(server)
    body = body_of(0, size)
    for start in range(0, size, 1000):
        client.sendall(body[start : start + 1000])
    check_next(server, client, body)


def test_requests_in_one_go(server: Running, client: socket.socket) -> None:
    """None takes a byte of another, small or large."""
    parts = [whole(1), SMALL, whole(2, MIB), whole(3), SMALL]
    # The system takes only a part of it before the server reads on.
    sender = threading.Thread(target=client.sendall, args=(b"".join(parts),))
    sender.start()
    for body in (body_of(1), b"{}", body_of(2, MIB), body_of(3), b"{}"):
        check_next(server, client, body)
    sender.join()


def test_over_tls(tmp_path: Path) -> None:
    """As without."""
    authority = Authority()
    tls = loaded(tmp_path, authority.issue(*LOCAL_NAMES))
    with running(tls=tls.http_context) as server:
        context = trusting(authority, tmp_path)
        with context.wrap_socket(connect(server.http.port), server_hostname="127.0.0.1") as client:
            for number in range(2):
                client.sendall(whole(number)[:MIB])
                wait_past_parser(server)
                client.sendall(whole(number)[MIB:] + SMALL)
                check_next(server, client, body_of(number))
                check_next(server, client, b"{}")


def test_expected(server: Running, client: socket.socket) -> None:
    """A client that asks first is told to send it."""
    client.sendall(HEAD % SIZE + b"Expect: 100-continue\r\n\r\n")
    assert client.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(body_of(4))
    check_next(server, client, body_of(4))


def test_client_vanishes(server: Running) -> None:
    """The call ends, and the connection's place is free."""
    server.wait_idle()
    with connect(server.http.port) as client:
        client.sendall(whole(0)[:MIB])
        wait_past_parser(server)
    eventually(lambda: server.http.open_connections == 0, "its place is free")
    server.wait_idle()
    assert server.calls.empty()


@pytest.mark.parametrize("limits", [{"body_timeout_s": 0.1}, {"stall_s": 0.1}], ids=["late", "slow"])
def test_rest_does_not_come(limits: dict[str, float]) -> None:
    """The time for a body, and its least rate, end it; the connection is closed after the answer."""
    with running(limits=ConnectionLimits(linger_s=0.2, **limits)) as server:  # type: ignore[arg-type]  # all numbers
        with connect(server.http.port) as client:
            # No more than the system keeps while the server is late, so that this has been sent when it answers.
            client.sendall(whole(0)[:100_000])
            (answer,) = answers(until_closed(client))
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert server.calls.empty()


def test_drain_waits_for_the_body() -> None:
    """The answer says that it is the last one."""
    with running() as server, connect(server.http.port) as client:
        client.sendall(whole(0)[:MIB])
        wait_past_parser(server)
        server.http.drain()
        client.sendall(whole(0)[MIB:])
        call, message = server.next()
        assert message.body == body_of(0)
        call.reply(HttpBody(b"0", JSON))
        (answer,) = answers(until_closed(client))
        assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_stop_does_not_wait_for_the_body() -> None:
    """Its client is told."""
    with running() as server, connect(server.http.port) as client:
        client.sendall(whole(0)[:MIB])
        wait_past_parser(server)
        server.http.stop()
        assert until_closed(client)[:12] in {b"HTTP/1.1 503", b""}
