"""What a large body takes of its transport, with a fake one."""

import asyncio
from collections.abc import Iterator

import pytest
from aiohttp import StreamReader

from inferd.http.aiohttp_server import AiohttpServer
from inferd.http.connections import Connection
from inferd.http.errors import BodyError, plain_error
from inferd.http.large_bodies import LargeBodyConnection
from inferd.http.open_connections import OpenConnections
from tests.unit.http.test_connections import GET, LIMITS, FakeTransport, answer

MIB = 1024 * 1024
HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


class Switching(FakeTransport):
    """A transport that fills the buffers of its protocol."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.BaseProtocol | None = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        return

    def offered(self) -> int:
        """Return how much may come."""
        assert isinstance(self.protocol, asyncio.BufferedProtocol)
        return memoryview(self.protocol.get_buffer(-1)).nbytes

    def receive(self, data: bytes) -> None:
        """Let ``data`` come, in as many reads as it takes."""
        while data:
            assert isinstance(self.protocol, asyncio.BufferedProtocol)
            with memoryview(self.protocol.get_buffer(-1)) as room:
                part = data[: len(room)]
                room[: len(part)] = part
            self.protocol.buffer_updated(len(part))
            data = data[len(part) :]


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


async def begun(
    transport: Switching, length: int, first: bytes
) -> tuple[Connection, StreamReader, asyncio.Task[bytearray]]:
    """Return a connection that reads a large body, whose beginning came with the head."""
    server = AiohttpServer(OpenConnections(LIMITS, plain_error), answer, lambda *_: pytest.fail("it is large"))
    connection = server.protocol(None)
    assert isinstance(connection, LargeBodyConnection)
    connection.connection_made(transport)
    connection.data_received(HEAD % length + first)
    # Before aiohttp's task takes it.
    _, content = connection._messages.popleft()
    assert isinstance(content, StreamReader)
    connection.begin(content)
    reading = asyncio.create_task(connection.read_large(content, length))
    await asyncio.sleep(0)
    return connection, content, reading


def test_takes_the_body_and_nothing_else(runner: asyncio.Runner) -> None:
    """Memory grows as the body comes, and the connection parses what is behind it."""

    async def run() -> None:
        transport = Switching()
        connection, content, reading = await begun(transport, 3 * MIB, b"a" * 1000)
        assert transport.offered() == MIB - 1000
        transport.receive(b"b" * (MIB - 1000))
        assert transport.offered() == MIB
        transport.receive(b"c" * MIB)
        assert transport.offered() == MIB
        transport.receive(b"d" * (MIB - 1))
        assert (transport.offered(), content.is_eof()) == (1, False)
        transport.receive(b"e")
        assert transport.protocol is connection
        assert await reading == b"a" * 1000 + b"b" * (MIB - 1000) + b"c" * MIB + b"d" * (MIB - 1) + b"e"
        connection.data_received(GET)
        assert len(connection._messages) == 1

    runner.run(run())


def test_rest_of_a_refused_body_is_dropped(runner: asyncio.Runner) -> None:
    """It takes no memory, and ends where it ends."""

    async def run() -> None:
        transport = Switching()
        connection, content, reading = await begun(transport, 3 * MIB, b"")
        transport.receive(b"a" * (2 * MIB - 1))
        content.set_exception(BodyError(408, "late"))
        with pytest.raises(BodyError):
            await reading
        assert transport.offered() == MIB // 16
        transport.receive(b"b" * MIB)
        assert transport.offered() == 1
        transport.receive(b"c")
        assert transport.protocol is connection

    runner.run(run())


def test_body_that_is_there(runner: asyncio.Runner) -> None:
    """It is read as it is."""

    async def run() -> None:
        transport = Switching()
        _, _, reading = await begun(transport, 5, b"whole")
        assert await reading == b"whole"
        assert transport.protocol is None

    runner.run(run())


def test_events_of_the_transport_are_those_of_the_connection(runner: asyncio.Runner) -> None:
    """It waits for clients that do not read, and ends with its transport."""

    async def run() -> None:
        transport = Switching()
        connection, _, reading = await begun(transport, MIB, b"")
        body = transport.protocol
        assert isinstance(body, asyncio.BufferedProtocol)
        seen = []
        for change in (body.pause_writing, body.resume_writing):
            change()
            seen.append(connection.writing_paused)
        assert seen == [True, False]
        body.eof_received()
        body.connection_lost(None)
        assert connection.transport is None
        reading.cancel()

    runner.run(run())
