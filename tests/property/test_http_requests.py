"""Whatever is sent over HTTP, the server answers in HTTP, goes on, and takes nothing for a request that is none."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inferd.http.limits import ConnectionLimits
from inferd.http.server import HttpServer
from tests.patience import eventually
from tests.raw_http import RawAnswer, answers, connect, until_closed

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
AFTER = b"GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
STATUSES = {200, 400, 408, 414, 417, 431, 501, 505}

#: Two ways to say where the same body ends.
FRAMED = (
    (b"Content-Length: %d" % len(SMUGGLED), SMUGGLED),
    (b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
)

#: Headers that say something else of the body, or may be taken for more than one header.
NAMES = (
    b"Content-Length",
    b"Transfer-Encoding",
    b"content-length",
    b"Connection",
    b"Upgrade",
    b"Expect",
    b"X",
    b"Host",
)
COLONS = (b": ", b":", b" : ", b"\t: ", b":\t", b"\x00: ", b"\r\n: ", b":\x0b", b"\r: ", b"\n: ")
VALUES = (
    *(b"0", b"5", b"+5", b"-5", b"5,5", b"0x5", b"5 ", b"\x005", b"9" * 30, b"", b"a", b"a b", b"\xff", b"\xc3\xa4"),
    *(
        b"chunked",
        b"Chunked",
        b"chunked ",
        b"xchunked",
        b"identity",
        b"chunked, identity",
        b"gzip, chunked",
        b'"chunked"',
    ),
    *(
        b"close",
        b"keep-alive",
        b"upgrade",
        b"h2c",
        b"websocket",
        b"100-continue",
        b"a\r\n b",
        b"a\n b",
        b"a\rb",
        b"a\r\n\tb",
    ),
    b"5\r\nTransfer-Encoding: chunked",
    b"chunked\r\nContent-Length: 5",
)
headers = st.builds(
    lambda *parts: b"".join(parts), st.sampled_from(NAMES), st.sampled_from(COLONS), st.sampled_from(VALUES)
)
LINES = (b"GET /x HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", b"\r\n", b"Host: a\r\n", b"5\r\nabcde\r\n")
fragments = st.sampled_from([*NAMES, *COLONS, *VALUES, *LINES]) | st.binary(max_size=40)
cuts = st.lists(st.integers(1, 200), max_size=4)


class Seen:
    """A handler that keeps the paths that it was called for."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        self.paths.append(request.path)
        await request.read()
        return web.Response(text=request.path)


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


@pytest.fixture(scope="module")
def port(seen: Seen) -> Iterator[int]:
    limits = ConnectionLimits(header_timeout_s=0.1, body_timeout_s=0.1, keep_alive_s=0.1, linger_s=0.05)
    server = HttpServer("http", "127.0.0.1", 0, seen, limits=limits)
    server.start()
    yield server.port
    server.stop()


def exchanged(port: int, sent: bytes, lengths: list[int]) -> list[RawAnswer]:
    """Send bytes in pieces of these lengths, and the rest; return the answers."""
    with connect(port) as connection:
        with suppress(ConnectionError):
            for length in lengths:
                connection.sendall(sent[:length])
                sent = sent[length:]
            connection.sendall(sent)
        return answers(until_closed(connection))


@given(st.sampled_from(FRAMED), st.lists(headers, max_size=3), st.integers(0, 3), cuts)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_body_is_never_a_request(
    port: int, seen: Seen, framed: tuple[bytes, bytes], more: list[bytes], at: int, lengths: list[int]
) -> None:
    """Whatever else the headers say of it: it is a body, or the request is refused."""
    seen.paths.clear()
    framing, body = framed
    lines = [*more[:at], framing, *more[at:]]
    head = b"POST /x HTTP/1.1\r\nHost: a\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    found = exchanged(port, head + body + AFTER, lengths)
    assert {answer.status for answer in found} <= STATUSES
    assert seen.paths in ([], ["/x"], ["/x", "/after"])


@given(st.lists(fragments, max_size=12), cuts)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything(port: int, seen: Seen, pieces: list[bytes], lengths: list[int]) -> None:
    """Each answer is one of HTTP, and the next client is served."""
    found = exchanged(port, b"".join(pieces), lengths)
    assert {answer.status for answer in found} <= STATUSES
    # A busy machine may send it later than the server waits for it.
    eventually(lambda: [answer.body for answer in exchanged(port, AFTER, [])] == [b"/after"], "the next is served")
