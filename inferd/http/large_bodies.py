"""Receive large bodies of known length past aiohttp's parser: the system writes them where they stay.

The parser copies what comes of a body in pieces, which would be copied again to become one body, with a wake-up for
each. That took a third of the processor time of a request of 600 KB (docs/decisions/http-large-bodies.md).
"""

import asyncio
import ctypes

from aiohttp import StreamReader, web
from aiohttp.http import HttpRequestParser

from inferd.http.connections import Connection

#: Memory of a body at first; its client may not send the rest.
_FIRST_BYTES = 1024 * 1024
#: Bytes read at a time of a body that is dropped.
_DROPPED_BYTES = 64 * 1024

#: Resizes a bytearray and, unlike Python's own means, does not clear what is added: that takes up to 80 µs for 600 KB.
_resize = ctypes.pythonapi.PyByteArray_Resize
_resize.argtypes = [ctypes.py_object, ctypes.c_ssize_t]


class LargeBodyConnection(Connection):
    """A connection that can receive the rest of a body past its parser."""

    __slots__ = ()

    async def read_large(self, content: StreamReader, length: int) -> bytearray:
        """Return the body ``content``, which has ``length`` bytes. Raises the exception that is set on ``content``."""
        body = _Body(self, content, length)
        try:
            # Reading lets the parser continue with what it has kept, until it has nothing of the body any more.
            while piece := content.read_nowait():
                body.add(piece)
            if not content.is_eof() and self._open_transport is not None:
                self._open_transport.set_protocol(body)
            # Only the end of the body, or an exception, comes there now.
            await content.readany()
            return body.data
        finally:
            # The transport may keep the protocol.
            body.data = bytearray()

    def count_received(self, size: int) -> None:
        """Count bytes of the body."""
        self._incoming.received += size
        self._pause_for_more()

    def end_of_body(self) -> None:
        """Receive the next request, with a new parser: the old one still waits for the body."""
        self._incoming.before = 0
        self._incoming.may_hold_part = False
        if self._open_transport is not None:
            self._open_transport.set_protocol(self)
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
    """A body; the protocol of the transport, in place of its ``connection``, until it is complete.

    Reads nothing beyond the end of the body. After an exception is set on ``stream``, bytes are dropped.
    """

    def __init__(self, connection: LargeBodyConnection, stream: StreamReader, length: int) -> None:
        self._connection = connection
        self._stream = stream
        self._left = length
        self._size = 0
        #: The first ``_size`` bytes of the body, and room for more.
        self.data = bytearray()

    def add(self, piece: bytes) -> None:
        """Add bytes that the parser has received."""
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
        """Count the bytes that were received; end the body with the last one."""
        self._size += nbytes
        self._left -= nbytes
        self._connection.count_received(nbytes)
        if not self._left:
            self._connection.end_of_body()
            self._stream.feed_eof()

    def pause_writing(self) -> None:
        """Forward to the connection, as the methods below."""
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
