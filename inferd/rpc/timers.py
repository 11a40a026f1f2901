"""The timers of the poll loop."""

import heapq
import itertools
import math
import threading
from collections.abc import Callable

Callback = Callable[[], None]

#: Until a call can carry wake-ups, the loop sleeps at most this long at a time.
_UNWAKEABLE_SLEEP_S = 0.05


class Timers:
    """Callbacks by time, and how long the loop may sleep.

    Invariant: ``next_at``, when the loop wakes at the latest, is never later than the earliest timer. Threads: ``add``
    any; the rest on the poll thread.
    """

    def __init__(self, clock: Callable[[], float], epoch_clock: Callable[[], float]) -> None:
        self._clock = clock
        self._epoch_clock = epoch_clock
        self._lock = threading.Lock()
        self._heap: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()
        self._max_sleep_s = _UNWAKEABLE_SLEEP_S
        self.next_at = -math.inf
        #: The same for the core, which waits by the wall clock; None if there is no timer.
        self.poll_until_epoch_s: float | None = 0.0

    def add(self, when: float, callback: Callback) -> bool:
        """Call ``callback`` at ``when``. Returns whether a loop that sleeps must wake to see it."""
        with self._lock:
            heapq.heappush(self._heap, (when, next(self._order), callback))
            if when >= self.next_at:
                return False
            self._plan()
            return True

    def take_due(self) -> list[Callback]:
        """Remove the callbacks that are due, and return them in order."""
        due: list[Callback] = []
        with self._lock:
            now = self._clock()
            while self._heap and self._heap[0][0] <= now:
                due.append(heapq.heappop(self._heap)[2])
            self._plan()
        return due

    def let_sleep(self) -> None:
        """Let the loop sleep until the next timer: it can be woken from now on."""
        with self._lock:
            self._max_sleep_s = math.inf
            self._plan()

    def _plan(self) -> None:
        """Set when to wake; with the lock held."""
        now = self._clock()
        self.next_at = min(self._heap[0][0] if self._heap else math.inf, now + self._max_sleep_s)
        wait_s = max(self.next_at - now, 0.0)
        self.poll_until_epoch_s = None if wait_s == math.inf else self._epoch_clock() + wait_s
