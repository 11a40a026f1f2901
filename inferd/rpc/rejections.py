"""Rejections by this package: their reasons, and their statuses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import grpc

from inferd.plain_text import clipped, escaped, listed
from inferd.rpc.interceptors import Rejection


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


def not_inflatable(expected: str) -> RejectionCause:
    """Reject a compressed message."""
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
