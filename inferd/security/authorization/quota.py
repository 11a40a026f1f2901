"""Quotas: rate limits and concurrency limits of one principal under one rule."""

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Annotated, Literal

from pydantic import Field

from inferd.config.section import Section
from inferd.errors import InvalidInputError, QuotaExceededError

#: The burst of a rate is what it allows in this time.
_BURST_S = 1.0

#: No request may use up more than what its rate allows in this time, so that none locks its caller out for days.
_MAX_DEBT_S = 600.0

#: Retry hint when too many requests are open: nothing predicts when one of them ends.
_RETRY_CONCURRENT_S = 0.1

#: Quotas that are kept; a principal whose quota was evicted starts with a full one.
_MAX_QUOTAS = 10_000

#: The lower bound keeps retry hints finite.
_Rate = Annotated[float, Field(ge=0.001, le=1e9)]


class QuotaLimits(Section):
    """Limits for each principal under a rule; None is unlimited. Rates have a burst of one second.

    ``tokens_per_s`` is for language models: the tokens of prompts and answers together.
    """

    requests_per_s: _Rate | None = None
    rows_per_s: _Rate | None = None
    tokens_per_s: _Rate | None = None
    concurrent_requests: int | None = Field(default=None, ge=1, le=1_000_000)


class TokenBucket:
    """A token bucket that takes amounts larger than its burst.

    Such an amount is accepted when the bucket is full, and leaves a debt to be paid off before anything else is
    accepted, so the rate holds over time for any amounts. A debt lasts at most ``max_debt_s``: amounts above
    ``max_amount`` are never accepted. A single token always is at some time. Times are in seconds on a monotonic clock.
    One thread at a time.
    """

    __slots__ = ("_burst", "_level", "_rate", "_updated_at", "max_amount")

    def __init__(self, rate: float, burst: float, now: float, *, max_debt_s: float = math.inf) -> None:
        """``rate`` is in tokens a second, ``burst`` in tokens; the bucket starts full."""
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._updated_at = now
        self.max_amount = max(burst + rate * max_debt_s, 1.0)

    def wait_s(self, amount: float, now: float) -> float:
        """Return the seconds until ``amount``, at most ``max_amount``, can be taken; 0 if it can be now."""
        if now > self._updated_at:
            self._level = min(self._burst, self._level + (now - self._updated_at) * self._rate)
            self._updated_at = now
        missing = min(amount, self._burst) - self._level
        return missing / self._rate if missing > 0 else 0.0

    def take(self, amount: float) -> None:
        """Take ``amount``, for which `wait_s` has just returned 0."""
        self._level -= amount

    def refund(self, amount: float) -> None:
        """Put back ``amount`` that was taken and not used."""
        self._level = min(self._burst, self._level + amount)


class QuotaRejections:
    """Requests rejected over all principals, by limit. Any thread."""

    def __init__(self) -> None:
        self.by_limit = {"requests_per_s": 0, "rows_per_s": 0, "tokens_per_s": 0, "concurrent_requests": 0}
        self._lock = threading.Lock()

    def add(self, limit: str) -> None:
        """Count one rejection by ``limit``."""
        with self._lock:
            self.by_limit[limit] += 1


class Quota:
    """The quota of one principal under one rule. Any thread.

    Free slots are the entries of a deque, whose append and pop are atomic; the buckets are behind the lock.
    """

    __slots__ = ("_limits", "_lock", "_rejections", "_requests", "_rows", "_slots", "_tokens")

    def __init__(self, limits: QuotaLimits, rejections: QuotaRejections, now: float) -> None:
        self._limits = limits
        self._rejections = rejections
        self._lock = threading.Lock()
        self._requests = _bucket(limits.requests_per_s, now)
        self._rows = _bucket(limits.rows_per_s, now)
        self._tokens = _bucket(limits.tokens_per_s, now)
        slots = limits.concurrent_requests
        self._slots = None if slots is None else deque([None] * slots)

    def acquire(self, rows: int, now: float, *, tokens: int = 0) -> None:
        """Charge an inference request of ``rows`` rows, or raise and charge nothing.

        ``tokens`` are those of the prompt and the most that may be generated. Each acquired request must be released
        exactly once.

        Raises:
            QuotaExceededError: The quota has no room for it now.
            InvalidInputError: The quota never will.
        """
        with self._lock:
            if self._slots is not None and not self._slots:
                limit = self._limits.concurrent_requests
                raise self._exceeded("concurrent_requests", f"{limit} open requests", _RETRY_CONCURRENT_S)
            self._require(rows, tokens, now)
            for bucket, amount in self._amounts(1, rows, tokens):
                bucket.take(amount)
            if self._slots is not None:
                self._slots.pop()

    def charge_request(self, now: float) -> None:
        """Charge a request that runs no model, or raise `QuotaExceededError`. It is not released."""
        requests = self._requests
        if requests is not None:
            with self._lock:
                self._require_request(requests, now)
                requests.take(1)

    def release(self, refund_rows: int | None = None, *, refund_tokens: int = 0) -> None:
        """Release a request that was acquired.

        ``refund_rows`` are its rows if it was rejected afterwards and did not run: it is then refunded.
        ``refund_tokens`` are those that were charged and not used.
        """
        if self._slots is not None:
            self._slots.append(None)
        if refund_rows is not None:
            with self._lock:
                for bucket, amount in self._amounts(1, refund_rows, refund_tokens):
                    bucket.refund(amount)
        elif refund_tokens and self._tokens is not None:
            with self._lock:
                self._tokens.refund(refund_tokens)

    def _require(self, rows: int, tokens: int, now: float) -> None:
        """Raise unless a request of ``rows`` and ``tokens`` can be charged now."""
        if self._requests is not None:
            self._require_request(self._requests, now)
        if self._rows is not None:
            self._require_amount(self._rows, rows, "rows", now)
        if self._tokens is not None and tokens:
            self._require_amount(self._tokens, tokens, "tokens", now)

    def _require_request(self, requests: TokenBucket, now: float) -> None:
        if wait_s := requests.wait_s(1, now):
            raise self._exceeded("requests_per_s", f"{self._limits.requests_per_s:g} requests a second", wait_s)

    def _require_amount(self, bucket: TokenBucket, amount: int, unit: Literal["rows", "tokens"], now: float) -> None:
        limit = f"{unit}_per_s"
        allowed = f"{getattr(self._limits, limit):g} {unit} a second"
        if amount > bucket.max_amount:
            self._rejections.add(limit)
            text = f"expected at most {int(bucket.max_amount)} {unit}, as the quota is {allowed}, got {amount}"
            raise InvalidInputError(text, field="inputs" if unit == "rows" else "")
        if wait_s := bucket.wait_s(amount, now):
            raise self._exceeded(limit, allowed, wait_s)

    def _amounts(self, requests: int, rows: int, tokens: int) -> Iterator[tuple[TokenBucket, int]]:
        """Return the buckets with what a request takes from each."""
        for bucket, amount in ((self._requests, requests), (self._rows, rows), (self._tokens, tokens)):
            if bucket is not None:
                yield bucket, amount

    def _exceeded(self, limit: str, allowed: str, retry_after_s: float) -> QuotaExceededError:
        self._rejections.add(limit)
        return QuotaExceededError(f"the quota of {allowed} is used up", retry_after_s=retry_after_s)


def _bucket(rate: float | None, now: float) -> TokenBucket | None:
    return None if rate is None else TokenBucket(rate, rate * _BURST_S, now, max_debt_s=_MAX_DEBT_S)


class QuotaStore:
    """The quotas of all principals; they outlive reloads of the policy. Evicts the least recently used. Any thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.rejections = QuotaRejections()
        self._clock = clock
        self._lock = threading.Lock()
        self._quotas: OrderedDict[tuple[str, int], tuple[QuotaLimits, Quota]] = OrderedDict()

    def get(self, principal: str, rule_index: int, limits: QuotaLimits) -> Quota:
        """Return the quota of ``principal`` under a rule; a new one if the limits of the rule have changed."""
        key = (principal, rule_index)
        with self._lock:
            stored = self._quotas.get(key)
            if stored is None or stored[0] != limits:
                stored = self._quotas[key] = (limits, Quota(limits, self.rejections, self._clock()))
            self._quotas.move_to_end(key)
            if len(self._quotas) > _MAX_QUOTAS:
                self._quotas.popitem(last=False)
            return stored[1]
