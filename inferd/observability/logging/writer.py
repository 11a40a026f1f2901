"""Write log lines in a background thread, so that no request waits for a pipe or a disk."""

import atexit
import os
import select
import threading
from collections import deque
from collections.abc import Callable

from inferd.observability.coalescing_thread import CoalescingThread

_LINES_PER_WRITE = 1000


class LineWriter:
    """A bounded queue of log lines and the thread that writes them, in order.

    At most ``max_lines`` are queued, besides one write in progress. When the reader of the log does not keep up,
    further lines are dropped and counted, and so are lines that cannot be written. ``write`` works like `os.write`: it
    returns how many bytes it accepted, which may be fewer, or raises. The rest of a partly written line precedes the
    next write, so the log has whole lines only.

    Invariants: the lock guards the queue, its size, ``dropped`` and ``_closed``, and is never held during a write. One
    thread writes at a time, under ``_writing``. Once ``_closed``, the thread that logs writes its line itself.
    """

    def __init__(self, write: Callable[[memoryview], int], *, max_lines: int = 100_000, delay_s: float = 0.03) -> None:
        self._write = write
        self._max_lines = max_lines
        #: Blocks of whole lines, and the number of lines in each.
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._waiting_lines = 0
        # Reentrant, because a finalizer that runs at any allocation in here may log.
        self._lock = threading.RLock()
        self._writing = threading.RLock()
        self._is_writing = False
        #: The unwritten rest of a partly written line.
        self._rest_of_line = b""
        self._thread = CoalescingThread("log-writer", self._write_waiting, delay_s=delay_s)
        self._closed = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Lines that were not written, or not completely."""
        return self._dropped + bool(self._closed and self._rest_of_line)

    def start(self) -> None:
        """Start writing, beginning with queued lines. What is queued when the process exits is written too."""
        atexit.register(self.stop)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Write queued lines, and end the thread. Returns False if that took longer than the timeout."""
        if not self._thread.has_started:
            self.start()
        atexit.unregister(self.stop)
        if not self._thread.stop(timeout_s):
            return False
        with self._lock:
            self._closed = True
        # Lines that were queued after the thread had ended.
        self._write_waiting()
        return True

    def submit(self, lines: bytes) -> None:
        """Queue one or more whole lines. Never blocks, never raises."""
        count = lines.count(b"\n")
        with self._lock:
            if self._waiting_lines + count > self._max_lines:
                self._dropped += count
                return
            self._waiting.append((lines, count))
            self._waiting_lines += count
            if not self._closed:
                if not self._thread.is_awake:
                    self._thread.wake()
                return
        self._write_waiting()

    def _write_waiting(self) -> bool:
        """Write queued lines; return whether there were any."""
        found = False
        with self._writing:
            # Otherwise a finalizer has logged during a write, and its line is written after that.
            if not self._is_writing:
                self._is_writing = True
                try:
                    while lines := self._take():
                        self._write_lines(lines)
                        found = True
                finally:
                    self._is_writing = False
        return found

    def _take(self) -> list[bytes]:
        """Dequeue the lines of the next write."""
        lines: list[bytes] = []
        total = 0
        with self._lock:
            while self._waiting and total < _LINES_PER_WRITE:
                some, count = self._waiting.popleft()
                lines.append(some)
                total += count
            self._waiting_lines -= total
        return lines

    def _write_lines(self, lines: list[bytes]) -> None:
        is_begun = bool(self._rest_of_line)
        data = b"".join((self._rest_of_line, *lines))
        written, is_gone = self._write_all(data)
        if written:
            is_begun = not data.endswith(b"\n", 0, written)
        # Keep the rest of the partly written line; the lines after it are dropped.
        end = (data.find(b"\n", written) + 1 or len(data)) if is_begun else written
        self._rest_of_line = data[written:end]
        self._lose(data.count(b"\n", end))
        if is_gone and self._rest_of_line:
            # The next reader has not seen its beginning.
            self._rest_of_line = b""
            self._lose(1)

    def _write_all(self, data: bytes) -> tuple[int, bool]:
        """Return how many bytes were written, and whether the reader is gone."""
        rest = memoryview(data)
        is_gone = False
        try:
            while rest and (taken := self._write(rest)):
                rest = rest[taken:]
        except BrokenPipeError:
            is_gone = True
        except (OSError, ValueError):
            # The disk is full, or the descriptor closed. It cannot be logged, and serving goes on.
            pass
        return len(data) - len(rest), is_gone

    def _lose(self, lines: int) -> None:
        with self._lock:
            self._dropped += lines


def write_to(descriptor: int) -> Callable[[memoryview], int]:
    """Return a function that writes to ``descriptor``, unbuffered: no flush can fail at exit."""

    def write(data: memoryview) -> int:
        while True:
            try:
                return os.write(descriptor, data)
            except BlockingIOError:
                # Standard output may be shared with a program that made it non-blocking.
                select.select([], [descriptor], [])

    return write
