"""A few requests over loopback, to test the installed aiohttp before a server relies on what is not documented of it.

That is how it reports malformed bodies, and that its parser is strict.
"""

import socket
import threading
from functools import cache

from aiohttp import web

from inferd.http.server import HttpServer

_TIMEOUT_S = 20.0
_POST = b"POST / HTTP/1.1\r\nHost: self-test\r\n"
_BODY = _POST + b"Content-Length: 5\r\n\r\nprobe"
_CHUNKS = _POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nprobe\r\n"

#: What is sent, in parts that arrive one after the other, and the statuses of the answers.
_CASES: tuple[tuple[tuple[bytes, ...], tuple[int, ...]], ...] = (
    ((_BODY + _BODY + _CHUNKS + b"0\r\n\r\n",), (200, 200, 200)),
    ((_CHUNKS, b"not a size\r\n"), (400,)),
    ((_POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",), (400,)),
    ((_POST + b"X: a\n\r\n",), (400,)),
)


class IncompatibleAiohttpError(RuntimeError):
    """The installed version of aiohttp does not behave as this package needs."""


@cache
def check_aiohttp() -> None:
    """Serve a few requests, once in a process unless it fails. Raises `IncompatibleAiohttpError`."""
    begun = threading.Event()

    async def echo(request: web.BaseRequest) -> web.Response:
        begun.set()
        return web.Response(body=await request.read())

    server = HttpServer("http-self-test", "127.0.0.1", 0, echo)
    server.start()
    try:
        for parts, expected in _CASES:
            found = _statuses(server, parts, begun)
            if found != expected:
                raise IncompatibleAiohttpError(f"aiohttp failed the self-test: expected {expected}, got {found}")
    except OSError as error:
        raise IncompatibleAiohttpError("aiohttp failed the self-test") from error
    finally:
        server.stop()


def _statuses(server: HttpServer, parts: tuple[bytes, ...], begun: threading.Event) -> tuple[int, ...]:
    """Return the statuses of the answers to what is sent, the second part when the request has ``begun``."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=_TIMEOUT_S) as connection:
        begun.clear()
        for index, part in enumerate(parts):
            if index:
                begun.wait(_TIMEOUT_S)
            connection.sendall(part)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    return tuple(int(answer[:3]) for answer in received.split(b"HTTP/1.1 ")[1:])
