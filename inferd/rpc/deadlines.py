"""Deadlines: from the core's wall clock to the monotonic one, and what the end of a call is put down to."""

import math
import time
from collections.abc import Callable

import grpc

#: The core says "none" as the largest number it can count to, 9.2e18. No real deadline is this far in the future.
_NEVER_EPOCH_S = 1e12

#: Clients keep their own deadline and cancel when it passes. They send it rounded up by as much as a hundredth, and
#: their cancel overtakes what is left of it here.
_ROUNDING = 0.01
_SLACK_S = 0.01

CANCELLED = (grpc.StatusCode.CANCELLED, "the call was cancelled by the client or the connection was lost")
EXPIRED = (grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before there was an answer")


def to_monotonic(epoch_s: float, now: float, *, epoch_clock: Callable[[], float] = time.time) -> float:
    """Return a deadline in seconds on the monotonic clock, which shows ``now``; ``math.inf`` for none."""
    if epoch_s >= _NEVER_EPOCH_S:
        return math.inf
    return now + (epoch_s - epoch_clock())


def cause_of_end(*, now: float, started_at: float, deadline: float) -> tuple[grpc.StatusCode, str]:
    """Tell why a call ended without our answer: its deadline, or a cancel."""
    if deadline == math.inf:
        return CANCELLED
    slack_s = _SLACK_S + _ROUNDING * (deadline - started_at)
    return EXPIRED if deadline - now <= slack_s else CANCELLED
