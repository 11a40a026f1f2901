"""A bounded number of threads that load models."""

import threading
from collections import deque
from collections.abc import Callable


class LoadPool:
    """Runs jobs in the order of their submission, at most ``threads`` at a time, from `start` on.

    Any thread may submit. When there is nothing to do, one of the pool's threads waits and the others end. The C
    library gives a new thread any of its heaps, and each would keep what it needed for a load: one model after another
    loaded in new threads took the memory of several. The threads are daemons: a load cannot be interrupted, and must
    not keep the process from exiting.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._running = 0
        self._one_waits = False
        self._started = False
        self._stopping = False

    def start(self) -> None:
        """Run what has been submitted, and what will be."""
        with self._changed:
            self._started = True
            for _ in range(min(len(self._jobs), self._threads)):
                self._add_thread()

    def submit(self, job: Callable[[], None]) -> None:
        """Run ``job``, which raises nothing, when a thread is free."""
        with self._changed:
            self._jobs.append(job)
            if self._one_waits:
                self._wake()
            elif self._started and self._running < self._threads:
                self._add_thread()

    def stop(self) -> None:
        """Let the threads end when there is nothing to do."""
        with self._changed:
            self._stopping = True
            self._wake()

    def _wake(self) -> None:
        self._one_waits = False
        self._changed.notify()

    def _add_thread(self) -> None:
        self._running += 1
        threading.Thread(target=self._work, name="model-loader", daemon=True).start()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job()

    def _next(self) -> Callable[[], None] | None:
        """Return the next job, maybe after a wait; None to end."""
        with self._changed:
            while not self._jobs:
                if self._one_waits or self._stopping:
                    self._running -= 1
                    return None
                self._one_waits = True
                self._changed.wait_for(lambda: not self._one_waits)
            return self._jobs.popleft()
