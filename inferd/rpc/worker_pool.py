"""Threads for code that may block."""

import logging
import queue
import threading
import time
from collections.abc import Callable

_log = logging.getLogger("inferd.rpc")

Work = Callable[[], None]


class WorkerPool:
    """A fixed number of daemon threads, so that a handler that never returns does not keep the process from exiting.

    Threads: ``submit`` any, also after ``stop``; ``start`` and ``stop`` once each, one after the other.
    """

    def __init__(self, name: str, *, threads: int, max_waiting: int | None = None) -> None:
        self._max_waiting = max_waiting
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work) -> bool:
        """Have ``work`` done by some thread. Returns False if too much waits already."""
        if self._max_waiting is not None and self._work.qsize() >= self._max_waiting:
            return False
        self._work.put(work)
        return True

    def stop(self, timeout_s: float) -> bool:
        """Finish what was submitted and end the threads. Returns False if some are still at work after the timeout."""
        for _ in self._threads:
            self._work.put(None)
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except BaseException:  # noqa: BLE001  the thread goes on, and has no one to tell
                _log.exception("a call's work failed in a pool thread")
            # A call that was served must not live until the next one comes.
            del work
