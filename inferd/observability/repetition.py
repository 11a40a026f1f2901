"""Keeps a fault that comes up again and again from filling the log."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

#: A logger, a level and what was said, without the facts about it.
_Kind = tuple[str, int, str]

#: Kinds that are counted at a time, at most; lines of further ones are written.
_MAX_KINDS = 256

CallLater = Callable[[float, Callable[[], None]], None]


@dataclass(slots=True)
class _Seen:
    """What came of one kind within its interval."""

    ends_at: float
    written: int = 0
    held_back: int = 0
    last: logging.LogRecord | None = None


class RepetitionFilter(logging.Filter):
    """Lets ``limit`` warnings or errors of a kind pass in an interval, and counts those beyond.

    How many they were is told to ``summarize`` at the end of the interval, in the form of a record with ``repeated``.
    Threads: any. The lock is held for bookkeeping only.
    """

    def __init__(
        self,
        limit: int,
        interval_s: float,
        summarize: Callable[[logging.LogRecord], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        call_later: CallLater | None = None,
    ) -> None:
        super().__init__()
        self._limit = limit
        self._interval_s = interval_s
        self._summarize = summarize
        self._clock = clock
        self._call_later = call_later or _by_timer
        # Reentrant, because a finalizer that runs at any allocation in here may log.
        self._lock = threading.RLock()
        self._seen: dict[_Kind, _Seen] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether ``record`` is to be written now."""
        if not self._limit or record.levelno < logging.WARNING:
            return True
        kind = (record.name, record.levelno, _said(record))
        now = self._clock()
        with self._lock:
            seen = self._seen.get(kind)
            if seen is None or (seen.ends_at <= now and not seen.held_back):
                if seen is None and not self._has_room(now):
                    return True
                seen = self._seen[kind] = _Seen(now + self._interval_s)
            if seen.written < self._limit:
                seen.written += 1
                return True
            seen.held_back += 1
            seen.last = record
            first, left_s = seen.held_back == 1, seen.ends_at - now
        if first:
            self._call_later(left_s, partial(self._sum_up, kind))
        return False

    def flush(self) -> None:
        """Tell now what has been counted."""
        for kind in list(self._seen):
            self._sum_up(kind)

    def _sum_up(self, kind: _Kind) -> None:
        with self._lock:
            seen = self._seen.pop(kind, None)
        if seen is None or seen.last is None:
            return
        self._summarize(_summary(seen.last, seen.held_back))

    def _has_room(self, now: float) -> bool:
        if len(self._seen) >= _MAX_KINDS:
            self._seen = {kind: seen for kind, seen in self._seen.items() if seen.held_back or seen.ends_at > now}
        return len(self._seen) < _MAX_KINDS


def _said(record: logging.LogRecord) -> str:
    """Return what was said, before facts were filled in; structlog's records hold the fields of the line."""
    message: object = record.msg
    return str(message.get("event")) if isinstance(message, dict) else str(message)


def _summary(last: logging.LogRecord, count: int) -> logging.LogRecord:
    """Return what stands for ``count`` records: the last one, without its traceback, as some were told before."""
    facts = {**last.__dict__, "created": time.time(), "exc_info": None, "exc_text": None, "stack_info": None}
    if isinstance(last.msg, dict):
        facts["msg"] = {**last.msg, "repeated": count, "exc_info": None}
    else:
        facts["repeated"] = count
    return logging.makeLogRecord(facts)


def _by_timer(delay_s: float, callback: Callable[[], None]) -> None:
    timer = threading.Timer(delay_s, callback)
    timer.daemon = True
    timer.start()
