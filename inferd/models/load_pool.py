"""Run loads in a bounded number of threads."""

import threading
from collections import deque
from collections.abc import Callable


class LoadPool:
    """Runs jobs in the order of their submission, at most ``threads`` at a time, from `start` on.

    Any thread may submit. Without jobs, one thread of the pool waits and the others end. One is kept because the C
    library gives a new thread any of its heaps, each of which keeps the memory of a load: models loaded one after
    another in new threads took the memory of several. The threads are daemons: a load cannot be interrupted, and must
    not keep the process from exiting.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._running = 0
        self._has_idle_thread = False
        self._started = False
        self._stopping = False

    def start(self) -> None:
        """Run the jobs that were submitted so far, and further ones."""
        with self._changed:
            self._started = True
            for _ in range(min(len(self._jobs), self._threads)):
                self._add_thread()

    def submit(self, job: Callable[[], None]) -> None:
        """Run ``job``, which raises nothing, when a thread is free."""
        with self._changed:
            self._jobs.append(job)
            if self._has_idle_thread:
                self._wake()
            elif self._started and self._running < self._threads:
                self._add_thread()

    def stop(self) -> None:
        """End each thread once there is no job for it."""
        with self._changed:
            self._stopping = True
            self._wake()

    def _wake(self) -> None:
        self._has_idle_thread = False
        self._changed.notify()

    def _add_thread(self) -> None:
        self._running += 1
        threading.Thread(target=self._work, name="model-loader", daemon=True).start()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job()

    def _next(self) -> Callable[[], None] | None:
        """Return the next job, after a wait if there is none; None to end the thread."""
        with self._changed:
            while not self._jobs:
                if self._has_idle_thread or self._stopping:
                    self._running -= 1
                    return None
                self._has_idle_thread = True
                self._changed.wait_for(lambda: not self._has_idle_thread)
            return self._jobs.popleft()
