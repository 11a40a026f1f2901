"""The access log: one line for each RPC."""

import functools
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from inferd.call_context import OWN_ID_KEY, BatchTiming, readable_peer, request_id_of, sanitized_id
from inferd.config.logging import LogFormat, LogSettings
from inferd.observability.calls import Call, Status, StreamResult
from inferd.observability.logging.setup import Fields, utc, utc_of_ms
from inferd.observability.logging.writer import LineWriter
from inferd.observability.recorder import CallRecorder, EndedCall
from inferd.plain_text import clipped, escaped

#: Levels by status; the others are the caller's mistakes, and info.
_LEVELS = {
    "DATA_LOSS": logging.ERROR,
    "INTERNAL": logging.ERROR,
    "UNKNOWN": logging.ERROR,
    "DEADLINE_EXCEEDED": logging.WARNING,
    "RESOURCE_EXHAUSTED": logging.WARNING,
    "UNAVAILABLE": logging.WARNING,
}
_LEVEL_NAMES = {logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}

#: Fields of annotations that few calls have: the counts of a stream, the trace, and the id in a message if the metadata
#: has another one.
_RARE = {
    **{name: name for name in ("requests", "messages_in", "messages_out", "trace_id", "span_id")},
    OWN_ID_KEY: "id",
}

#: Indices of an `EndedCall`.
_ENDED_AT: Final = 0
_STARTED_AT: Final = 1
_CODE: Final = 4
_FACTS: Final = 6

#: Limit in characters for text that a caller has chosen.
MAX_TEXT = 512
_END = "}\n"

#: Formats finished calls of at least a level, given the offset in seconds from their clock to the epoch.
CallFormatter = Callable[[Sequence[EndedCall], float, int], bytes]


def json_lines(calls: Sequence[EndedCall], epoch_s: float, threshold: int) -> bytes:
    """Write one JSON object for each call; a `CallFormatter`.

    Formatted by hand: a dictionary for each line and a general encoder take four times as long. Calls that end together
    are mostly of one caller and one batch, so most parts of a line equal those of the line before; and numbers are
    formatted many at a time, which takes a quarter of the time.
    """
    if threshold > logging.INFO:
        calls = [call for call in calls if _LEVELS.get(call[_CODE].name, logging.INFO) >= threshold]
    if not calls:
        return b""
    ended_at = np.array([call[_ENDED_AT] for call in calls])
    totals = _milliseconds(ended_at - [call[_STARTED_AT] for call in calls])
    moments = ((ended_at + epoch_s) * 1000).astype(np.int64).tolist()
    # Set after the queue time, and so read before it: the batch of a cancelled call may still run.
    batches = [call[_FACTS].batch for call in calls]
    queues = _milliseconds(np.array([call[_FACTS].queue_s or 0.0 for call in calls]))
    pieces: list[str] = []
    head = names = run = status = ""
    level = last_ms = last_level = 0
    is_ok = True
    last_code: Status | None = None
    last_named = last_batch = last_rows = None
    for (_, _, method, peer, code, details, context, annotations), total, ms, batch, queue in zip(
        calls, totals, moments, batches, queues, strict=True
    ):
        if code is not last_code:
            last_code, status = code, code.name
            level, is_ok = _LEVELS.get(status, logging.INFO), status == "OK"
        if ms != last_ms or level != last_level:
            last_ms, last_level = ms, level
            head = f'{{"time":"{utc_of_ms(ms)}","level":"{_LEVEL_NAMES[level]}","event":"access","request_id":"'
        # Callers choose the names of unknown methods.
        named = (
            peer,
            method if is_ok else clipped(method, MAX_TEXT),
            context.model,
            context.version,
            status,
            context.principal,
        )
        if named != last_named:
            last_named, names = named, _names(*named)
        rows = context.rows
        if batch is not last_batch or rows != last_rows:
            last_batch, last_rows, run = batch, rows, _run(batch, rows)
        rest = (
            _END
            if is_ok and annotations is None
            else _rest(annotations or {}, "" if is_ok else clipped(details, MAX_TEXT))
        )
        known_as = context.request_id or request_id_of(context)
        # Printable ASCII, so nothing else needs escaping.
        if '"' in known_as or "\\" in known_as:
            known_as = _json(known_as)[1:-1]
        if batch is None:
            pieces += (head, known_as, names, total, run, rest)
        else:
            pieces += (head, known_as, names, total, ',"queue_ms":', queue, run, rest)
    return "".join(pieces).encode()


def human_lines(render: Callable[[Fields], bytes]) -> CallFormatter:
    """Return a `CallFormatter` that renders the fields of each call with ``render``."""

    def lines(calls: Sequence[EndedCall], epoch_s: float, threshold: int) -> bytes:
        return b"".join(render(json.loads(line)) for line in json_lines(calls, epoch_s, threshold).splitlines())

    return lines


def _milliseconds(durations_s: NDArray[np.float64]) -> list[str]:
    """Format durations in ms, to the microsecond."""
    return orjson.dumps((durations_s * 1000).round(3).tolist()).decode()[1:-1].split(",")


@functools.lru_cache(maxsize=256)
def _names(peer: bytes, method: str, model: str | None, version: str | None, status: str, principal: str | None) -> str:
    """Format the fields that are mostly equal for all calls of a caller, and the name of the next field."""
    names = {"peer": readable_peer(peer), "method": method, "model": model, "version": version, "status": status}
    names["principal"] = principal
    fields = (f',"{name}":{_json(value)}' for name, value in names.items() if value is not None)
    return f'"{"".join(fields)},"total_ms":'


def _run(batch: BatchTiming | None, rows: int | None) -> str:
    """Format the fields of a request's batch, and the number of its own rows."""
    ran = "" if batch is None else f',"run_ms":{batch.run_s * 1000:.3f},"batch_rows":{batch.rows}'
    return ran if rows is None else f'{ran},"rows":{rows}'


def _rest(annotations: Mapping[str, object], error: str) -> str:
    """Format the fields that only some calls have."""
    fields = [f',"{name}":{_json(annotations[key])}' for key, name in _RARE.items() if key in annotations]
    return "".join((*fields, f',"error":{_json(error)}' if error else "", _END))


def _json(value: object) -> str:
    return orjson.dumps(escaped(value) if isinstance(value, str) else value).decode()


class AccessLog:
    """Logs finished calls; at debug level, each result of a stream as well.

    Threads: ``change`` any; calls come from the recorder, results from the thread that answers them.
    """

    def __init__(
        self,
        settings: LogSettings,
        recorder: CallRecorder,
        writer: LineWriter,
        render: Callable[[Fields], bytes],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._recorder = recorder
        self._writer = writer
        self._render = render
        self._lines = json_lines if settings.format is LogFormat.JSON else human_lines(render)
        self._clock = clock
        self._wall_clock = wall_clock
        self.change(settings)
        recorder.add(self._calls_ended)

    def change(self, settings: LogSettings) -> None:
        """Apply the level, and whether the access log is on, to calls that end from now on."""
        self._recorder.flush()
        level = logging.getLevelNamesMapping()[settings.level.upper()]
        self._threshold = level if settings.access else None
        logs_results = settings.access and level <= logging.DEBUG
        self._recorder.result_listener = self._stream_result if logs_results else None

    def _calls_ended(self, calls: Sequence[EndedCall]) -> None:
        threshold = self._threshold
        if threshold is None:
            return
        epoch_s = self._wall_clock() - self._clock()
        if lines := self._lines(calls, epoch_s, threshold):
            self._writer.submit(lines)

    def _stream_result(self, call: Call, result: StreamResult) -> None:
        """Log one result of a stream."""
        line: Fields = {"time": utc(self._wall_clock()), "level": "debug", "event": "stream_result"}
        line |= {"stream_id": request_id_of(call.context), "method": clipped(call.method, MAX_TEXT)}
        line |= {"id": sanitized_id(result.request_id), "status": result.status}
        if result.model:
            line |= {"model": result.model, "version": result.version}
        stages = result.stages
        if stages.batch is not None and stages.queue_s is not None:
            line |= {"queue_s": stages.queue_s, "run_s": stages.batch.run_s, "batch_rows": stages.batch.rows}
        if result.error:
            line["error"] = clipped(result.error, MAX_TEXT)
        self._writer.submit(self._render(line))
