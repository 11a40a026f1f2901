"""The trace that a call belongs to, as W3C's Trace Context writes it."""

import re
from typing import NamedTuple

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
_NO_VERSION = "ff"
_LONGEST_STATE = 512


class Parent(NamedTuple):
    """The caller's span."""

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(value: str | bytes) -> Parent | None:
    """Return what a ``traceparent`` says, or None if it is not one, and then counts for nothing."""
    match = _TRACEPARENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == _NO_VERSION or (version == "00" and more) or not (int(trace_id, 16) and int(span_id, 16)):
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def join_tracestate(before: str, value: str | bytes) -> str:
    """Return what several ``tracestate`` say together; one that makes it too long counts for nothing."""
    if not isinstance(value, str):
        return before
    together = f"{before},{value}" if before else value
    return together if len(together) <= _LONGEST_STATE else before
