"""Malformed and hostile requests over real sockets: the right status, and never a second meaning for what follows."""

import json
from collections.abc import Iterator

import pytest
from aiohttp import web

from inferd import demo
from inferd.http.server import HttpServer
from tests.raw_http import answers, connect, until_closed
from tests.server import serving

#: What must never be taken for a request.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
#: Ends each case; answered, or the connection is closed before.
AFTER = b"GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = str(len(SMUGGLED)).encode()

#: By name: what is sent, and the status of the first answer.
MALFORMED = {
    "CL.TE": (POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "TE.CL": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "TE.TE": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "TE twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "TE chunked, identity": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "TE chunked, chunked": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "TE gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 501),
    "TE gzip": (POST + b"Transfer-Encoding: gzip\r\n\r\n" + SMUGGLED, 400),
    "TE identity": (POST + b"Transfer-Encoding: identity\r\n\r\n" + SMUGGLED, 400),
    "TE xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "TE with a vertical tab": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "TE in quotes": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + SMUGGLED, 400),
    "TE empty": (POST + b"Transfer-Encoding:\r\n\r\n" + SMUGGLED, 400),
    "TE on a second line": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "TE with a space before the colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "TE in HTTP/1.0": (b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "CL twice": (POST + b"Content-Length: 0\r\nContent-Length: " + LENGTH + b"\r\n\r\n" + SMUGGLED, 400),
    "CL twice, equal": (POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "CL as a list": (POST + b"Content-Length: 4, 4\r\n\r\nabcd", 400),
    "CL negative": (POST + b"Content-Length: -1\r\n\r\n" + SMUGGLED, 400),
    "CL with a sign": (POST + b"Content-Length: +4\r\n\r\nabcd", 400),
    "CL hexadecimal": (POST + b"Content-Length: 0x4\r\n\r\nabcd", 400),
    "CL with a fraction": (POST + b"Content-Length: 4.0\r\n\r\nabcd", 400),
    "CL with an exponent": (POST + b"Content-Length: 4e0\r\n\r\nabcd", 400),
    "CL with a space inside": (POST + b"Content-Length: 4 4\r\n\r\nabcd", 400),
    "CL with an underscore": (POST + b"Content-Length: 1_0\r\n\r\nabcdefghij", 400),
    "CL empty": (POST + b"Content-Length:\r\n\r\n" + SMUGGLED, 400),
    "CL not a number": (POST + b"Content-Length: many\r\n\r\n" + SMUGGLED, 400),
    "CL over 64 bits": (POST + b"Content-Length: 18446744073709551617\r\n\r\n" + SMUGGLED, 400),
    "CL of 64 bits": (POST + b"Content-Length: 18446744073709551615\r\n\r\n" + SMUGGLED, 400),
    "CL of thousands of zeros": (POST + b"Content-Length: " + b"0" * 5000 + b"4\r\n\r\nabcd" + SMUGGLED, 400),
    "CL of a hundred digits": (POST + b"Content-Length: " + b"9" * 100 + b"\r\n\r\n" + SMUGGLED, 400),
    "CL in other digits": (POST + "Content-Length: ٤\r\n\r\nabcd".encode(), 400),
    "CL with a space before the colon": (POST + b"Content-Length : 4\r\n\r\nabcd", 400),
    "folded header": (GET + b"X-A: b\r\n c\r\n\r\n" + SMUGGLED, 400),
    "folded first header": (b"GET /x HTTP/1.1\r\n Host: a\r\n\r\n" + SMUGGLED, 400),
    "bare LF": (b"GET /x HTTP/1.1\nHost: a\n\n" + SMUGGLED, 400),
    "bare LF in headers": (GET + b"X-A: b\nX-B: c\r\n\r\n" + SMUGGLED, 400),
    "bare LF at the end": (GET + b"X-A: b\r\n\n" + SMUGGLED, 400),
    "bare CR in a value": (GET + b"X-A: b\rX-B: c\r\n\r\n" + SMUGGLED, 400),
    "bare CR in the line": (b"GET /x HTTP/1.1\rHost: a\r\n\r\n" + SMUGGLED, 400),
    "two CR": (GET + b"X-A: b\r\r\n\r\n" + SMUGGLED, 400),
    "NUL in a value": (GET + b"X-A: b\x00c\r\n\r\n" + SMUGGLED, 400),
    "NUL in a name": (GET + b"X\x00A: b\r\n\r\n" + SMUGGLED, 400),
    "control character in a value": (GET + b"X-A: b\x01c\r\n\r\n" + SMUGGLED, 400),
    "DEL in a value": (GET + b"X-A: b\x7fc\r\n\r\n" + SMUGGLED, 400),
    "space before a colon": (GET + b"X-A : b\r\n\r\n" + SMUGGLED, 400),
    "tab before a colon": (GET + b"X-A\t: b\r\n\r\n" + SMUGGLED, 400),
    "space in a name": (GET + b"X A: b\r\n\r\n" + SMUGGLED, 400),
    "header without a colon": (GET + b"X-A\r\n\r\n" + SMUGGLED, 400),
    "header without a name": (GET + b": b\r\n\r\n" + SMUGGLED, 400),
    "name that is not ASCII": (GET + "Ä: b\r\n\r\n".encode() + SMUGGLED, 400),
    "name in parentheses": (GET + b"(X): b\r\n\r\n" + SMUGGLED, 400),
    "no Host": (b"GET /x HTTP/1.1\r\n\r\n" + SMUGGLED, 400),
    "two Hosts": (GET + b"Host: b\r\n\r\n" + SMUGGLED, 400),
    "Host with a path": (b"GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n" + SMUGGLED, 400),
    "Host with a user": (b"GET /x HTTP/1.1\r\nHost: b@a\r\n\r\n" + SMUGGLED, 400),
    "Host with a space": (b"GET /x HTTP/1.1\r\nHost: a b\r\n\r\n" + SMUGGLED, 400),
    "HTTP/0.9": (b"GET /x\r\n\r\n" + SMUGGLED, 400),
    "HTTP/0.9 alone": (b"GET /x\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED, 400),
    "HTTP/2.0": (b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n" + SMUGGLED, 400),
    "HTTP/1.2": (b"GET /x HTTP/1.2\r\nHost: a\r\n\r\n" + SMUGGLED, 400),
    "HTTP/11": (b"GET /x HTTP/11\r\nHost: a\r\n\r\n" + SMUGGLED, 400),
    "version in lower case": (b"GET /x http/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, 400),
    "no version": (b"GET /x \r\nHost: a\r\n\r\n" + SMUGGLED, 400),
    "tab in the line": (b"GET\t/x HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, 400),
    "space in the path": (b"GET /x y HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, 400),
    "space after the version": (b"GET /x HTTP/1.1 \r\nHost: a\r\n\r\n" + SMUGGLED, 400),
    "path without a slash": (b"GET x HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, 400),
    "path that is not ASCII": ("GET /ä HTTP/1.1\r\nHost: a\r\n\r\n".encode() + SMUGGLED, 400),
    "NUL in the path": (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, 400),
    "unknown method": (b"FROB /x HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, 400),
    "method in lower case": (b"get /x HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, 400),
    "method of another protocol": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SMUGGLED, 400),
    "gRPC": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 400),
    "CONNECT": (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, 501),
    "target of a proxy without a host": (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, 400),
    "long line": (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED, 414),
    "long header": (GET + b"X-A: " + b"b" * 20_000 + b"\r\n\r\n" + SMUGGLED, 431),
    "long name": (GET + b"X" * 20_000 + b": b\r\n\r\n" + SMUGGLED, 431),
    "many headers": (GET + b"".join(b"X-%d: b\r\n" % n for n in range(200)) + b"\r\n" + SMUGGLED, 431),
    "long head": (GET + b"".join(b"X-%d: %b\r\n" % (n, b"b" * 1000) for n in range(20)) + b"\r\n" + SMUGGLED, 431),
    "unknown expectation": (POST + b"Expect: 200-ok\r\nContent-Length: 4\r\n\r\nabcd", 417),
    "chunk size not hexadecimal": (CHUNKED + b"zz\r\nabcd\r\n0\r\n\r\n" + SMUGGLED, 400),
    "chunk size negative": (CHUNKED + b"-1\r\nabcd\r\n0\r\n\r\n" + SMUGGLED, 400),
    "chunk size with 0x": (CHUNKED + b"0x4\r\nabcd\r\n0\r\n\r\n" + SMUGGLED, 400),
    "chunk size over 64 bits": (CHUNKED + b"fffffffffffffffff\r\nabcd\r\n0\r\n\r\n" + SMUGGLED, 400),
    "chunk size empty": (CHUNKED + b"\r\nabcd\r\n0\r\n\r\n" + SMUGGLED, 400),
    "chunk size with a space": (CHUNKED + b"4 \r\nabcd\r\n0\r\n\r\n" + SMUGGLED, 400),
    "chunk longer than its size": (CHUNKED + b"2\r\nabcd\r\n0\r\n\r\n" + SMUGGLED, 400),
    "chunk that ends with LF": (CHUNKED + b"4\nabcd\n0\n\n" + SMUGGLED, 400),
    "bare LF in a chunk extension": (CHUNKED + b"4;a\nabcd\r\n0\r\n\r\n" + SMUGGLED, 400),
    "NUL in a chunk extension": (CHUNKED + b"4;a=\x00\r\nabcd\r\n0\r\n\r\n" + SMUGGLED, 400),
    "huge chunk extension": (CHUNKED + b"1;" + b"a" * 500_000, 400),
    "chunks of one byte": (CHUNKED + b"1\r\na\r\n" * 100_000, 400),
    "malformed trailer": (CHUNKED + b"0\r\nX-A : b\r\n\r\n" + SMUGGLED, 400),
    "folded trailer": (CHUNKED + b"0\r\nX-A: b\r\n c\r\n\r\n" + SMUGGLED, 400),
}

#: What is well-formed, and must be understood; or else the connection is closed after the first answer.
WELL_FORMED = {
    "chunks": CHUNKED + b"4\r\nabcd\r\n0\r\n\r\n",
    "chunks with extensions": CHUNKED + b"4;a=b;c\r\nabcd\r\n0\r\n\r\n",
    "TE in capitals": POST + b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"4\r\nabcd\r\n0\r\nX-Leak: secret\r\nAuthorization: Bearer secret\r\n\r\n",
    "upgrade to HTTP/2": GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
    "upgrade to a websocket": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "upgrade with a body": POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\nabcd",
    "expectation": POST + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\nabcd",
    "body of a GET": GET + b"Content-Length: " + LENGTH + b"\r\n\r\n" + SMUGGLED,
    "body that looks like a request": POST + b"Content-Length: " + LENGTH + b"\r\n\r\n" + SMUGGLED,
    "body that is not read": b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: " + LENGTH + b"\r\n\r\n" + SMUGGLED,
    "chunks that are not read": b"POST /unread HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "absolute address": b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "empty lines before": b"\r\n\r\n" + GET + b"\r\n",
    "two spaces": b"GET  /x HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/1.0 that keeps the connection": b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "IPv6 Host": b"GET /x HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n",
    "empty Host": b"GET /x HTTP/1.1\r\nHost:\r\n\r\n",
    "spaces around a value": GET + b"X-A: \t b \t\r\n\r\n",
}


#: Well-formed, in a version that is not served.
OTHER_VERSIONS = {"HTTP/0.9": b"GET /x\r\n\r\n", "HTTP/2.0": b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n"}


class Echo:
    """Answers with the path; ``seen`` has what it was called for, with the headers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        self.seen.append((request.path, {name.lower(): value for name, value in request.headers.items()}))
        if request.path != "/unread":
            await request.read()
        return web.Response(text=request.path)


@pytest.fixture(scope="module")
def echo() -> Echo:
    return Echo()


@pytest.fixture(scope="module")
def port(echo: Echo) -> Iterator[int]:
    server = HttpServer("http", "127.0.0.1", 0, echo)
    server.start()
    yield server.port
    server.stop()


@pytest.mark.parametrize(("sent", "status"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(port: int, echo: Echo, sent: bytes, status: int) -> None:
    """The connection is closed after its status, and nothing behind it is served."""
    echo.seen.clear()
    with connect(port) as connection:
        connection.sendall(sent + AFTER)
        (answer,) = answers(until_closed(connection))
    assert answer.status == status
    assert answer.headers["connection"] == "close"
    assert [path for path, _ in echo.seen if path in {"/smuggled", "/after"}] == []


def test_request_before_malformed_bytes(port: int, echo: Echo) -> None:
    """If both come in one read, aiohttp drops it. It is not served then, so its client may send it again."""
    echo.seen.clear()
    with connect(port) as connection:
        connection.sendall(GET + b"\r\n" + b"\0\r\n\r\n")
        (answer,) = answers(until_closed(connection))
    assert (answer.status, echo.seen) == (400, [])


@pytest.mark.parametrize("sent", WELL_FORMED.values(), ids=WELL_FORMED)
def test_well_formed(port: int, echo: Echo, sent: bytes) -> None:
    """What follows is answered for what it is, or the connection is closed, as the first answer says."""
    echo.seen.clear()
    with connect(port) as connection:
        connection.sendall(sent + AFTER)
        first, *more = answers(until_closed(connection))
    assert first.status == 200
    if first.headers.get("connection") == "close":
        assert more == []
    else:
        assert [answer.body for answer in more] == [b"/after"]
    later = [(path, headers) for path, headers in echo.seen[1:]]
    assert all(path == "/after" and set(headers) == {"host", "connection"} for path, headers in later)


@pytest.mark.parametrize("sent", OTHER_VERSIONS.values(), ids=OTHER_VERSIONS)
def test_other_versions(port: int, echo: Echo, sent: bytes) -> None:
    """Refused, in a version that the client may know."""
    echo.seen.clear()
    with connect(port) as connection:
        connection.sendall(sent)
        (answer,) = answers(until_closed(connection))
    assert (answer.status, echo.seen) == (505, [])


@pytest.mark.parametrize("sent", [*(sent for sent, _ in MALFORMED.values()), *WELL_FORMED.values()])
def test_split_anywhere(port: int, echo: Echo, sent: bytes) -> None:
    """The same when it comes in pieces: nothing is taken for a request that is none."""
    echo.seen.clear()
    for size in (1, 7, 64):
        pieces = sent[:512]
        with connect(port) as connection:
            try:
                for start in range(0, len(pieces), size):
                    connection.sendall(pieces[start : start + size])
                connection.sendall(sent[512:] + AFTER)
            except ConnectionError:
                pass
            answers(until_closed(connection))
    assert all(path != "/smuggled" for path, _ in echo.seen)


@pytest.fixture(scope="module")
def inference_port() -> Iterator[int]:
    with serving(demo.repository()) as server:
        assert server.rest is not None, "HTTP is on"
        yield int(server.rest.rpartition(":")[2])


@pytest.mark.parametrize(("sent", "status"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_inference(inference_port: int, sent: bytes, status: int) -> None:
    """The same of a whole server, in JSON."""
    sent = sent.replace(b"POST /x ", b"POST /v2/models/digits/infer ")
    with connect(inference_port) as connection:
        connection.sendall(sent + AFTER)
        (answer,) = answers(until_closed(connection))
    assert answer.status == status
    assert answer.headers["content-type"].startswith("application/json")
    assert json.loads(answer.body)["error"]


@pytest.mark.parametrize("sent", WELL_FORMED.values(), ids=WELL_FORMED)
def test_well_formed_inference(inference_port: int, sent: bytes) -> None:
    """Each answer is that to its request: 404 to what comes last, unless the connection was closed before."""
    sent = sent.replace(b"POST /x ", b"POST /v2/models/digits/infer ")
    with connect(inference_port) as connection:
        connection.sendall(sent + AFTER)
        first, *more = answers(until_closed(connection))
    assert first.status in {400, 404, 405}
    assert [answer.status for answer in more] == ([] if first.headers.get("connection") == "close" else [404])
