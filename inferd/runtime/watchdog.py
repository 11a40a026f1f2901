"""A thread that calls back at set times and sleeps until then."""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger("inferd.runtime")


class Watchdog:
    """Keeps times for others, whatever they are stuck in themselves.

    Any thread may call; the callbacks are called one after the other in the thread of the watchdog, must not block, and
    are not called any more after `stop`. The thread is a daemon and sleeps while there is no time to keep.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to call back."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after what it is doing."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the clock has reached ``when``."""
        with self._changed:
            heapq.heappush(self._timers, (when, next(self._order), callback))
            if self._timers[0][0] == when:
                self._changed.notify()

    def _run(self) -> None:
        while (callback := self._next()) is not None:
            try:
                callback()
            except Exception:  # noqa: BLE001  (the others are to be called all the same)
                _log.exception("a callback of the watchdog failed")

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next time; None when stopped."""
        with self._changed:
            while not self._stopped:
                left_s = self._timers[0][0] - self._clock() if self._timers else None
                if left_s is not None and left_s <= 0:
                    return heapq.heappop(self._timers)[2]
                self._changed.wait(left_s)
        return None
