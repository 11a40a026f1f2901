"""One line for each RPC."""

import functools
import itertools
import logging
import secrets
import time
from collections.abc import Callable, Mapping

import orjson

from inferd.config.settings import LogFormat, LogSettings
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

#: What went through a stream.
_STREAM_COUNTS = ("requests", "messages_in", "messages_out")

_LONGEST_TEXT = 512


class AccessLogInterceptor:
    """Makes a line of each RPC that ends, in a few microseconds, and leaves the writing to the writer.

    The line is made at once: what it tells of is at hand then, while records that wait to become lines are cold, and
    larger. Threads: ``finished`` and ``stream_result`` any, at the same time. Neither blocks or raises.
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
        self._is_json = settings.format is LogFormat.JSON
        self._clock = clock
        self._wall_clock = wall_clock
        self._id_prefix = secrets.token_hex(4)
        self._ids = itertools.count(1)
        # Replaced as a whole, as several threads use it.
        self._seen: tuple[Status | None, str, int] = (None, "", 0)

    def started(self, call: Call) -> None:
        """Let every call go on."""

    def finished(self, call: Call, code: Status, details: str) -> None:
        """Take down a call that ended."""
        # Enumerations answer for their names slowly, and nearly all calls in a row end with the same status.
        seen = self._seen
        if seen[0] is not code:
            seen = self._seen = (code, code.name, _LEVELS.get(code.name, logging.INFO))
        _, status, level = seen
        if not self._enabled or level < self._threshold:
            return
        self._writer.submit(self._line(call, level, status, details))

    def stream_result(self, call: Call, fields: Mapping[str, object]) -> None:
        """Take down one result of a stream, at debug level only."""
        if self._enabled and self._threshold <= logging.DEBUG:
            line: Fields = {"time": utc(self._wall_clock()), "level": "debug", "event": "stream_result"}
            line |= {"stream_id": self._request_id(call), "method": _clipped(call.method), **fields}
            self._writer.submit(self._render(line))

    def _line(self, call: Call, level: int, status: str, details: str) -> bytes:
        # Written by hand: a dictionary of the fields and a general writer take three times as long.
        get = call.annotations.get
        line = '{"time":"%s","level":"%s","event":"access","request_id":%s%s,"total_ms":%.3f' % (
            utc(self._wall_clock()),
            _NAMES[level],
            _json(self._request_id(call)),
            _names(call.peer, call.method, get("model"), get("version"), status),
            (self._clock() - call.started_at) * 1000,
        )
        if (run_s := get("run_s")) is not None:
            line += ',"queue_ms":%.3f,"run_ms":%.3f,"batch_rows":%d' % (
                get("queue_s") * 1000,
                run_s * 1000,
                get("batch_rows"),
            )
        if (rows := get("rows")) is not None:
            line += f',"rows":{rows}'
        elif "requests" in call.annotations:
            line += "".join(f',"{name}":{get(name)}' for name in _STREAM_COUNTS)
        if details and status != "OK":
            line += f',"error":{_json(_clipped(details))}'
        written = (line + "}\n").encode()
        return written if self._is_json else self._render(orjson.loads(written))

    def _request_id(self, call: Call) -> str:
        """The id that the request brought, else one made here and kept with the call."""
        given = call.annotations.get("request_id")
        if not given:
            for key, value in call.metadata:
                if key == "x-request-id":
                    given = value
                    break
            given = given or f"{self._id_prefix}-{next(self._ids):x}"
            call.annotations["request_id"] = given
        return _clipped(given if isinstance(given, str) else str(given))


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"


def _json(text: object) -> str:
    return orjson.dumps(text, default=str).decode()


@functools.lru_cache(maxsize=256)
def _names(peer: str, method: str, model: object, version: object, status: str) -> str:
    """Write the fields that are mostly the same for all calls of a caller."""
    names = {"peer": peer, "method": _clipped(method), "model": model, "version": version, "status": status}
    return "".join(f',"{name}":{_json(value)}' for name, value in names.items() if value is not None)
