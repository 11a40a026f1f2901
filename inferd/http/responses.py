"""Write answers: in one step, as most differ from others only in their body, or in parts as they come."""

import asyncio
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
from inferd.http.status import STREAM_STATUS, Answer
from inferd.http.streaming import CHUNKED, Frame, StreamedAnswer, StreamWriter, in_chunks, omitted, unframed
from inferd.rpc.core import CheckedMetadata

#: Larger bodies are not copied to go out with their head in one packet.
_MAX_JOINED_BYTES = 128 * 1024
#: Bytes given to the transport at a time.
_SLICE_BYTES = 256 * 1024


class ExchangeResponse(web.StreamResponse):
    """The answer of an exchange, written in one step: aiohttp's own responses take twice as long as an inference.

    ``written`` is called when the client's system has received nearly all of it, or is gone.
    """

    def __init__(self, exchange: Exchange, answer: Answer, written: Callable[[Exchange], None]) -> None:
        # Without super(), which builds headers that are not used here.
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
        """Keep the request, and decide if the connection is used again."""
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
        if self._exchange.trailing:
            pieces.append(_lines(self._exchange.trailing))
        if self._more is not None:
            pieces += [f"{name}: {value}\r\n".encode("latin-1") for name, value in self._more.items()]
        pieces.append(b"\r\n")
        return b"".join(pieces)


class StreamedResponse(ExchangeResponse):
    """The streamed answer of an exchange; ``ended`` is called as ``written`` of `ExchangeResponse`.

    HTTP/1.0 has no chunks: there the answer ends with its connection.
    """

    def __init__(
        self,
        exchange: Exchange,
        stream: StreamedAnswer,
        request: web.BaseRequest,
        ended: Callable[[Exchange], None],
        submit: Callable[[Callable[[], None]], None],
    ) -> None:
        self._stream = stream
        self._submit = submit
        self._is_chunked = request.version != HttpVersion10
        head = stream.head + CHUNKED if self._is_chunked else stream.head
        super().__init__(exchange, Answer(STREAM_STATUS, head, b""), ended)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """See `ExchangeResponse.prepare`."""
        if not self._is_chunked and request.method != HTTPMethod.HEAD:
            self.force_close()
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002  of the class
        """Send the parts as they come and as the client reads them, up to the end."""
        request = self._request
        assert request is not None, "prepared"
        try:
            transport = request.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client is gone")
            await self._write(request)
        finally:
            self._eof_sent = True
            self._request = None
            self._written(self._exchange)
            # aiohttp keeps this until the next request of the connection.
            del self._exchange, self._answer, self._stream, self._submit

    async def _write(self, request: web.BaseRequest) -> None:
        connection = request.protocol
        assert isinstance(connection, Connection), "made by HttpServer"
        frame: Frame = in_chunks if self._is_chunked else unframed
        if request.method == HTTPMethod.HEAD:
            frame = omitted
        head = self._head(request)
        # From here on, aiohttp must not answer with an error.
        request.writer.output_size += len(head)
        done = asyncio.get_running_loop().create_future()
        writer = StreamWriter(connection, self._stream, head, self._submit, lambda: done.set_result(None), frame=frame)
        self._exchange.writer = writer
        writer.pump()
        await done


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


def answer_bytes(answer: Answer, trailing: CheckedMetadata, *, is_last: bool) -> bytes:
    """Encode an answer of HTTP/1.1, without its ``rest``."""
    close = b"Connection: close\r\n" if is_last else b""
    return b"".join(
        (answer.head, _date(int(time.time())), close, _lines(trailing) if trailing else b"", b"\r\n", answer.body)
    )


@lru_cache(maxsize=2)
def _date(epoch_s: int) -> bytes:
    return f"Date: {formatdate(epoch_s, usegmt=True)}\r\n".encode()


def _lines(metadata: CheckedMetadata) -> bytes:
    """Encode metadata as headers; binary values in base64."""
    lines = []
    for key, value in metadata or ():
        name = key if isinstance(key, bytes) else key.encode()
        text = value if isinstance(value, bytes) else value.encode("latin-1")
        if name.endswith(b"-bin"):
            text = base64.b64encode(text)
        lines.append(b"%b: %b\r\n" % (name, text))
    return b"".join(lines)
