"""How much one caller may ask for."""

import threading
from collections import deque
from dataclasses import dataclass

from inferd.errors import InvalidInputError, QuotaExceededError
from inferd.security.bucket import TokenBucket

#: Rates have a burst of what comes in this time.
_BURST_S = 1.0

#: No single request uses up more than what comes in this time, so that none shuts its caller out for days.
_LONGEST_DEBT_S = 600.0

#: When a caller with too many requests open may try again: nothing tells when one of them ends.
_RETRY_CONCURRENT_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a quota allows; None is no limit."""

    requests_per_s: float | None = None
    rows_per_s: float | None = None
    concurrent_requests: int | None = None


class QuotaRejections:
    """How many requests were over which limit, over all callers. Any thread."""

    def __init__(self) -> None:
        self.by_limit = {"requests_per_s": 0, "rows_per_s": 0, "concurrent_requests": 0}
        self._lock = threading.Lock()

    def add(self, limit: str) -> None:
        """Count one."""
        with self._lock:
            self.by_limit[limit] += 1


class Quota:
    """What is left to one caller of its limits. Any thread.

    Slots are what a deque holds, whose ends are atomic; the rest is behind the lock.
    """

    __slots__ = ("_limits", "_lock", "_rejections", "_requests", "_rows", "_slots")

    def __init__(self, limits: Limits, rejections: QuotaRejections, now: float) -> None:
        self._limits = limits
        self._rejections = rejections
        self._lock = threading.Lock()
        self._requests = _bucket(limits.requests_per_s, now)
        self._rows = _bucket(limits.rows_per_s, now)
        slots = limits.concurrent_requests
        self._slots = None if slots is None else deque([None] * slots)

    def take(self, rows: int, now: float) -> None:
        """Count a request of ``rows`` rows in, or raise and count nothing.

        It must be given back exactly once, by `give_back`.

        Raises:
            QuotaExceededError: There is no room for it now.
            InvalidInputError: There never will be.
        """
        with self._lock:
            if self._slots is not None and not self._slots:
                open_now = self._limits.concurrent_requests
                raise self._exceeded("concurrent_requests", f"{open_now} open requests", _RETRY_CONCURRENT_S)
            requests, per_row = self._requests, self._rows
            if requests is not None:
                self._require_request(requests, now)
            if per_row is not None:
                self._require_rows(per_row, rows, now)
                per_row.take(rows)
            if requests is not None:
                requests.take(1)
            if self._slots is not None:
                self._slots.pop()

    def take_unopened(self, now: float) -> None:
        """Count a request that is answered at once and runs no model, or raise `QuotaExceededError`.

        Nothing is given back for it.
        """
        requests = self._requests
        if requests is not None:
            with self._lock:
                self._require_request(requests, now)
                requests.take(1)

    def give_back(self, rows_not_run: int | None = None) -> None:
        """A request that was counted in is no longer open.

        With ``rows_not_run``, its rows, it was refused after all, and its caller has used up nothing.
        """
        if self._slots is not None:
            self._slots.append(None)
        if rows_not_run is not None:
            with self._lock:
                if self._requests is not None:
                    self._requests.put_back(1)
                if self._rows is not None:
                    self._rows.put_back(rows_not_run)

    def _require_request(self, requests: TokenBucket, now: float) -> None:
        if wait_s := requests.wait_s(1, now):
            raise self._exceeded("requests_per_s", f"{self._limits.requests_per_s:g} requests a second", wait_s)

    def _require_rows(self, per_row: TokenBucket, rows: int, now: float) -> None:
        allowed = f"{self._limits.rows_per_s:g} rows a second"
        if rows > per_row.most:
            self._rejections.add("rows_per_s")
            msg = f"expected at most {int(per_row.most)} rows, as the quota is {allowed}, got {rows}"
            raise InvalidInputError(msg, field="inputs")
        if wait_s := per_row.wait_s(rows, now):
            raise self._exceeded("rows_per_s", allowed, wait_s)

    def _exceeded(self, limit: str, allowed: str, retry_after_s: float) -> QuotaExceededError:
        self._rejections.add(limit)
        return QuotaExceededError(f"the quota of {allowed} is used up", retry_after_s=retry_after_s)


def _bucket(rate: float | None, now: float) -> TokenBucket | None:
    return None if rate is None else TokenBucket(rate, rate * _BURST_S, now, longest_debt_s=_LONGEST_DEBT_S)
