"""Answers that are sent in parts: their way from the poll thread to the connection, and writing them there."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress

from inferd.http.connections import Connection
from inferd.http.messages import Headers
from inferd.http.status import head_of_stream

#: With more unsent bytes, the sender should join its parts.
_BACKLOG_BYTES = 16 * 1024

#: Makes the last part of a failed answer from the body that the error would have as an answer of its own.
ErrorPart = Callable[[bytes], bytes]

#: The header of an answer in chunks.
CHUNKED = b"Transfer-Encoding: chunked\r\n"

#: Encodes a part; the flag is True for the last one.
Frame = Callable[[bytes, bool], bytes]

_LAST_CHUNK = b"0\r\n\r\n"


class StreamedAnswer:
    """The parts of one answer on their way from the poll thread to the connection.

    Invariants: parts are taken in the order in which they were put, none after the end. The first part after `take`
    requires the connection to be woken, which then takes all parts.

    Threads: ``put`` and ``on_next_take`` the poll thread, ``end`` any, ``take`` the http thread.
    """

    __slots__ = (
        "_is_due",
        "_lock",
        "_on_taken",
        "_parts",
        "error_part",
        "head",
        "is_over",
        "sent_bytes",
        "sent_parts",
        "waiting_bytes",
    )

    def __init__(self, headers: Headers, error_part: ErrorPart) -> None:
        """Raises ValueError for headers that are not one line of Latin-1."""
        self.head = head_of_stream(tuple(headers))
        self.error_part = error_part
        self.is_over = False
        #: Put so far.
        self.sent_parts = 0
        self.sent_bytes = 0
        #: Not taken so far, as the client does not read.
        self.waiting_bytes = 0
        self._parts: list[bytes] = []
        self._is_due = False
        self._on_taken: Callable[[], None] | None = None
        self._lock = threading.Lock()

    @property
    def is_backed_up(self) -> bool:
        """True if the sender should join further parts; any thread."""
        return self.waiting_bytes > _BACKLOG_BYTES

    def put(self, part: bytes) -> bool:
        """Send ``part`` after those before it. Returns True if the connection must be woken."""
        with self._lock:
            return not self.is_over and self._add(part)

    def end(self, part: bytes) -> bool:
        """Send ``part``, which may be empty, as the last one. Returns True if the connection must be woken."""
        with self._lock:
            if self.is_over:
                return False
            self.is_over = True
            self._on_taken = None
            return self._add(part)

    def on_next_take(self, callback: Callable[[], None]) -> bool:
        """Let the next `take` return ``callback``, instead of an earlier one. Returns False if nothing waits."""
        with self._lock:
            if not self._parts or self.is_over:
                return False
            self._on_taken = callback
            return True

    def take(self) -> tuple[bytes, bool, Callable[[], None] | None]:
        """Return the parts that wait, True at the end, and the callback of `on_next_take` for the poll thread."""
        with self._lock:
            parts, self._parts = self._parts, []
            callback, self._on_taken = self._on_taken, None
            self.waiting_bytes = 0
            self._is_due = False
            return b"".join(parts), self.is_over, callback

    def _add(self, part: bytes) -> bool:
        if part:
            self._parts.append(part)
            self.sent_parts += 1
            self.sent_bytes += len(part)
            self.waiting_bytes += len(part)
        was_due, self._is_due = self._is_due, True
        return not was_due


class StreamWriter:
    """Writes one streamed answer, in the thread of its connection.

    ``head`` is sent with the first part. ``submit`` runs a callback on the poll thread. ``done`` is called once all is
    written and the client has read nearly all of it; never if the client disconnects before.
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
        #: The end is written; ``done`` was called.
        self._is_ended = False
        self._is_done = False
        #: Waits until the client has read more.
        self._draining: asyncio.Task[None] | None = None

    def pump(self) -> None:
        """Write the parts that wait; while the client is slow to read, they are collected."""
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


def unframed(part: bytes, _is_last: bool) -> bytes:
    """Return ``part`` of a body that ends with its connection."""
    return part


def omitted(_part: bytes, _is_last: bool) -> bytes:
    """Return nothing: the request is HEAD."""
    return b""
