"""One line for each RPC."""

import logging
import sys
import time
from collections.abc import Callable

from inferd import request_id
from inferd.config.logging import LogFormat, LogSettings
from inferd.observability.access_lines import AccessRecord, human_lines, json_lines
from inferd.observability.calls import Call, Status, StreamResult, listen_for_results
from inferd.observability.line_writer import LineWriter, join
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

_LONGEST_TEXT = 512


class AccessLogInterceptor:
    """Takes down each RPC that ends, in half a microsecond or so; the writer's thread makes a line of it.

    A record holds no part of the call but short texts, numbers and its annotations, so that waiting lines keep no
    messages alive. Threads: ``started`` the poll thread, ``finished`` any, at the same time. Neither blocks or raises.
    """

    def __init__(
        self,
        settings: LogSettings,
        writer: LineWriter,
        render: Callable[[Fields], bytes],
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.change(settings)
        self._writer = writer
        self._render = render
        self._lines = json_lines if settings.format is LogFormat.JSON else human_lines(render)
        self._wall_clock = wall_clock
        # Replaced as a whole, as several threads use it.
        self._seen: tuple[Status | None, str, int] = (None, "", 0)

    def change(self, settings: LogSettings) -> None:
        """Take over whether there are access lines, and of which level; any thread, and for calls that end later."""
        level = logging.getLevelNamesMapping()[settings.level.upper()]
        self._threshold = level if settings.access else sys.maxsize

    def started(self, call: Call) -> None:
        """Let every call go on; at debug level, have each result of a stream told."""
        if self._threshold <= logging.DEBUG:
            listen_for_results(call, self._stream_result)

    def finished(self, call: Call, code: Status, details: str) -> None:
        """Take down a call that ended."""
        # Enumerations answer for their names slowly, and nearly all calls in a row end with the same status.
        seen = self._seen
        if seen[0] is not code:
            seen = self._seen = (code, code.name, _LEVELS.get(code.name, logging.INFO))
        _, status, level = seen
        if level < self._threshold:
            return
        method, error = call.method, ""
        if status != "OK":
            # Callers choose the names of methods that are unknown, and what is in the text of an error.
            method, error = _clipped(method), _clipped(details)
        annotations = call.annotations
        if request_id.KEY not in annotations:
            request_id.of(annotations)
        record: AccessRecord = (
            *(self._lines, self._wall_clock(), call.ended_at - call.started_at),
            *(level, call.peer, method, status, error, annotations),
        )
        self._writer.submit(record)

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
        self._writer.submit((join, self._render(line)))


def _clipped(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"
