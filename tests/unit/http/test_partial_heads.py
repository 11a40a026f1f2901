"""Part of a head that comes with the end of the request before it, with a fake transport and clock."""

import asyncio
import re

import pytest

from tests.unit.http.test_connections import GET, LIMITS, FakeTransport, served

POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
CHUNKS = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"


class Closable(FakeTransport):
    """A transport whose one side can be closed."""

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        return


def answers_later(sent: bytes) -> list[bytes]:
    """Return the statuses of the answers to what was sent in one go, a little after the time for a head is over."""

    async def run() -> FakeTransport:
        transport = Closable()
        connection = await served(sent, transport)
        connection.check(connection.began_at + LIMITS.header_timeout_s)
        assert transport.written.count(b"HTTP/1.1") == 1, "it has as long as a first head"
        for later_s in (1.0, 2.0):
            connection.check(connection.began_at + LIMITS.header_timeout_s + later_s)
        return transport

    with asyncio.Runner() as runner:
        return re.findall(rb"HTTP/1.1 (\d+)", runner.run(run()).written)


@pytest.mark.parametrize("first", [GET, POST])
@pytest.mark.parametrize("part", [b"G", b"GET /x HTTP/1.1\r\nHost: a", b"GET /x HTTP/1.1\r\nHost: a\r\n"])
def test_part_behind_a_request(first: bytes, part: bytes) -> None:
    """The time for a head ends it, as it does for a first one."""
    assert answers_later(first + part) == [b"200", b"408"]


@pytest.mark.parametrize("first", [GET, POST, CHUNKS, GET + b"\r\n"])
def test_nothing_behind_a_request(first: bytes) -> None:
    """The connection is kept."""
    assert answers_later(first) == [b"200"]


def test_next_request_after_a_look() -> None:
    """It is served, as what was tried left no trace."""

    async def run() -> bytes:
        transport = FakeTransport()
        connection = await served(GET, transport)
        connection.check(connection.began_at + LIMITS.header_timeout_s + 1)
        connection.data_received(GET)
        for _ in range(20):
            await asyncio.sleep(0)
        return transport.written

    with asyncio.Runner() as runner:
        assert runner.run(run()).count(b"HTTP/1.1 200") == 2
