"""One line for each RPC."""

import functools
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from inferd import request_id
from inferd.config.logging import LogFormat, LogSettings
from inferd.observability.calls import Call, Status, StreamResult, listen_for_results
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

#: What went through a stream, as far as it got; what comes in is counted first.
_STREAM_COUNTS = ("requests", "messages_in", "messages_out")

_LONGEST_TEXT = 512

_UNTRACED = (None,) * 3

#: Peer, method, model, version, status and principal of a call: mostly the same for all calls of a caller.
_Named = tuple[str, str, object, object, str, object]

#: One RPC that ended: when (s since the epoch), level, request id, names, duration (s), rows of the batch, time in the
#: queue and of the run (s), its own rows, counts of a stream, other ids (see `_IDS`), error. A plain tuple, because one
#: is made for each RPC; None where something was not told.
_Record = tuple[float, int, str, _Named, float, Any, Any, Any, Any, tuple[object, ...], tuple[object, ...], str]

#: Trace, span, and the id in the message where the metadata has given the call another one.
_IDS = ("trace_id", "span_id", "id")


class AccessLogInterceptor:
    """Takes down each RPC that ends, in a microsecond or so; the writer's thread makes a line of it.

    A record holds no part of the call but short texts and numbers, so that waiting lines keep no messages alive.
    Threads: ``started`` the poll thread, ``finished`` any, at the same time. Neither blocks or raises.
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
        self.change(settings)
        self._writer = writer
        self._render = render
        # Kept, because each look at a method makes an object of its own.
        self._lines = _json_lines if settings.format is LogFormat.JSON else self._human_lines
        self._clock = clock
        self._wall_clock = wall_clock
        # Replaced as a whole, as several threads use it.
        self._seen: tuple[Status | None, str, int] = (None, "", 0)

    def change(self, settings: LogSettings) -> None:
        """Take over whether there are access lines, and of which level; any thread, and for calls that end later."""
        self._enabled = settings.access
        self._threshold = logging.getLevelNamesMapping()[settings.level.upper()]

    def started(self, call: Call) -> None:
        """Let every call go on; at debug level, have each result of a stream told."""
        if self._enabled and self._threshold <= logging.DEBUG:
            listen_for_results(call, self._stream_result)

    def finished(self, call: Call, code: Status, details: str) -> None:
        """Take down a call that ended."""
        # Enumerations answer for their names slowly, and nearly all calls in a row end with the same status.
        seen = self._seen
        if seen[0] is not code:
            seen = self._seen = (code, code.name, _LEVELS.get(code.name, logging.INFO))
        _, status, level = seen
        if not self._enabled or level < self._threshold:
            return
        method, error = call.method, ""
        if status != "OK":
            # Callers choose the names of methods that are unknown, and what is in the text of an error.
            method, error = _clipped(method), _clipped(details)
        get = call.annotations.get
        record: _Record = (
            self._wall_clock(),
            level,
            _clipped(request_id.of(call.annotations)),
            (call.peer, method, get("model"), get("version"), status, get("principal")),
            self._clock() - call.started_at,
            # Told last and so read first: another thread may be telling, and where this is there, all is.
            get("batch_rows"),
            get("queue_s"),
            get("run_s"),
            get("rows"),
            tuple(map(get, _STREAM_COUNTS)) if "messages_in" in call.annotations else (),
            (get("trace_id"), get("span_id"), get(request_id.OWN_KEY)),
            error,
        )
        self._writer.submit(self._lines, record)

    def _stream_result(self, call: Call, result: StreamResult) -> None:
        """Take down one result of a stream."""
        line: Fields = {"time": utc(self._wall_clock()), "level": "debug", "event": "stream_result"}
        line |= {"stream_id": request_id.of(call.annotations), "method": _clipped(call.method)}
        line |= {"id": request_id.cleaned(result.request_id), "status": result.status}
        if result.model:
            line |= {"model": result.model, "version": result.version}
        stages = result.stages
        if stages.batch is not None and stages.queue_s is not None:
            line |= {"queue_s": stages.queue_s, "run_s": stages.batch.run_s, "batch_rows": stages.batch.rows}
        if result.error:
            line["error"] = _clipped(result.error)
        self._writer.submit(b"".join, self._render(line))

    def _human_lines(self, records: Sequence[_Record]) -> bytes:
        return b"".join(self._render(json.loads(line)) for line in _json_lines(records).splitlines())


def _json_lines(records: Sequence[_Record]) -> bytes:
    """Write one JSON object for each record.

    By hand: a dictionary of the fields for each line and a general writer take three times as long. Percent formats,
    because they take a tenth less than f-strings for numbers.
    """
    lines: list[str] = []
    last_named: _Named | None = None
    last_run_s: float | None = None
    names = run = ""
    for at, level, known_as, named, total_s, batch_rows, queue_s, run_s, rows, counts, ids, error in records:
        # Calls that end together are mostly of one caller, and of one batch, whose requests share one number object.
        if named != last_named:
            last_named, names = named, _names(*named)
        lines.append(
            '{"time":"%s","level":"%s","event":"access","request_id":%s%s,"total_ms":%.3f'  # noqa: UP031  it is faster
            % (utc(at), _NAMES[level], _json(known_as), names, total_s * 1000)
        )
        if batch_rows is not None:
            if run_s is not last_run_s:
                last_run_s, run = run_s, f'"run_ms":{run_s * 1000:.3f},"batch_rows":{batch_rows}'
            lines.append(',"queue_ms":%.3f,%s' % (queue_s * 1000, run))  # noqa: UP031  it is faster
        if rows is not None:
            lines.append(f',"rows":{rows}')
        if counts:
            counted = zip(_STREAM_COUNTS, counts, strict=True)
            lines.append("".join(f',"{name}":{count}' for name, count in counted if count is not None))
        if ids != _UNTRACED:
            known_by = zip(_IDS, ids, strict=True)
            lines.append("".join(f',"{name}":{_json(value)}' for name, value in known_by if value is not None))
        if error:
            lines.append(f',"error":{_json(error)}')
        lines.append("}\n")
    return "".join(lines).encode()


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"


def _json(text: object) -> str:
    try:
        return orjson.dumps(text, default=str).decode()
    except TypeError:
        # File names that are not UTF-8: rare, and no reason to lose this line and its neighbours.
        return json.dumps(text, default=str)


@functools.lru_cache(maxsize=256)
def _names(peer: str, method: str, model: object, version: object, status: str, principal: object) -> str:
    """Write the fields of `_Named`."""
    names = {"peer": peer, "method": method, "model": model, "version": version, "status": status}
    names["principal"] = principal
    return "".join(f',"{name}":{_json(value)}' for name, value in names.items() if value is not None)
