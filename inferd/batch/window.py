"""The window of requests that a job may have in flight on a server. Pure; not thread-safe.

As in TCP's congestion control: each answer widens the window a little, and a refusal halves it and delays the next
request by the server's retry hint.
"""

_LEAST = 1.0
#: Delays without a hint of the server: the first, and the longest.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 3.0


class Window:
    """At most ``most`` requests in flight, at first ``first``. ``now`` is in seconds of any monotonic clock."""

    def __init__(self, most: int, *, first: int = 2) -> None:
        self._most = most
        self._limit = float(min(first, most))
        self._wait_s = _FIRST_WAIT_S
        self._not_before = 0.0
        self._narrowed_at = -1.0
        self.in_flight = 0

    @property
    def limit(self) -> int:
        """The requests that may be in flight."""
        return int(self._limit)

    def wait_s(self, now: float) -> float | None:
        """Return the seconds to wait before the next request; None while the window is full."""
        if self.in_flight >= self.limit:
            return None
        return max(0.0, self._not_before - now)

    def sent(self) -> None:
        """Count a request that is sent."""
        self.in_flight += 1

    def answered(self) -> None:
        """Count an answer: a result, or an error of the request itself."""
        self.in_flight -= 1
        self._limit = min(self._most, self._limit + 1 / self._limit)
        self._wait_s = _FIRST_WAIT_S

    def refused(self, now: float, sent_at: float, retry_after_s: float | None) -> None:
        """Count a refusal. Refusals of requests sent before the window was last halved do not halve it again."""
        self.in_flight -= 1
        if sent_at < self._narrowed_at:
            return
        self._narrowed_at = now
        self._limit = max(_LEAST, self._limit / 2)
        delay_s = self._wait_s if retry_after_s is None else retry_after_s
        self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)
        self._not_before = max(self._not_before, now + delay_s)
