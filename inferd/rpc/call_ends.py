"""Why a call ended without an answer: the core reports every such end as a cancel by the caller.

A caller whose connection was cut gets UNAVAILABLE, so such a call counts as that.
"""

import math
from collections.abc import Mapping
from typing import Any, Self

import grpc

from inferd.rpc.interfaces import Call

Cause = tuple[grpc.StatusCode, str]

CANCELLED = (grpc.StatusCode.CANCELLED, "the call was cancelled by the client or the connection was lost")
EXPIRED = (grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before there was an answer")
STOPPED = (grpc.StatusCode.UNAVAILABLE, "the server stopped before there was an answer")
TOO_OLD = (
    grpc.StatusCode.UNAVAILABLE,
    "the connection was closed at its maximum age, and the call had not ended within the grace",
)
CANCELLED_HERE = (grpc.StatusCode.CANCELLED, "the call was cancelled by the server's handler")

#: Clients keep their own deadline and cancel when it passes. They send it rounded up by as much as 1 %, so their cancel
#: arrives before the deadline as it is known here.
_ROUNDING = 0.01
_SLACK_S = 0.01

#: The core closes a connection this much sooner or later than its maximum age.
_JITTER = 0.1
#: The first call of a connection arrives at most this much later than the connection, as a share of its lifetime.
_LATE_SHARE = 0.25
_MAX_LATE_S = 1.0
#: The core's value for "never".
_NEVER_MS = 2**31 - 1
_MAX_CONNECTIONS = 65_536


def cause_of_end(*, now: float, started_at: float, deadline: float) -> Cause:
    """Return why a call ended without an answer: its deadline, or a cancel."""
    if deadline == math.inf:
        return CANCELLED
    slack_s = _SLACK_S + _ROUNDING * (deadline - started_at)
    return EXPIRED if deadline - now <= slack_s else CANCELLED


class ConnectionAges:
    """Detects calls that were cut because their connection reached its maximum age.

    A connection is about as old as its first call, as clients connect when they have a call. A call was cut if its
    connection is as old as those the core closes, and the call itself as old as the grace, since no call is accepted
    once the connection is closing. A caller that cancels at just that time is taken for cut as well. On the poll thread
    only.
    """

    def __init__(self, *, max_age_s: float, grace_s: float) -> None:
        self._grace_s = grace_s
        self._oldest_s = (1 - _JITTER) * max_age_s + grace_s
        self._late_s = min(_LATE_SHARE * self._oldest_s, _MAX_LATE_S)
        #: After this time a call from the same port is on another connection.
        self._gone_s = (1 + _JITTER) * max_age_s + grace_s + _MAX_LATE_S
        #: Time of the first call by peer, the oldest first.
        self._first_call_at: dict[bytes, float] = {}

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self | None:
        """Return the ages that the core enforces with these ``options``, None if it enforces none."""
        max_age_ms, grace_ms = (options.get(f"grpc.max_connection_age{part}_ms") for part in ("", "_grace"))
        if max_age_ms is None or grace_ms is None or max_age_ms >= _NEVER_MS:
            return None
        return cls(max_age_s=max_age_ms / 1000, grace_s=grace_ms / 1000)

    def note(self, peer: bytes, now: float) -> None:
        """Note a call from ``peer``."""
        first = self._first_call_at
        at = first.get(peer)
        if at is not None and now - at < self._gone_s:
            return
        first.pop(peer, None)
        while first and (len(first) >= _MAX_CONNECTIONS or now - next(iter(first.values())) >= self._gone_s):
            del first[next(iter(first))]
        first[peer] = now

    def has_cut(self, call: Call, now: float) -> bool:
        """Whether ``call``, which ended without an answer, was cut with its connection."""
        # All connections of a Unix socket have the same peer.
        is_own_port = call.raw_peer.startswith((b"ipv4:", b"ipv6:"))
        begun_at = self._first_call_at.get(call.raw_peer, call.started_at) if is_own_port else call.started_at
        is_old = now - call.started_at >= self._grace_s - self._late_s
        return is_old and now - begun_at >= self._oldest_s - self._late_s


class Ends:
    """Determines the cause of ends without an answer. On the poll thread only."""

    def __init__(self, ages: ConnectionAges | None = None) -> None:
        self.ages = ages
        #: Whether the server has cancelled all calls.
        self.is_stopped = False

    def cause(self, call: Call, now: float) -> Cause:
        """Return the cause of the end of ``call``, which came just now."""
        cause = cause_of_end(now=now, started_at=call.started_at, deadline=call.deadline)
        if cause is EXPIRED:
            return cause
        if self.is_stopped:
            return STOPPED
        return TOO_OLD if self.ages is not None and self.ages.has_cut(call, now) else cause
