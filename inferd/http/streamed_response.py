"""The answer of an exchange that is sent bit by bit, as aiohttp's task for the request writes it."""

import asyncio
from collections.abc import Callable
from http import HTTPMethod

from aiohttp import HttpVersion10, web
from aiohttp.abc import AbstractStreamWriter

from inferd.http.connections import Connection
from inferd.http.exchange import Exchange
from inferd.http.responses import ExchangeResponse
from inferd.http.status import STREAM_STATUS, Answer
from inferd.http.stream_writer import CHUNKED, Frame, StreamWriter, as_it_is, in_chunks, nothing
from inferd.http.streamed_answer import StreamedAnswer

Work = Callable[[], None]


class StreamedResponse(ExchangeResponse):
    """The stream of an exchange. ``ended`` is called when the client has nearly all of it, or is gone.

    A client of HTTP/1.0 knows no chunks: there the end of the connection is that of the answer.
    """

    def __init__(
        self,
        exchange: Exchange,
        stream: StreamedAnswer,
        request: web.BaseRequest,
        ended: Callable[[Exchange], None],
        submit: Callable[[Work], None],
    ) -> None:
        self._stream = stream
        self._submit = submit
        self._is_chunked = request.version != HttpVersion10
        head = stream.head + CHUNKED if self._is_chunked else stream.head
        super().__init__(exchange, Answer(STREAM_STATUS, head, b""), ended)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """See the base."""
        if not self._is_chunked and request.method != HTTPMethod.HEAD:
            self.force_close()
        return await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002  of the class
        """Send what comes, as far as the client reads it, up to the end."""
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
        frame: Frame = in_chunks if self._is_chunked else as_it_is
        if request.method == HTTPMethod.HEAD:
            frame = nothing
        head = self._head(request)
        # From here on, aiohttp must not answer with an error.
        request.writer.output_size += len(head)
        done = asyncio.get_running_loop().create_future()
        writer = StreamWriter(connection, self._stream, head, self._submit, lambda: done.set_result(None), frame=frame)
        self._exchange.writer = writer
        writer.pump()
        await done
