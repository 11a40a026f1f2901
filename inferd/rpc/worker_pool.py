"""Threads for code that may block."""

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable

_log = logging.getLogger("inferd.rpc")

Work = Callable[[], None]


#: How long an idle thread waits for work before it ends.
IDLE_S = 5.0


class WorkerPool:
    """Up to ``threads`` daemon threads, started on demand and ended when idle.

    As daemons, they do not keep the process from exiting if a handler never returns. ``prepare`` is called in each
    thread when it starts.

    Threads: ``submit`` any, also after ``stop``; ``stop`` once. ``_lock`` guards ``_threads`` and ``_unclaimed``, the
    number of idle threads minus queued work.
    """

    def __init__(
        self, name: str, *, threads: int, max_waiting: int | None = None, prepare: Callable[[], None] = lambda: None
    ) -> None:
        self._name = name
        self._prepare = prepare
        self._max_threads = threads
        self._max_waiting = max_waiting
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._unclaimed = 0
        self._has_stopped = False

    def submit(self, work: Work) -> bool:
        """Queue ``work``. Returns False if ``max_waiting`` are queued."""
        if self._max_waiting is not None and self._work.qsize() >= self._max_waiting:
            return False
        self._work.put(work)
        with self._lock:
            if self._unclaimed <= 0 and len(self._threads) < self._max_threads and not self._has_stopped:
                self._start_thread()
            else:
                self._unclaimed -= 1
        return True

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name=f"{self._name}-{next(self._numbers)}", daemon=True)
        self._threads.add(thread)
        thread.start()

    @property
    def waiting(self) -> int:
        """The approximate length of the queue."""
        return self._work.qsize()

    def stop(self, timeout_s: float) -> bool:
        """Finish queued work and end the threads. Returns False if some are still working after the timeout."""
        with self._lock:
            self._has_stopped = True
            threads = list(self._threads)
        for _ in threads:
            self._work.put(None)
        end = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in threads)

    def _run(self) -> None:
        self._prepare()
        while (work := self._next()) is not None:
            try:
                work()
            except BaseException:  # noqa: BLE001  the thread serves other work
                _log.exception("work in a pool thread failed")
            with self._lock:
                self._unclaimed += 1
            # A finished call must not stay alive until the next one comes.
            del work

    def _next(self) -> Work | None:
        """Wait for work; returns None if this thread should end."""
        while True:
            try:
                return self._work.get(timeout=IDLE_S)
            except queue.Empty:
                with self._lock:
                    # Otherwise queued work is assigned to this thread.
                    if self._unclaimed > 0 and not self._has_stopped:
                        self._unclaimed -= 1
                        self._threads.discard(threading.current_thread())
                        return None
