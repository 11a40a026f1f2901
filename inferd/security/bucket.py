"""A token bucket: pure arithmetic on times that it is given."""


class TokenBucket:
    """Lets ``rate`` units a second pass, and at once those that were saved up, at most ``burst``.

    What is larger than the burst passes when the bucket is full, and leaves a debt that is paid off before anything
    else passes. So nothing is too large to ever pass, and the rate holds over time for any sizes. Times are in seconds
    on any clock that does not go back; one thread at a time.
    """

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def wait_s(self, amount: float, now: float) -> float:
        """Return in how many seconds ``amount`` may pass; 0 if it may now."""
        if now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
            self._at = now
        missing = min(amount, self._burst) - self._level
        return missing / self._rate if missing > 0 else 0.0

    def take(self, amount: float) -> None:
        """Let ``amount`` pass, which `wait_s` has just said may."""
        self._level -= amount
