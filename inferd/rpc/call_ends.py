"""Why calls end without a response: rejections by this package, and ends that the core reports.

The core reports every end without our answer as a cancellation by the caller. A caller whose connection was cut gets
UNAVAILABLE, so such a call counts as that.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import grpc

from inferd.plain_text import clipped, escaped, listed
from inferd.rpc.interfaces import Call, Rejection


@dataclass(frozen=True, slots=True)
class RejectionCause:
    """The reason for a rejection. With ``retry_after_s`` it is an overload, and the call may be retried after that.

    ``reason`` is a constant in UPPER_SNAKE_CASE, ``details`` a text for the caller.
    """

    reason: str
    details: str
    code: grpc.StatusCode = grpc.StatusCode.RESOURCE_EXHAUSTED
    retry_after_s: float | None = None


#: How many known names an error lists, and how many characters of the requested name it quotes.
_MAX_NAMES = 12
_MAX_NAME = 80

#: Maps a rejection to its status. Called on the poll thread; must not block.
StatusOf = Callable[[RejectionCause], Rejection]

TOO_MANY_CALLS = RejectionCause("TOO_MANY_CALLS", "too many calls are open", retry_after_s=0.1)
UNREAD_TOO_LONG = RejectionCause("UNREAD_TOO_LONG", "more calls come than can be read", retry_after_s=0.1)
NO_THREAD = RejectionCause("NO_THREAD", "too many calls wait for a thread", retry_after_s=0.1)
MEMORY_BUDGET = RejectionCause("MEMORY_BUDGET", "the memory for requests is used up", retry_after_s=1.0)


def message_timeout(within_s: float) -> RejectionCause:
    """Reject a call whose first message was not complete in time."""
    details = f"expected the whole request within {within_s:g} s"
    return RejectionCause("MESSAGE_TIMEOUT", details, grpc.StatusCode.DEADLINE_EXCEEDED)


def message_too_large(size: int, limit: int) -> RejectionCause:
    """Reject a message above the limit of its caller."""
    details = f"expected a message of at most {limit} bytes, got {size}"
    return RejectionCause("MESSAGE_TOO_LARGE", details)


def compressed(algorithm: str) -> RejectionCause:
    """Reject a message that is compressed with ``algorithm``."""
    details = (
        f"expected a message that is not compressed, got one with {algorithm}, "
        "which needs the setting server.compressed_requests"
    )
    return RejectionCause("COMPRESSED_MESSAGE", details, grpc.StatusCode.UNIMPLEMENTED)


def not_inflatable(expected: str) -> RejectionCause:
    """Reject a message that cannot be inflated."""
    return RejectionCause("COMPRESSED_MESSAGE", f"expected {expected}", grpc.StatusCode.INVALID_ARGUMENT)


def unknown_method(name: str, served: Mapping[str, Sequence[str]]) -> RejectionCause:
    """Reject a call of an unknown method; ``served`` maps each known service to its methods."""
    service, _, method = name.removeprefix("/").rpartition("/")
    methods = served.get(service)
    if not service or not method:
        details = f'expected a method as /SERVICE/METHOD, got "{_plain(name)}"'
    elif methods is None:
        known = listed(served, most=_MAX_NAMES)
        details = (
            f'unknown service "{_plain(service)}", asked for method "{_plain(method)}"; known services are {known}'
        )
    else:
        known = listed(methods, most=_MAX_NAMES)
        details = f'unknown method "{_plain(method)}" of service "{_plain(service)}", which has {known}'
    return RejectionCause("UNKNOWN_METHOD", details, grpc.StatusCode.UNIMPLEMENTED)


def _plain(name: str) -> str:
    """Quote a name from a caller in few bytes of ASCII, so that it fits into a status."""
    return clipped(escaped(name[:_MAX_NAME]).encode("ascii", "backslashreplace").decode(), _MAX_NAME)


#: All reasons.
REASONS = (
    TOO_MANY_CALLS.reason,
    UNREAD_TOO_LONG.reason,
    NO_THREAD.reason,
    MEMORY_BUDGET.reason,
    "MESSAGE_TIMEOUT",
    "MESSAGE_TOO_LARGE",
    "COMPRESSED_MESSAGE",
    "UNKNOWN_METHOD",
)


def bare_status(cause: RejectionCause) -> Rejection:
    """Map a rejection to a status without error details; the default."""
    if cause.retry_after_s is None:
        return Rejection(cause.code, cause.details)
    pushback_ms = str(round(cause.retry_after_s * 1000))
    return Rejection(cause.code, cause.details, (("grpc-retry-pushback-ms", pushback_ms),))


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

    def add_call(self, peer: bytes, now: float) -> None:
        """Record a call from ``peer`` at ``now``."""
        first = self._first_call_at
        at = first.get(peer)
        if at is not None and now - at < self._gone_s:
            return
        first.pop(peer, None)
        while first and (len(first) >= _MAX_CONNECTIONS or now - next(iter(first.values())) >= self._gone_s):
            del first[next(iter(first))]
        first[peer] = now

    def has_cut(self, call: Call, now: float) -> bool:
        """Return whether ``call``, which ended without an answer, was cut with its connection."""
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
