"""A CPU budget for a thread, so that other threads of the process can run."""

import time
from collections.abc import Callable


class Pace:
    """Limits a thread to ``share`` of a core in the long run, with a burst of ``burst_s`` seconds.

    Create and call it in that thread, whose CPU time counts from then on. No wait is longer than ``longest_s``: debt
    beyond that is forgiven.
    """

    def __init__(
        self,
        share: float,
        *,
        burst_s: float,
        longest_s: float,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._share = share
        self._burst_s = burst_s
        self._most_owed_s = longest_s * share
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._left_s = burst_s
        self._now = clock()
        self._used_s = cpu_clock()

    def wait_s(self) -> float:
        """Return how long to wait before starting more work."""
        now, used_s = self._clock(), self._cpu_clock()
        earned_s, spent_s = (now - self._now) * self._share, used_s - self._used_s
        self._now, self._used_s = now, used_s
        self._left_s = max(min(self._left_s + earned_s, self._burst_s) - spent_s, -self._most_owed_s)
        return max(0.0, -self._left_s / self._share)
