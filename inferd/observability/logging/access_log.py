"""The access log: one line for each RPC."""

import functools
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from inferd.call_context import (
    GENERATED_KEY,
    LOAD_WAIT_KEY,
    OWN_ID_KEY,
    CallContext,
    Generated,
    readable_peer,
    request_id_of,
    sanitized_id,
)
from inferd.config.logging import LogFormat, LogSettings
from inferd.observability.logging.setup import Fields, utc, utc_of_ms
from inferd.observability.logging.writer import LineWriter
from inferd.observability.recorder import CallRecorder, FinishedCall
from inferd.observability.stream_results import StreamResult
from inferd.plain_text import clipped, escaped
from inferd.rpc import Call

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

#: Fields of annotations that some calls have: the status of HTTP, the counts of a stream, the trace, the wait for a
#: model on demand, and the id in a message if the metadata has another one.
_RARE = {
    "http_status": "http_status",
    **{
        name: name
        for name in ("requests", "messages_in", "messages_out", "bytes_out", "trace_id", "span_id", LOAD_WAIT_KEY)
    },
    OWN_ID_KEY: "id",
}

#: Limit in characters for text that a caller has chosen.
MAX_TEXT = 512
_END = "}\n"

#: Formats finished calls of at least a level, given the offset in seconds from their clock to the epoch.
CallFormatter = Callable[[Sequence[FinishedCall], float, int], bytes]


def json_lines(calls: Sequence[FinishedCall], epoch_s: float, threshold: int) -> bytes:
    """Write one JSON object for each call; a `CallFormatter`.

    Formatted by hand: a dictionary for each line and a general encoder take four times as long. Calls that end together
    are mostly of one caller and one batch, so most parts of a line are cached; and numbers are formatted many at a
    time, which takes a quarter of the time.
    """
    if threshold > logging.INFO:
        calls = [call for call in calls if _LEVELS.get(call.status.name, logging.INFO) >= threshold]
    if not calls:
        return b""
    ended_at = np.array([call.ended_at for call in calls])
    totals = _milliseconds(ended_at - [call.started_at for call in calls])
    moments = ((ended_at + epoch_s) * 1000).astype(np.int64).tolist()
    # Set after the queue time, and so read before it: the batch of a cancelled call may still run.
    batches = [call.context.batch for call in calls]
    queues = _milliseconds(np.array([call.context.queue_s or 0.0 for call in calls]))
    pieces: list[str] = []
    last_status, status = None, ""
    for call, total, ms, batch, queue in zip(calls, totals, moments, batches, queues, strict=True):
        context = call.context
        if call.status is not last_status:
            # Once for consecutive calls, because an enum's name is a slow property.
            last_status, status = call.status, call.status.name
        # Callers choose the names of unknown methods.
        method = call.method if status == "OK" else clipped(call.method, MAX_TEXT)
        pieces += (
            _head(ms, status),
            _request_id(context),
            _names(call.peer, method, context.model, context.version, status, context.principal),
            total,
        )
        if batch is not None:
            pieces += (',"queue_ms":', queue, _run(batch.run_s, batch.rows))
        if context.rows is not None:
            pieces.append(f',"rows":{context.rows}')
        end = _END if status == "OK" else _error(call.details)
        pieces.append(end if call.annotations is None else _rare(call.annotations, context) + end)
    return "".join(pieces).encode()


def human_lines(render: Callable[[Fields], bytes]) -> CallFormatter:
    """Return a `CallFormatter` that renders the fields of each call with ``render``."""

    def lines(calls: Sequence[FinishedCall], epoch_s: float, threshold: int) -> bytes:
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


@functools.lru_cache(maxsize=16)
def _head(ms: int, status: str) -> str:
    """Format the first fields, up to the quote before the request id."""
    level = _LEVEL_NAMES[_LEVELS.get(status, logging.INFO)]
    return f'{{"time":"{utc_of_ms(ms)}","level":"{level}","event":"access","request_id":"'


def _request_id(context: CallContext) -> str:
    """Return the escaped request id, which is printable ASCII."""
    text = context.request_id or request_id_of(context)
    return _json(text)[1:-1] if '"' in text or "\\" in text else text


@functools.lru_cache(maxsize=16)
def _run(run_s: float, rows: int) -> str:
    """Format the fields of the batch that a request was in."""
    return f',"run_ms":{run_s * 1000:.3f},"batch_rows":{rows}'


def _rare(annotations: Mapping[str, Any], context: CallContext) -> str:
    """Format the fields that only some calls have."""
    found = {name: annotations[key] for key, name in _RARE.items() if key in annotations}
    if GENERATED_KEY in annotations:
        found |= _generated(annotations[GENERATED_KEY], context.queue_s)
    return "".join([f',"{name}":{_json(value)}' for name, value in found.items()])


def _generated(generated: Generated, queue_s: float | None) -> Fields:
    """Return the fields of a call or request that generates; those of a cancelled one are what it got until then."""
    fields: Fields = {"prompt_tokens": generated.prompt_tokens, "generated_tokens": generated.tokens}
    for name, seconds in (("queue_ms", queue_s), ("ttft_ms", generated.first_token_s)):
        if seconds is not None:
            fields[name] = round(seconds * 1000, 3)
    if generated.finish_reasons:
        fields["finish_reason"] = ",".join(generated.finish_reasons)
    return fields


@functools.lru_cache(maxsize=16)
def _error(details: str) -> str:
    """Format the error, if there is one, and the end; cached, because calls that are refused together have the same."""
    return f',"error":{_json(clipped(details, MAX_TEXT))}{_END}' if details else _END


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

    def _calls_ended(self, calls: Sequence[FinishedCall]) -> None:
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
        if result.generated is not None:
            line |= _generated(result.generated, stages.queue_s)
        if result.error:
            line["error"] = clipped(result.error, MAX_TEXT)
        self._writer.submit(self._render(line))
