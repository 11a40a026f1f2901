"""What the end of calls without an answer is put down to: the core tells of all of them as if the caller had cancelled.

A caller whose connection has been cut gets UNAVAILABLE, so that is what such a call is counted as.
"""

from collections.abc import Mapping
from typing import Any, Self

import grpc

from inferd.rpc.calls import Call
from inferd.rpc.deadlines import EXPIRED, cause_of_end

Cause = tuple[grpc.StatusCode, str]

STOPPED = (grpc.StatusCode.UNAVAILABLE, "the server stopped before there was an answer")
TOO_OLD = (
    grpc.StatusCode.UNAVAILABLE,
    "the connection was closed at its maximum age, and the call had not ended within the grace",
)
CANCELLED_HERE = (grpc.StatusCode.CANCELLED, "the call was cancelled by the server's handler")

#: How much sooner or later the core closes a connection than it was told to.
_JITTER = 0.1
#: How much later than its connection its first call may be seen, as a share of the time it may have, and at most.
_LATE_SHARE = 0.25
_MOST_LATE_S = 1.0
#: What the core takes for "never".
_NEVER_MS = 2**31 - 1
#: Connections whose first call is remembered.
_MOST_CONNECTIONS = 65_536


class ConnectionAges:
    """Tells which calls were cut because their connection had reached its maximum age.

    A connection is about as old as its first call: clients open one when they have a call. So the call whose end is
    looked at was cut if its connection is as old as those that are closed, and the call itself as old as the grace: no
    call is taken once the connection is to be closed. A caller that cancels just then is taken for cut as well.
    On the poll thread only.
    """

    def __init__(self, *, max_age_s: float, grace_s: float) -> None:
        self._grace_s = grace_s
        self._oldest_s = (1 - _JITTER) * max_age_s + grace_s
        self._late_s = min(_LATE_SHARE * self._oldest_s, _MOST_LATE_S)
        #: After this there is another connection from the same port.
        self._gone_s = (1 + _JITTER) * max_age_s + grace_s + _MOST_LATE_S
        #: When the first call of each connection came, the first one first.
        self._first_call_at: dict[bytes, float] = {}

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self | None:
        """Return the ages that the core keeps to with these ``options``, None if connections may be of any age."""
        max_age_ms, grace_ms = (options.get(f"grpc.max_connection_age{part}_ms") for part in ("", "_grace"))
        if max_age_ms is None or grace_ms is None or max_age_ms >= _NEVER_MS:
            return None
        return cls(max_age_s=max_age_ms / 1000, grace_s=grace_ms / 1000)

    def note(self, peer: bytes, now: float) -> None:
        """Take down a call from ``peer``."""
        first = self._first_call_at
        at = first.get(peer)
        if at is not None and now - at < self._gone_s:
            return
        first.pop(peer, None)
        while first and (len(first) >= _MOST_CONNECTIONS or now - next(iter(first.values())) >= self._gone_s):
            del first[next(iter(first))]
        first[peer] = now

    def has_cut(self, call: Call, now: float) -> bool:
        """Whether ``call``, which is over without our answer, was cut with its connection."""
        # All connections of a Unix socket have the same peer.
        is_own_port = call.raw_peer.startswith((b"ipv4:", b"ipv6:"))
        begun_at = self._first_call_at.get(call.raw_peer, call.started_at) if is_own_port else call.started_at
        is_old = now - call.started_at >= self._grace_s - self._late_s
        return is_old and now - begun_at >= self._oldest_s - self._late_s


class Ends:
    """What ends calls without an answer. On the poll thread only."""

    def __init__(self, ages: ConnectionAges | None = None) -> None:
        self.ages = ages
        #: Whether the server has cancelled all calls.
        self.is_stopped = False

    def cause(self, call: Call, now: float) -> Cause:
        """Return what the end of ``call``, which came just now, is put down to."""
        cause = cause_of_end(now=now, started_at=call.started_at, deadline=call.deadline)
        if cause is EXPIRED:
            return cause
        if self.is_stopped:
            return STOPPED
        return TOO_OLD if self.ages is not None and self.ages.has_cut(call, now) else cause
