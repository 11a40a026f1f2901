"""Requests that come whole are served without aiohttp's tasks, and are answered like all others."""

import math
import socket
from collections.abc import Iterator

import pytest
from aiohttp import web

from inferd.http.aiohttp_server import Handler
from inferd.http.messages import HttpBody
from tests.http_calls import JSON, Running, running
from tests.patience import PATIENCE_S, eventually

_BODY = b'{"a":1}'
_HEAD = b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n"
_WHOLE = _HEAD + b"\r\n" + _BODY


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as made:
        yield made


@pytest.fixture
def client(server: Running) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.http.port), timeout=PATIENCE_S) as connected:
        yield connected


@pytest.fixture
def slowly(server: Running, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of requests that are served by aiohttp's tasks."""
    paths: list[str] = []
    handle: Handler = server.http._handler

    async def noted(request: web.BaseRequest) -> web.StreamResponse:
        paths.append(request.raw_path)
        return await handle(request)

    monkeypatch.setattr(server.http, "_handler", noted)
    return paths


def _reply(server: Running, number: int = 0) -> None:
    server.next()[0].reply(HttpBody(b"%d" % number, JSON))


def _answer(client: socket.socket, end: bytes = b"0") -> bytes:
    received = b""
    while not received.endswith(b"\r\n\r\n" + end):
        received += client.recv(4096)
    return received


@pytest.mark.parametrize(
    ("parts", "is_direct"),
    [
        ((_WHOLE,), True),
        ((_HEAD + b"\r\n", _BODY), False),
        ((_HEAD + b"Origin: http://example.com\r\n\r\n" + _BODY,), False),
        ((_HEAD + b"Connection: close\r\n\r\n" + _BODY,), False),
        ((_WHOLE.replace(b"1.1", b"1.0"),), False),
    ],
    ids=["whole", "in parts", "of a page", "the last one", "of HTTP/1.0"],
)
def test_only_whole_requests_are_served_directly(
    server: Running, client: socket.socket, slowly: list[str], parts: tuple[bytes, ...], is_direct: bool
) -> None:
    client.sendall(parts[0])
    for part in parts[1:]:
        eventually(lambda: bool(slowly), "its head has been read")
        client.sendall(part)
    _reply(server)
    assert _answer(client).startswith(b"HTTP/1.1 200 OK\r\n")
    assert slowly == ([] if is_direct else ["/held"])


def test_requests_behind_a_direct_one_wait_for_its_answer(server: Running, client: socket.socket) -> None:
    """A pipelined one is served after it, and so is one more."""
    client.sendall(_WHOLE)
    first, _ = server.next()
    client.sendall(_WHOLE)
    assert server.calls.empty()
    first.reply(HttpBody(b"0", JSON))
    _answer(client)
    for number in (1, 2):
        _reply(server, number)
        _answer(client, b"%d" % number)
        if number == 1:
            client.sendall(_WHOLE)


def test_heads_are_read_again_where_they_differ(server: Running, client: socket.socket) -> None:
    """Each request has its own deadline, counted from its arrival."""
    timed = _HEAD + b"X-Request-Timeout-Ms: 60000\r\n\r\n" + _BODY
    starts = []
    for data, timeout_s in ((timed, 60), (timed, 60), (_WHOLE, math.inf)):
        client.sendall(data)
        call, message = server.next()
        assert message.body == _BODY
        assert call.deadline - call.started_at == pytest.approx(timeout_s)
        starts.append(call.started_at)
        call.reply(HttpBody(b"0", JSON))
        _answer(client)
    assert starts == sorted(set(starts))
