"""A background thread that processes queued work in batches."""

import threading
from collections.abc import Callable


class CoalescingThread:
    """Calls ``work`` within ``delay_s`` of `wake`, and again for as long as it returns that it found something.

    Producers call `wake` unless the thread ``is_awake``, so that only the first of many pays for it; no lock is needed.
    Invariant: the thread looks for work once more after it has cleared ``is_awake``, so nothing that was queued in
    between is left behind. Threads: ``wake`` any, the rest one.
    """

    def __init__(self, name: str, work: Callable[[], bool], *, delay_s: float) -> None:
        self._work = work
        self._delay_s = delay_s
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        #: Whether work that is queued now is processed without `wake`.
        self.is_awake = False

    @property
    def has_started(self) -> bool:
        """Whether `start` was called."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Start processing, beginning with work that was queued before."""
        self._thread.start()

    def wake(self) -> None:
        """Schedule the work."""
        self.is_awake = True
        self._wake.set()

    def stop(self, timeout_s: float) -> bool:
        """Process what is queued at once, and end the thread. Returns False if that took longer than the timeout."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._stopping.wait(self._delay_s)
            if self._work():
                continue
            self.is_awake = False
            self._wake.clear()
            if self._work():
                self.wake()
            elif self._stopping.is_set():
                return
