"""Limits of time of a connection, with a fake transport and clock."""

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from inferd.http import tls
from inferd.http.aiohttp_server import AiohttpServer
from inferd.http.connections import Connection
from inferd.http.errors import plain_error
from inferd.http.limits import ConnectionLimits
from inferd.http.open_connections import OpenConnections

LIMITS = ConnectionLimits(stall_s=20.0, min_bytes_per_s=1000.0)
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class FakeTransport(asyncio.Transport):
    """Keeps what is written; ``unsent`` bytes of it have not been sent."""

    def __init__(self, extra: Mapping[str, object] | None = None) -> None:
        super().__init__(extra)
        self.written = b""
        self.unsent = 0
        self.is_closed = False
        self.is_aborted = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.is_closed

    def is_reading(self) -> bool:
        return True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True


async def answer(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="answer")


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


async def served(sent: bytes, transport: FakeTransport, connections: OpenConnections | None = None) -> Connection:
    """Return a connection that has answered what was sent."""
    server = AiohttpServer(connections or OpenConnections(LIMITS, plain_error), answer)
    connection = server.protocol(None)
    connection.connection_made(transport)
    await asyncio.sleep(0)
    connection.data_received(sent)
    for _ in range(20):
        await asyncio.sleep(0)
    assert transport.written.startswith(b"HTTP/1.1 200")
    return connection


@pytest.mark.parametrize("sent", [GET, LAST], ids=["kept", "to be closed"])
def test_rest_of_an_answer_that_is_not_read(runner: asyncio.Runner, sent: bytes) -> None:
    """The connection is closed at once, although the answer counts as written, and the transport as closed."""
    transport = FakeTransport()
    connection = runner.run(served(sent, transport))
    transport.unsent = 10_000
    for now in range(20):
        connection.check(now)
    assert not transport.is_aborted
    connection.check(20)
    assert transport.is_aborted


def test_answer_that_is_read_slowly(runner: asyncio.Runner) -> None:
    """At the rate that is allowed."""
    transport = FakeTransport()
    connection = runner.run(served(GET, transport))
    for now in range(100):
        transport.unsent = 150_000 - 1000 * now
        connection.check(now)
    assert not transport.is_aborted


def test_time_of_the_handler_is_not_the_clients(runner: asyncio.Runner) -> None:
    """What is unsent now did not wait before."""
    transport = FakeTransport()
    connection = runner.run(served(GET, transport))
    transport.unsent = 10_000
    connection.check(0)
    transport.unsent = 0
    connection.check(1)
    transport.unsent = 20_000
    connection.check(100)
    assert not transport.is_aborted


#: When the connection of a client with a certificate begins.
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FakeEncryption:
    """TLS with a client certificate that is valid for another hour."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def getpeercert(self, binary_form: bool = False) -> bytes | dict[str, str]:
        expiry = NOW + timedelta(hours=1)
        return b"DER" if binary_form else {"notAfter": f"{expiry:%b %d %H:%M:%S %Y} GMT"}


@pytest.mark.parametrize(
    ("transport", "limits"),
    [
        (FakeTransport(), replace(LIMITS, max_age_s=3600.0)),
        (FakeTransport({"ssl_object": FakeEncryption()}), LIMITS),
    ],
    ids=["age", "certificate"],
)
def test_end_of_a_connection(
    runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, transport: FakeTransport, limits: ConnectionLimits
) -> None:
    """At its age, or when its client's certificate expires: an idle one is closed, another after its next answer."""
    monkeypatch.setattr(tls, "time", SimpleNamespace(time=NOW.timestamp))

    async def run() -> None:
        connections = OpenConnections(limits, plain_error)
        connection = await served(GET, transport, connections)
        now = connection.began_at
        connections.check(now + 3000)
        assert not transport.is_closed
        connection.began_at = now + 4000
        connections.check(now + 4000.5)
        assert not transport.is_closed, "a request may be on its way"
        connections.check(now + 4001)
        assert transport.is_closed

    runner.run(run())
