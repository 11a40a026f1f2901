"""Writes log lines in a thread of its own, so that no request waits for a pipe or a disk."""

import atexit
import os
import select
import threading
from collections import deque
from collections.abc import Callable

from inferd.observability.coalescing_thread import GatheringThread

_LINES_PER_WRITE = 1000


class LineWriter:
    """Takes lines from any thread and writes them in the order in which they were taken.

    At most ``max_lines`` wait, and one write's worth is on its way; when the reader of the log does not keep up,
    further lines are dropped and counted, and so are lines that cannot be written. ``write`` takes bytes as `os.write`
    does: it returns how many it took, which may be fewer, or raises. A line of which it took a part is not lost: the
    rest goes in front of what is written next, so that only whole lines follow one another.

    Invariants: the lock guards what waits, its bound, ``dropped`` and ``_closed``, and is never held while the thread
    writes. One thread writes at a time, under ``_writing``. Once ``_closed`` lines are written by whoever logs.
    """

    def __init__(self, write: Callable[[memoryview], int], *, max_lines: int = 100_000, gather_s: float = 0.03) -> None:
        self._write = write
        self._max_lines = max_lines
        #: Whole lines, and how many.
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._waiting_lines = 0
        # Reentrant, because a finalizer that runs at any allocation in here may log.
        self._lock = threading.RLock()
        self._writing = threading.RLock()
        self._is_writing = False
        #: What is missing of a line of which a part was written.
        self._rest_of_line = b""
        self._thread = GatheringThread("log-writer", self._write_waiting, gather_s=gather_s)
        self._closed = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Lines that were never written, or not to their end."""
        return self._dropped + bool(self._closed and self._rest_of_line)

    def start(self) -> None:
        """Begin to write; lines submitted before wait for this. A process that just ends still writes them."""
        atexit.register(self.stop)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Write what waits, and end the thread. Returns False if that took longer than the timeout."""
        if not self._thread.has_started:
            self.start()
        atexit.unregister(self.stop)
        if not self._thread.stop(timeout_s):
            return False
        with self._lock:
            self._closed = True
        # What came when the thread had ended already.
        self._write_waiting()
        return True

    def submit(self, lines: bytes) -> None:
        """Have one or more whole lines written soon. Never waits, never raises."""
        count = lines.count(b"\n")
        with self._lock:
            if self._waiting_lines + count > self._max_lines:
                self._dropped += count
                return
            self._waiting.append((lines, count))
            self._waiting_lines += count
            if not self._closed:
                if not self._thread.is_awake:
                    self._thread.rouse()
                return
        self._write_waiting()

    def _write_waiting(self) -> bool:
        """Write what waits; returns whether there was anything."""
        found = False
        with self._writing:
            # Else a finalizer has logged in the middle of a write, and what it brought is written after that.
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
        """Take what is to be written next."""
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
        # Up to here it is for the line that was begun, and what comes after it is lost.
        end = (data.find(b"\n", written) + 1 or len(data)) if is_begun else written
        self._rest_of_line = data[written:end]
        self._lose(data.count(b"\n", end))
        if is_gone and self._rest_of_line:
            # Whoever reads next has not seen its beginning.
            self._rest_of_line = b""
            self._lose(1)

    def _write_all(self, data: bytes) -> tuple[int, bool]:
        """Return how many bytes were taken, and whether the reader went away."""
        rest = memoryview(data)
        is_gone = False
        try:
            while rest and (taken := self._write(rest)):
                rest = rest[taken:]
        except BrokenPipeError:
            is_gone = True
        except (OSError, ValueError):
            # The disk is full, or the descriptor closed. There is nobody left to tell, and serving goes on.
            pass
        return len(data) - len(rest), is_gone

    def _lose(self, lines: int) -> None:
        with self._lock:
            self._dropped += lines


def write_to(descriptor: int) -> Callable[[memoryview], int]:
    """Return what writes to ``descriptor``, unbuffered: nothing is left to fail at exit."""

    def write(data: memoryview) -> int:
        while True:
            try:
                return os.write(descriptor, data)
            except BlockingIOError:
                # Standard output may be shared with a program that made it non-blocking.
                select.select([], [descriptor], [])

    return write
