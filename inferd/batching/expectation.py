"""Whether an incomplete batch may hope for more requests. Pure."""

import math

#: A peak is remembered for one to two windows, each at least so long and so many times the longest wait. A window ends
#: with the first arrival after that, so that a pause makes nothing forgotten.
_WINDOW_S = 1.0
_WINDOW_WAITS = 4
#: What one decision weighs in the share of decisions that were followed by an arrival.
_WEIGHT = 1 / 8
#: Waiting pays if an arrival in time is more likely than not.
_LEAST_FOLLOWED = 1 / 2


class Expectation:
    """Learns how many requests tend to be present at a time, and whether the next one comes in time.

    Two things must hold for more to be expected. Fewer requests are present than at the peak of late: callers who wait
    for an answer before they ask again come back up to that number, and one such caller has a peak of 1 and is never
    kept waiting. And when fewer were present lately and a worker had to decide whether to wait, the next request mostly
    came within the longest wait: callers who come by chance have peaks as well, but are rarely followed in time.

    A request is present from its admission until its batch is being answered. Not thread-safe: guarded by the lock of
    the `RequestQueue` that it is a part of.
    """

    def __init__(self, *, max_wait_s: float) -> None:
        #: The longest that a batch is held for now; not above that of the start.
        self.max_wait_s = max_wait_s
        self._window_s = max(_WINDOW_S, _WINDOW_WAITS * max_wait_s)
        self._window_start = -math.inf
        self._peak = 0
        self._previous_peak = 0
        self._followed = 0.0
        self._decided_at: float | None = None

    def arrived(self, now: float, present: int) -> None:
        """A request came at ``now``; ``present`` counts it."""
        if self._decided_at is not None:
            self._learn(followed=now - self._decided_at <= self.max_wait_s)
        if now - self._window_start >= self._window_s:
            self._previous_peak, self._peak = self._peak, 0
            self._window_start = now
        self._peak = max(self._peak, present)

    def further(self, now: float, present: int) -> int:
        """A worker asks, before it runs an incomplete batch at ``now``, how many more requests are to be expected."""
        missing = max(self._peak, self._previous_peak) - present
        if missing <= 0:
            return 0
        self._give_up(now)
        if self._decided_at is None:
            self._decided_at = now
        return missing if self._followed >= _LEAST_FOLLOWED else 0

    def answering(self, now: float) -> None:
        """A batch is being answered: who comes next may be one of its callers, who was not the one missing."""
        self._give_up(now)
        self._decided_at = None

    def _give_up(self, now: float) -> None:
        if self._decided_at is not None and now - self._decided_at >= self.max_wait_s:
            self._learn(followed=False)

    def _learn(self, *, followed: bool) -> None:
        self._followed += (followed - self._followed) * _WEIGHT
        self._decided_at = None
