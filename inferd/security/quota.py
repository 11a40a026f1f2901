"""How much one caller may ask for."""

from collections import deque
from dataclasses import dataclass

from inferd.errors import QuotaExceededError
from inferd.security.bucket import TokenBucket

#: Rates have a burst of what comes in this time.
_BURST_S = 1.0

#: When a caller with too many requests open may try again: nothing tells when one of them ends.
_RETRY_CONCURRENT_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a quota allows; None is no limit."""

    requests_per_s: float | None = None
    rows_per_s: float | None = None
    concurrent_requests: int | None = None


class QuotaRejections:
    """How many requests were over which limit, over all callers. Counted on the poll thread, read by any."""

    def __init__(self) -> None:
        self.by_limit = {"requests_per_s": 0, "rows_per_s": 0, "concurrent_requests": 0}


class Quota:
    """What is left to one caller of its limits.

    Threads: ``take`` the poll thread; ``give_back`` any. Slots are what a deque holds, whose ends are atomic.
    """

    __slots__ = ("_limits", "_rejections", "_requests", "_rows", "_slots")

    def __init__(self, limits: Limits, rejections: QuotaRejections, now: float) -> None:
        self._limits = limits
        self._rejections = rejections
        self._requests = _bucket(limits.requests_per_s, now)
        self._rows = _bucket(limits.rows_per_s, now)
        slots = limits.concurrent_requests
        self._slots = None if slots is None else deque([None] * slots)

    @property
    def counts_open(self) -> bool:
        """Whether what is taken has to be given back."""
        return self._slots is not None

    def take(self, rows: int, now: float) -> None:
        """Count a request of ``rows`` rows in, or raise `QuotaExceededError` and count nothing.

        With `counts_open`, it must be given back exactly once.
        """
        if self._slots is not None and not self._slots:
            open_now = self._limits.concurrent_requests
            raise self._exceeded("concurrent_requests", f"{open_now} open requests", _RETRY_CONCURRENT_S)
        requests, per_row = self._requests, self._rows
        if requests is not None and (wait_s := requests.wait_s(1, now)):
            raise self._exceeded("requests_per_s", f"{self._limits.requests_per_s:g} requests a second", wait_s)
        if per_row is not None and (wait_s := per_row.wait_s(rows, now)):
            raise self._exceeded("rows_per_s", f"{self._limits.rows_per_s:g} rows a second", wait_s)
        if requests is not None:
            requests.take(1)
        if per_row is not None:
            per_row.take(rows)
        if self._slots is not None:
            self._slots.pop()

    def give_back(self) -> None:
        """A request that was counted in is no longer open."""
        assert self._slots is not None, "only what counts open requests is given back to"
        self._slots.append(None)

    def _exceeded(self, limit: str, allowed: str, retry_after_s: float) -> QuotaExceededError:
        self._rejections.by_limit[limit] += 1
        return QuotaExceededError(f"the quota of {allowed} is used up", retry_after_s=retry_after_s)


def _bucket(rate: float | None, now: float) -> TokenBucket | None:
    return None if rate is None else TokenBucket(rate, rate * _BURST_S, now)
