"""Writes answers in one step, as most of them differ from others in their body only."""

import base64
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPMethod

from aiohttp import HttpVersion10, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from inferd.http.connections import Connection
from inferd.http.exchange import Exchange
from inferd.http.messages import Parts
from inferd.http.status import Answer
from inferd.rpc.core import CheckedMetadata

#: Larger bodies are not copied to go out with their head in one packet.
_MAX_JOINED_BYTES = 128 * 1024
#: What is given to the transport at a time.
_SLICE_BYTES = 256 * 1024


class ExchangeResponse(web.StreamResponse):
    """The answer of an exchange. ``written`` is called when the client's system has nearly all of it, or is gone.

    aiohttp's own responses take twice as long as a whole inference.
    """

    def __init__(self, exchange: Exchange, answer: Answer, written: Callable[[Exchange], None]) -> None:
        # Not that of the class, which makes what is of no use here.
        self._exchange = exchange
        self._answer = answer
        self._written = written
        self._status = answer.status
        self._more: CIMultiDict[str] | None = None
        self._request: web.BaseRequest | None = None

    @property
    def headers(self) -> "CIMultiDict[str]":
        """More headers to send."""
        if self._more is None:
            self._more = CIMultiDict()
        return self._more

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Take note of what the request needs to know of its answer."""
        self._request = request
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        return None

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002  of the class
        """Send the answer; wait until most of it has left, if the client reads slowly."""
        request = self._request
        assert request is not None, "prepared"
        try:
            transport = request.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client is gone")
            head, body, rest = self._head(request), self._answer.body, self._answer.rest
            if request.method == HTTPMethod.HEAD:
                transport.write(head)
            elif len(body) <= _MAX_JOINED_BYTES:
                transport.write(head + body)
            else:
                transport.write(head)
                rest = (body, *rest)
            request.writer.output_size += len(head)
            if rest and request.method != HTTPMethod.HEAD:
                assert isinstance(request.protocol, Connection), "made by HttpServer"
                await send_parts(request.protocol, rest)
            elif request.protocol.writing_paused:
                await request.writer.drain()
        finally:
            self._eof_sent = True
            self._request = None
            self._written(self._exchange)
            # aiohttp keeps this until the next request of the connection.
            del self._exchange, self._answer

    def _head(self, request: web.BaseRequest) -> bytes:
        pieces = [self._answer.head, _date(int(time.time()))]
        if not self._keep_alive:
            pieces.append(b"Connection: close\r\n")
        elif request.version == HttpVersion10:
            pieces.append(b"Connection: keep-alive\r\n")
        if self._exchange.added:
            pieces.append(_lines(self._exchange.added))
        if self._more is not None:
            pieces += [f"{name}: {value}\r\n".encode("latin-1") for name, value in self._more.items()]
        pieces.append(b"\r\n")
        return b"".join(pieces)


async def send_parts(connection: Connection, parts: Parts) -> None:
    """Write ``parts`` as the client reads them. Raises ConnectionError if it is gone.

    In slices, because the transport copies what it cannot send at once.
    """
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(view), _SLICE_BYTES):
            transport = connection.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client is gone")
            written = view[start : start + _SLICE_BYTES]
            transport.write(written)
            connection.written_bytes += len(written)
            if connection.writing_paused:
                await connection.drain()


def encoded(answer: Answer, added: CheckedMetadata, *, is_last: bool) -> bytes:
    """Return an answer of HTTP/1.1, but for its ``rest``."""
    close = b"Connection: close\r\n" if is_last else b""
    return b"".join(
        (answer.head, _date(int(time.time())), close, _lines(added) if added else b"", b"\r\n", answer.body)
    )


@lru_cache(maxsize=2)
def _date(epoch_s: int) -> bytes:
    return f"Date: {formatdate(epoch_s, usegmt=True)}\r\n".encode()


def _lines(metadata: CheckedMetadata) -> bytes:
    """Return metadata as headers; what is not text in base64."""
    lines = []
    for key, value in metadata or ():
        name = key if isinstance(key, bytes) else key.encode()
        text = value if isinstance(value, bytes) else value.encode("latin-1")
        if name.endswith(b"-bin"):
            text = base64.b64encode(text)
        lines.append(b"%b: %b\r\n" % (name, text))
    return b"".join(lines)
