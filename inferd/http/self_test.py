"""Test the installed aiohttp with a few requests over loopback, before a server relies on its internals.

These are how it reports malformed bodies, that its parser is strict, and the attributes for serving requests directly.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from functools import cache

import aiohttp
from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage

from inferd.http.direct import DirectConnection
from inferd.http.server import HttpServer

_TIMEOUT_S = 20.0
#: The versions that setup.cfg allows.
_TESTED = "3.14"

#: Undocumented attributes of aiohttp's classes that connections and answers use.
_PRIVATE = {
    web.RequestHandler: (
        "_close",
        "_drain_helper",
        "_keepalive",
        "_keepalive_handle",
        "_keepalive_timeout",
        "_loop",
        "_max_msg_queue_size",
        "_messages",
        "_next_keepalive_close_time",
        "_parser",
        "_process_keepalive",
        "_read_bufsize",
        "_waiter",
        "force_close",
        "handle_error",
        "log_access",
        "resume_reading",
        "writing_paused",
    ),
    web.StreamResponse: ("_eof_sent", "_keep_alive"),
}

_POST = b"POST / HTTP/1.1\r\nHost: self-test\r\n"
_BODY = _POST + b"Content-Length: 5\r\n\r\nprobe"
_CHUNKS = _POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nprobe\r\n"
_LAST = _CHUNKS + b"0\r\n\r\n"

#: Parts to send, each after the request in the previous one has begun; statuses of the answers; number of requests
#: that are served directly.
_CASES: tuple[tuple[tuple[bytes, ...], tuple[int, ...], int], ...] = (
    ((_BODY + _BODY + _LAST,), (200, 200, 200), 0),
    ((_BODY, _BODY, _LAST), (200, 200, 200), 2),
    ((_CHUNKS, b"not a size\r\n"), (400,), 0),
    ((_POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",), (400,), 0),
    ((_POST + b"X: a\n\r\n",), (400,), 0),
)


class IncompatibleAiohttpError(RuntimeError):
    """The installed version of aiohttp does not behave as this package needs."""

    def __init__(self, found: str) -> None:
        super().__init__(f"expected aiohttp {_TESTED}, with which this was tested; {aiohttp.__version__} {found}")


class _Probe:
    """Echoes bodies. ``begun`` is set when a request has begun."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.served_directly = 0

    async def handle(self, request: web.BaseRequest) -> web.Response:
        self.begun.set()
        return web.Response(body=await request.read())

    def serve_directly(self, connection: DirectConnection, _: RawRequestMessage, content: StreamReader) -> "_Probe":
        self.begun.set()
        self.served_directly += 1
        body = content.read_nowait()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        asyncio.get_running_loop().call_soon(lambda: connection.answer(answer, is_last=False))
        return self

    def written(self) -> None:
        """See `InProgress.written`."""

    def lost(self) -> None:
        """See `InProgress.lost`."""


@cache
def check_aiohttp() -> None:
    """Serve a few requests, once in a process unless it fails. Raises `IncompatibleAiohttpError`."""
    missing = ", ".join(_missing())
    if missing:
        raise IncompatibleAiohttpError(f"lacks {missing}")
    probe = _Probe()
    server = HttpServer("http-self-test", "127.0.0.1", 0, probe.handle, direct=probe.serve_directly)
    server.start()
    try:
        for parts, *expected in _CASES:
            probe.served_directly = 0
            found = [_statuses(server, parts, probe.begun), probe.served_directly]
            if found != expected:
                raise IncompatibleAiohttpError(f"failed the self-test: expected {expected}, got {found}")
    except OSError as error:
        raise IncompatibleAiohttpError(f"failed the self-test: {error}") from error
    finally:
        server.stop()


def _missing() -> Iterator[str]:
    """Yield the attributes that aiohttp's classes lack."""
    for owner, names in _PRIVATE.items():
        yield from (f"{owner.__name__}.{name}" for name in names if not hasattr(owner, name))


def _statuses(server: HttpServer, parts: tuple[bytes, ...], begun: threading.Event) -> tuple[int, ...]:
    """Send ``parts`` and return the statuses of the answers."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=_TIMEOUT_S) as connection:
        for index, part in enumerate(parts):
            if index:
                begun.wait(_TIMEOUT_S)
            begun.clear()
            connection.sendall(part)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    return tuple(int(answer[:3]) for answer in received.split(b"HTTP/1.1 ")[1:])
