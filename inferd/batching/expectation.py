"""Whether an incomplete batch may hope for more requests. Pure."""

#: A peak is remembered for one to two windows, each at least so long and so many times the longest wait. A window ends
#: with the first arrival after that, so that a pause makes nothing forgotten.
_WINDOW_S = 1.0
_WINDOW_WAITS = 4
#: What one arrival weighs in the share of arrivals that were closely followed.
_WEIGHT = 1 / 8
#: Waiting is in vain if fewer arrivals than this share are followed by another within the longest wait.
_LEAST_FOLLOWED = 1 / 4


class Expectation:
    """Learns from arrivals how many requests tend to be present at a time, and how close together they come.

    Callers who wait for an answer before they ask again come back after each batch, up to as many as were present
    together lately: with one such caller the peak is 1 and nothing is ever waited for. Callers who come by chance have
    peaks as well, but are rarely followed by another in time. So more is expected only while fewer are present than at
    the peak and arrivals are often enough closely followed.

    A request is present from its admission to the end of its batch. Not thread-safe: guarded by the lock of the
    `RequestQueue` that it is a part of.
    """

    def __init__(self, *, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._window_s = max(_WINDOW_S, _WINDOW_WAITS * max_wait_s)
        self._last_arrival = float("-inf")
        self._followed = 0.0
        self._window_start = float("-inf")
        self._peak = 0
        self._previous_peak = 0

    def arrived(self, now: float, present: int) -> None:
        """A request came at ``now``; ``present`` counts it."""
        followed = now - self._last_arrival <= self._max_wait_s
        self._followed += (followed - self._followed) * _WEIGHT
        self._last_arrival = now
        if now - self._window_start >= self._window_s:
            self._previous_peak, self._peak = self._peak, 0
            self._window_start = now
        self._peak = max(self._peak, present)

    def further(self, present: int) -> int:
        """How many requests are to be expected beyond those present."""
        if self._followed < _LEAST_FOLLOWED:
            return 0
        return max(self._peak, self._previous_peak, present) - present
