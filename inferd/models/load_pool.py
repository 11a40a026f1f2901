"""A bounded number of threads that load models."""

import threading
from collections import deque
from collections.abc import Callable


class LoadPool:
    """Runs jobs in the order of their submission, at most ``threads`` at a time, from `start` on.

    Any thread may submit. The pool's threads are daemons that end when there is nothing to do: a load cannot be
    interrupted, and must not keep the process from exiting.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._jobs: deque[Callable[[], None]] = deque()
        self._running = 0
        self._started = False

    def start(self) -> None:
        """Run what has been submitted, and what will be."""
        with self._lock:
            self._started = True
            for _ in range(min(len(self._jobs), self._threads)):
                self._add_thread()

    def submit(self, job: Callable[[], None]) -> None:
        """Run ``job``, which raises nothing, when a thread is free."""
        with self._lock:
            self._jobs.append(job)
            if self._started and self._running < self._threads:
                self._add_thread()

    def _add_thread(self) -> None:
        self._running += 1
        threading.Thread(target=self._work, name="model-loader", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._running -= 1
                    return
                job = self._jobs.popleft()
            job()
