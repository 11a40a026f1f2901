"""A token bucket: pure arithmetic on times that it is given."""

import math


class TokenBucket:
    """Lets ``rate`` units a second pass, and at once those that were saved up, at most ``burst``.

    What is larger than the burst passes when the bucket is full, and leaves a debt that is paid off before anything
    else passes. So the rate holds over time for any sizes. A debt lasts at most ``longest_debt_s``: what would leave a
    larger one is larger than ``most``, and never passes. A single unit always may. Times are in seconds on any clock
    that does not go back; one thread at a time.
    """

    __slots__ = ("_at", "_burst", "_level", "_rate", "most")

    def __init__(self, rate: float, burst: float, now: float, *, longest_debt_s: float = math.inf) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now
        self.most = max(burst + rate * longest_debt_s, 1.0)

    def wait_s(self, amount: float, now: float) -> float:
        """Return in how many seconds ``amount``, which is no more than ``most``, may pass; 0 if it may now."""
        if now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
            self._at = now
        missing = min(amount, self._burst) - self._level
        return missing / self._rate if missing > 0 else 0.0

    def take(self, amount: float) -> None:
        """Let ``amount`` pass, which `wait_s` has just said may."""
        self._level -= amount

    def put_back(self, amount: float) -> None:
        """Take back what was let pass, and then came to nothing."""
        self._level = min(self._burst, self._level + amount)
