"""Writes answers that are sent bit by bit, as far as their clients read them."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from inferd.http.connections import Connection
from inferd.http.streamed_answer import StreamedAnswer

#: The header of an answer in chunks.
CHUNKED = b"Transfer-Encoding: chunked\r\n"

#: Makes what is written of a part, and of whether it is the last one.
Frame = Callable[[bytes, bool], bytes]

_LAST_CHUNK = b"0\r\n\r\n"


class StreamWriter:
    """Writes one streamed answer, in the thread of its connection.

    ``head`` goes out with the first part. ``submit`` does something on the poll thread. ``done`` is called once all is
    written and the client has read nearly all of it; never if the client goes away before.
    """

    __slots__ = (
        "_answer",
        "_connection",
        "_done",
        "_draining",
        "_frame",
        "_is_done",
        "_is_ended",
        "_prefix",
        "_submit",
    )

    def __init__(
        self,
        connection: Connection,
        answer: StreamedAnswer,
        head: bytes,
        submit: Callable[[Callable[[], None]], None],
        done: Callable[[], None],
        *,
        frame: Frame,
    ) -> None:
        self._connection = connection
        self._answer = answer
        self._prefix = head
        self._submit = submit
        self._done = done
        self._frame = frame
        #: Whether the end is written, and whether that was told.
        self._is_ended = False
        self._is_done = False
        #: While the client has to read more, before more is written.
        self._draining: asyncio.Task[None] | None = None

    def pump(self) -> None:
        """Write what waits, unless the client is slow to read: then that waits, and is put together."""
        transport = self._connection.transport
        if self._is_done or self._draining is not None or transport is None or transport.is_closing():
            return
        part, is_over, taken = self._answer.take()
        if taken is not None:
            self._submit(taken)
        if not self._is_ended:
            self._is_ended = is_over
            written = self._prefix + self._frame(part, is_over)
            self._prefix = b""
            if written:
                transport.write(written)
                self._connection.written_bytes += len(written)
        if self._connection.writing_paused:
            self._draining = asyncio.get_running_loop().create_task(self._drain())
        elif is_over:
            self._is_done = True
            self._done()

    async def _drain(self) -> None:
        with suppress(ConnectionError):
            await self._connection.drain()
            self._draining = None
            self.pump()


def in_chunks(part: bytes, is_last: bool) -> bytes:
    """Return ``part`` as a chunk of HTTP/1.1."""
    chunk = b"%x\r\n%b\r\n" % (len(part), part) if part else b""
    return chunk + _LAST_CHUNK if is_last else chunk


def as_it_is(part: bytes, _is_last: bool) -> bytes:
    """Return ``part``, of a body that ends with its connection."""
    return part


def nothing(_part: bytes, _is_last: bool) -> bytes:
    """Leave out a body of which only the head was asked for."""
    return b""
