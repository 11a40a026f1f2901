"""Answers that are sent bit by bit: what is on its way from the poll thread to the client's connection."""

import threading
from collections.abc import Callable

from inferd.http.messages import Headers
from inferd.http.status import head_of_stream

#: Above that, the sender is asked to put its parts together.
_BACKLOG_BYTES = 16 * 1024

#: Makes the last part of an answer that ends with an error, of the body that the error would have as an answer.
ErrorPart = Callable[[bytes], bytes]


class StreamedAnswer:
    """The parts of one answer.

    Invariants: parts are taken in the order in which they came, and none comes after the end. Who puts something
    when nothing is due wakes the connection, which takes all that is due by then.

    Threads: ``put`` and ``when_taken`` the poll thread, ``end`` any, ``take`` the http thread.
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
        #: What was put so far.
        self.sent_parts = 0
        self.sent_bytes = 0
        #: What the connection has not taken, as its client does not read.
        self.waiting_bytes = 0
        self._parts: list[bytes] = []
        self._is_due = False
        self._on_taken: Callable[[], None] | None = None
        self._lock = threading.Lock()

    @property
    def is_backed_up(self) -> bool:
        """Whether so much waits that more is to be put together; any thread."""
        return self.waiting_bytes > _BACKLOG_BYTES

    def put(self, part: bytes) -> bool:
        """Send ``part`` after those before it. Returns whether the connection is to be woken."""
        with self._lock:
            return not self.is_over and self._add(part)

    def end(self, part: bytes) -> bool:
        """Send ``part``, which may be empty, as the last one. Returns whether the connection is to be woken."""
        with self._lock:
            if self.is_over:
                return False
            self.is_over = True
            self._on_taken = None
            return self._add(part)

    def when_taken(self, callback: Callable[[], None]) -> bool:
        """Let `take` return ``callback`` once; in place of an earlier one. Returns False if nothing waits."""
        with self._lock:
            if not self._parts or self.is_over:
                return False
            self._on_taken = callback
            return True

    def take(self) -> tuple[bytes, bool, Callable[[], None] | None]:
        """Return all that waits, whether that is the end, and what is to be called on the poll thread."""
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
