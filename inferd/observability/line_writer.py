"""Writes log lines in a thread of its own, so that no request waits for a pipe or a disk."""

import atexit
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

T = TypeVar("T")

#: A record, and in front of it what makes lines of such records.
_Waiting = tuple[Callable[[Sequence[Any]], bytes], Any]
_kind = itemgetter(0)

_LINES_PER_WRITE = 1000


class LineWriter:
    """Takes records from any thread and writes them as lines, in the order in which they were taken.

    Records are rendered in the writing thread, many of a kind in one go: what is done over and over is done several
    times faster than when each line is made between other things. At most ``max_lines`` wait, and one write's worth is
    on its way; when the reader of the log does not keep up, further lines are dropped and counted, and so are lines
    that cannot be rendered or written.

    Invariants: the lock guards the queue, its bound, ``dropped`` and ``_closed``, and is never held while rendering or
    writing. ``_awake`` is set, and the event with it, whenever lines wait, so only the first of many pays for waking
    the thread, which then lets others gather for ``gather_s``. Once ``_closed`` nothing waits any more and lines are
    written by whoever logs.
    """

    def __init__(self, write: Callable[[bytes], object], *, max_lines: int = 100_000, gather_s: float = 0.01) -> None:
        self._write = write
        self._max_lines = max_lines
        self._gather_s = gather_s
        self._lines: deque[_Waiting] = deque()
        # Reentrant, because a finalizer that runs at any allocation in here may log.
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._awake = False
        self._stopping = threading.Event()
        self._closed = False
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

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
        if self._thread.ident is None:
            self.start()
        atexit.unregister(self.stop)
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def submit(self, render: Callable[[Sequence[T]], bytes], record: T) -> None:
        """Have ``render``, which makes lines of several records, write ``record`` soon. Never waits, never raises."""
        with self._lock:
            if not self._closed:
                if len(self._lines) >= self._max_lines:
                    self._dropped += 1
                    return
                self._lines.append((render, record))
                if not self._awake:
                    self._awake = True
                    self._wake.set()
                return
        self._write_lines([(render, record)])

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._stopping.wait(self._gather_s)
            # What arrives meanwhile gathers for the next round, unless it fills a write by itself.
            while len(lines := self._take()) == _LINES_PER_WRITE:
                self._write_lines(lines)
            if lines:
                self._write_lines(lines)

    def _take(self) -> list[_Waiting]:
        with self._lock:
            if not self._lines:
                self._closed = self._stopping.is_set()
                self._awake = False
                self._wake.clear()
            return [self._lines.popleft() for _ in range(min(len(self._lines), _LINES_PER_WRITE))]

    def _write_lines(self, waiting: list[_Waiting]) -> None:
        rendered: list[bytes] = []
        lost = 0
        for render, of_a_kind in groupby(waiting, _kind):
            records = [record for _, record in of_a_kind]
            try:
                rendered.append(render(records))
            except Exception:  # noqa: BLE001 (records that cannot be rendered must not end the log)
                lost += len(records)
        try:
            self._write(b"".join(rendered))
        except (OSError, ValueError):
            # The reader went away. There is nobody left to tell, and serving goes on.
            lost = len(waiting)
        if lost:
            with self._lock:
                self._dropped += lost


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
