"""One line for each RPC."""

import itertools
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from inferd.config.settings import LogSettings
from inferd.observability.calls import Call, Status
from inferd.observability.line_writer import LineWriter
from inferd.observability.rendering import Fields, utc

#: Statuses that an operator should look at; the others are the caller's business.
_LEVELS = {
    "DATA_LOSS": logging.ERROR,
    "INTERNAL": logging.ERROR,
    "UNKNOWN": logging.ERROR,
    "DEADLINE_EXCEEDED": logging.WARNING,
    "RESOURCE_EXHAUSTED": logging.WARNING,
    "UNAVAILABLE": logging.WARNING,
}

_NAMES = {logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}

#: What the handlers tell of a call, in the order in which records hold it.
_ANNOTATIONS = (
    *("model", "version", "queue_s", "run_s", "batch_rows"),
    *("rows", "requests", "messages_in", "messages_out"),
)

_LONGEST_TEXT = 512


class AccessRecord(NamedTuple):
    """One RPC that ended; ``annotations`` are in the order of ``_ANNOTATIONS``."""

    at: float
    level: int
    request_id: str
    peer: str
    method: str
    status: str
    total_s: float
    annotations: tuple[object, ...]
    error: str


class StreamRecord(NamedTuple):
    """One result within a stream."""

    at: float
    stream_id: str
    method: str
    fields: Mapping[str, object]


class AccessLogInterceptor:
    """Takes down each RPC that ends, in a few microseconds; the writer's thread makes a line of it.

    A record holds no part of the call but short texts and numbers, so that waiting lines keep no messages alive.
    Threads: ``finished`` and ``stream_result`` any, at the same time. Neither blocks or raises.
    """

    def __init__(
        self,
        settings: LogSettings,
        writer: LineWriter,
        render: Callable[[Fields], bytes],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._enabled = settings.access
        self._threshold = logging.getLevelNamesMapping()[settings.level.upper()]
        self._writer = writer
        self._render = render
        self._clock = clock
        self._wall_clock = wall_clock
        self._id_prefix = secrets.token_hex(4)
        self._ids = itertools.count(1)

    def started(self, call: Call) -> None:
        """Let every call go on."""

    def finished(self, call: Call, code: Status, details: str) -> None:
        """Take down a call that ended."""
        status = code.name
        level = _LEVELS.get(status, logging.INFO)
        if not self._enabled or level < self._threshold:
            return
        record = AccessRecord(
            self._wall_clock(),
            level,
            self._request_id(call),
            call.peer,
            _clipped(call.method),
            status,
            self._clock() - call.started_at,
            tuple(map(call.annotations.get, _ANNOTATIONS)),
            "" if status == "OK" else _clipped(details),
        )
        self._writer.submit(self._access_line, record)

    def stream_result(self, call: Call, fields: Mapping[str, object]) -> None:
        """Take down one result of a stream, at debug level only."""
        if self._enabled and self._threshold <= logging.DEBUG:
            record = StreamRecord(self._wall_clock(), self._request_id(call), _clipped(call.method), dict(fields))
            self._writer.submit(self._stream_line, record)

    def _request_id(self, call: Call) -> str:
        """The id that the request brought, else one made here and kept with the call."""
        given = call.annotations.get("request_id")
        if not given:
            sent = (value for key, value in call.metadata if key == "x-request-id")
            given = next(sent, None) or f"{self._id_prefix}-{next(self._ids):x}"
            call.annotations["request_id"] = given
        return _clipped(given if isinstance(given, str) else str(given))

    def _access_line(self, record: AccessRecord) -> bytes:
        model, version, queue_s, run_s, batch_rows, *counts = record.annotations
        fields: Fields = {
            "time": utc(record.at),
            "level": _NAMES[record.level],
            "event": "access",
            "request_id": record.request_id,
            "peer": record.peer,
            "method": record.method,
            "model": model,
            "version": version,
            "status": record.status,
            "total_ms": _ms(record.total_s),
            "queue_ms": _ms(queue_s),
            "run_ms": _ms(run_s),
            "batch_rows": batch_rows,
            **dict(zip(_ANNOTATIONS[-len(counts) :], counts, strict=True)),
            "error": record.error or None,
        }
        return self._render({name: value for name, value in fields.items() if value is not None})

    def _stream_line(self, record: StreamRecord) -> bytes:
        head: Fields = {"time": utc(record.at), "level": "debug", "event": "stream_result"}
        return self._render({**head, "stream_id": record.stream_id, "method": record.method, **record.fields})


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"


def _ms(seconds: object) -> float | None:
    return round(seconds * 1000, 3) if isinstance(seconds, float) else None
