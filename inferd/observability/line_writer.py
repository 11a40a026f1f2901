"""Writes log lines in a thread of its own, so that no request waits for a pipe or a disk."""

import atexit
import os
import select
import threading
from collections import deque
from collections.abc import Callable

from inferd.observability.gathering import GatheringThread

_LINES_PER_WRITE = 1000


class LineWriter:
    """Takes lines from any thread and writes them in the order in which they were taken.

    At most ``max_lines`` wait, and one write's worth is on its way; when the reader of the log does not keep up,
    further lines are dropped and counted, and so are lines that cannot be written.

    Invariants: the lock guards what waits, its bound, ``dropped`` and ``_closed``, and is never held while the thread
    writes. Once ``_closed`` nothing waits any more and lines are written by whoever logs.
    """

    def __init__(self, write: Callable[[bytes], object], *, max_lines: int = 100_000, gather_s: float = 0.03) -> None:
        self._write = write
        self._max_lines = max_lines
        #: Whole lines, and how many.
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._waiting_lines = 0
        # Reentrant, because a finalizer that runs at any allocation in here may log.
        self._lock = threading.RLock()
        self._thread = GatheringThread("log-writer", self._write_waiting, gather_s=gather_s)
        self._closed = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Lines that were never written."""
        return self._dropped

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
            if not self._closed:
                if self._waiting_lines + count > self._max_lines:
                    self._dropped += count
                    return
                self._waiting.append((lines, count))
                self._waiting_lines += count
                if not self._thread.is_awake:
                    self._thread.rouse()
                return
        self._write_lines([lines], count)

    def _write_waiting(self) -> bool:
        """Write what waits; returns whether there was anything."""
        found = False
        while taken := self._take():
            self._write_lines(*taken)
            found = True
        return found

    def _take(self) -> tuple[list[bytes], int] | None:
        """Take what is to be written next."""
        lines: list[bytes] = []
        total = 0
        with self._lock:
            while self._waiting and total < _LINES_PER_WRITE:
                some, count = self._waiting.popleft()
                lines.append(some)
                total += count
            self._waiting_lines -= total
        return (lines, total) if lines else None

    def _write_lines(self, lines: list[bytes], count: int) -> None:
        try:
            self._write(b"".join(lines))
        except (OSError, ValueError):
            # The reader went away. There is nobody left to tell, and serving goes on.
            with self._lock:
                self._dropped += count


def write_to(descriptor: int) -> Callable[[bytes], None]:
    """Return what writes all of its bytes to ``descriptor``, unbuffered: nothing is left to fail at exit."""

    def write(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                # Standard output may be shared with a program that made it non-blocking.
                select.select([], [descriptor], [])

    return write
