"""A thread for what is done better many at a time."""

import threading
from collections.abc import Callable


class GatheringThread:
    """Calls ``work`` within ``gather_s`` of being roused, and again for as long as it returns that there was anything.

    Whoever brings something rouses it unless it ``is_awake``, so that only the first of many pays for that; no lock is
    needed. Invariant: the thread looks for work once more after it has said that it sleeps, so what came in between is
    not left behind. Threads: ``rouse`` any, the rest one.
    """

    def __init__(self, name: str, work: Callable[[], bool], *, gather_s: float) -> None:
        self._work = work
        self._gather_s = gather_s
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        #: Whether what is brought now will be worked off without rousing anybody.
        self.is_awake = False

    @property
    def has_started(self) -> bool:
        """Whether it ever ran."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Begin to work; what was brought before has waited for this."""
        self._thread.start()

    def rouse(self) -> None:
        """Have the work done soon."""
        self.is_awake = True
        self._wake.set()

    def stop(self, timeout_s: float) -> bool:
        """Work off what there is at once, and end. Returns False if that took longer than the timeout."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._stopping.wait(self._gather_s)
            if self._work():
                continue
            self.is_awake = False
            self._wake.clear()
            if self._work():
                self.rouse()
            elif self._stopping.is_set():
                return
