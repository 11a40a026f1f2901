"""Writes log lines in a thread of its own, so that no request waits for a pipe or a disk."""

import atexit
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

#: What there is to be written: first what makes lines of several such records, then whatever that needs.
Record = tuple[Any, ...]
Renderer = Callable[[Sequence[Record]], bytes]

_renderer = itemgetter(0)

_LINES_PER_WRITE = 1000


def join(records: Sequence[Record]) -> bytes:
    """Make lines of records that consist of this and a whole line each."""
    return b"".join([line for _, line in records])


class LineWriter:
    """Takes records from any thread and writes them as lines, in the order in which they were taken.

    Records are rendered in the writing thread, many of a kind in one go: what is done over and over is done several
    times faster than when each line is made between other things. At most ``max_lines`` wait, or one more for each
    thread that submits at that moment, and one write's worth is on its way; when the reader of the log does not keep
    up, further lines are dropped and counted, and so are lines that cannot be rendered or written.

    Invariants: whenever lines wait and the writer is not closed, ``_awake`` and the event are set or about to be, by
    whoever brought the first of them. So only that one pays for waking the thread, which then lets others gather for
    ``gather_s``. Taking a record needs no lock, because a deque does each of its steps in one piece: the thread lies
    down first and looks for lines once more after that. Once ``_closed`` nothing waits any more and lines are written
    by whoever logs. The lock guards ``dropped``, and keeps those writers in their order.
    """

    def __init__(self, write: Callable[[bytes], object], *, max_lines: int = 100_000, gather_s: float = 0.01) -> None:
        self._write = write
        self._max_lines = max_lines
        self._gather_s = gather_s
        self._lines: deque[Record] = deque()
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

    def submit(self, record: Record) -> None:
        """Have ``record`` written soon. Never waits, never raises."""
        if len(self._lines) >= self._max_lines:
            self._drop(1)
            return
        self._lines.append(record)
        if not self._awake:
            self._rouse()

    def _rouse(self) -> None:
        self._awake = True
        self._wake.set()
        if self._closed:
            # In this order: whoever saw it set has brought its record before, and so this writes it.
            self._awake = False
            self._write_all()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._stopping.wait(self._gather_s)
            # What arrives meanwhile gathers for the next round, unless it fills a write by itself.
            while len(lines := self._take()) == _LINES_PER_WRITE:
                self._write_lines(lines)
            if lines:
                self._write_lines(lines)
            else:
                self._lie_down()
        self._write_all()

    def _lie_down(self) -> None:
        self._closed = self._stopping.is_set()
        self._awake = False
        self._wake.clear()
        if self._lines and not self._closed:
            self._rouse()

    def _write_all(self) -> None:
        with self._lock:
            while lines := self._take():
                self._write_lines(lines)

    def _take(self) -> list[Record]:
        """Take what is to be written next; by one thread at a time."""
        return [self._lines.popleft() for _ in range(min(len(self._lines), _LINES_PER_WRITE))]

    def _write_lines(self, waiting: list[Record]) -> None:
        rendered: list[bytes] = []
        lost = 0
        for render, of_a_kind in groupby(waiting, _renderer):
            records = list(of_a_kind)
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
            self._drop(lost)

    def _drop(self, lines: int) -> None:
        with self._lock:
            self._dropped += lines


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
