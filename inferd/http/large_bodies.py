"""Large bodies whose length is known: the system writes them where they stay, past aiohttp's parser.

The parser copies what comes of a body in pieces, which would be copied again to become one body, with a wake-up for
each. That took a third of the processor time of a request of 600 KB (docs/decisions/http-large-bodies.md).
"""

import asyncio
import ctypes

from aiohttp import StreamReader, web
from aiohttp.http import HttpRequestParser

from inferd.http.connections import Connection

#: The memory of a body before any of it has come; its client may not send the rest.
_FIRST_BYTES = 1024 * 1024
#: What is read at a time of a body that nobody waits for any more.
_DROPPED_BYTES = 64 * 1024

#: Resizes a bytearray and, unlike Python's own means, does not clear what is added: that takes up to 80 µs for 600 KB.
_resize = ctypes.pythonapi.PyByteArray_Resize
_resize.argtypes = [ctypes.py_object, ctypes.c_ssize_t]


class LargeBodyConnection(Connection):
    """A connection that can receive the rest of a body past its parser."""

    __slots__ = ()

    async def read_large(self, content: StreamReader, length: int) -> bytearray:
        """Return the body ``content``, which has ``length`` bytes; raise what is set on it."""
        body = _Body(self, content, length)
        try:
            # Reading lets the parser continue with what it has kept, until it has nothing of the body any more.
            while piece := content.read_nowait():
                body.add(piece)
            if not content.is_eof() and self._wire is not None:
                self._wire.set_protocol(body)
            # Nothing comes there now but the end.
            await content.readany()
            return body.data
        finally:
            # The transport may keep the protocol.
            body.data = bytearray()

    def count_received(self, size: int) -> None:
        """Take note of bytes of the body."""
        self._incoming.received += size
        self._pause_for_more()

    def end_of_body(self) -> None:
        """Receive the next request: by another parser, as this one still waits for the body."""
        self._incoming.before = 0
        self._incoming.may_hold_part = False
        if self._wire is not None:
            self._wire.set_protocol(self)
        self._parser = HttpRequestParser(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_headers=self.max_headers,
            max_field_size=self.max_field_size,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=self._max_msg_queue_size,
        )


class _Body(asyncio.BufferedProtocol):
    """A body, in the place of its ``connection`` at the transport until it is complete; takes nothing beyond its end.

    What comes after an exception is set on ``stream`` is dropped.
    """

    def __init__(self, connection: LargeBodyConnection, stream: StreamReader, length: int) -> None:
        self._connection = connection
        self._stream = stream
        self._left = length
        self._size = 0
        #: Its beginning, and room for more.
        self.data = bytearray()

    def add(self, piece: bytes) -> None:
        """Add what the parser has received."""
        rest = memoryview(piece)
        while rest:
            with self.get_buffer(len(rest)) as room:
                part = rest[: len(room)]
                room[: len(part)] = part
            self._size += len(part)
            self._left -= len(part)
            rest = rest[len(part) :]

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (of the class)
        """Return where the next bytes go."""
        if self._stream.exception() is not None:
            return memoryview(bytearray(min(self._left, _DROPPED_BYTES)))
        if self._size == len(self.data):
            _resize(self.data, self._size + min(self._left, max(self._size, _FIRST_BYTES)))
        return memoryview(self.data)[self._size :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take note of what has come."""
        self._size += nbytes
        self._left -= nbytes
        self._connection.count_received(nbytes)
        if not self._left:
            self._connection.end_of_body()
            self._stream.feed_eof()

    def pause_writing(self) -> None:
        """Tell the connection, as the other methods of the transport do."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """See `pause_writing`."""
        self._connection.resume_writing()

    def eof_received(self) -> None:
        """See `pause_writing`."""
        self._connection.eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `pause_writing`."""
        self._connection.connection_lost(exc)
