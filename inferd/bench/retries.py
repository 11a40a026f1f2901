"""Decide if and when a rejected request is sent again. Pure."""

from dataclasses import dataclass

import numpy as np

#: Statuses of requests that were not run.
RETRIED = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE"})

_FIRST_BACKOFF_S = 0.05
_LONGEST_BACKOFF_S = 2.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The facts of a failed attempt for retries: its status, and the server's retry hint."""

    code: str
    retry_after_s: float | None = None
    may_retry: bool = True


@dataclass(frozen=True, slots=True)
class Retries:
    """At most ``most`` retries of a request."""

    most: int = 0

    def delay_s(self, refusal: Refusal, attempts: int, random: np.random.Generator) -> float | None:
        """Return how long to wait after ``attempts`` attempts, or None to give up.

        The server's hint is used; without one, the delay is random in an exponentially growing range.
        """
        if attempts > self.most or refusal.code not in RETRIED or not refusal.may_retry:
            return None
        if refusal.retry_after_s is not None:
            return refusal.retry_after_s
        longest_s = min(_FIRST_BACKOFF_S * 2.0 ** (attempts - 1), _LONGEST_BACKOFF_S)
        return longest_s * (0.5 + 0.5 * random.random())
