"""Logging of the whole process: structlog and the standard library's logging produce the same lines."""

import functools
import json
import logging
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from inferd.config.logging import LogFormat, LogSettings
from inferd.observability.logging.writer import LineWriter
from inferd.plain_text import escaped

#: Fields with several lines in the human format.
_LINES = frozenset({"exception", "stack"})

#: The fields of a line: ``time``, ``level`` and ``event`` first, then those of the event.
Fields = dict[str, object]


def utc(at: float) -> str:
    """Format seconds since the epoch as ISO 8601 in UTC."""
    return utc_of_ms(int(at * 1000))


@functools.lru_cache(maxsize=16)
def utc_of_ms(at_ms: int) -> str:
    """Format milliseconds since the epoch as ISO 8601 in UTC; cached, as many lines share one."""
    second, millisecond = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{millisecond:03d}Z"


def renderer(style: LogFormat, *, colors: bool = False) -> Callable[[Fields], bytes]:
    """Return a function that formats fields as a line, newline included."""
    return _human(colors=colors) if style is LogFormat.HUMAN else render_json


def render_json(fields: Fields) -> bytes:
    """Format one JSON object; values without a JSON type become text, and unprintable characters are escaped."""
    shown = _jsonable(fields)
    try:
        return orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # Integers beyond 64 bits.
        return json.dumps(shown).encode() + b"\n"


def _jsonable(value: object, *, keep: str = "") -> Any:  # noqa: ANN401  (any JSON value)
    """Return ``value`` in JSON's types, with all text escaped except ``keep``."""
    if isinstance(value, str):
        return escaped(value, keep=keep)
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {escaped(str(key)): _jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(each) for each in value]
    return escaped(str(value), keep=keep)


def _human(*, colors: bool) -> Callable[[Fields], bytes]:
    console = structlog.dev.ConsoleRenderer(
        colors=colors, timestamp_key="time", sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )

    def render(fields: Fields) -> bytes:
        shown = {
            escaped(name): _jsonable(value, keep=_LINE_END if name in _LINES else "") for name, value in fields.items()
        }
        return f"{console(None, '', shown)}\n".encode()

    return render


#: Logger, level and event, without its fields.
_Kind = tuple[str, int, str]

#: Kinds that are counted at a time, at most; records of further kinds pass.
_MAX_KINDS = 256

CallLater = Callable[[float, Callable[[], None]], None]


@dataclass(slots=True)
class _Seen:
    """Records of one kind within its interval."""

    ends_at: float
    written: int = 0
    suppressed: int = 0
    last: logging.LogRecord | None = None
    has_timer: bool = False


class RepetitionFilter(logging.Filter):
    """Passes ``limit`` warnings or errors of a kind per interval, and counts the others.

    At the end of the interval, ``summarize`` gets the last of them with their number as ``repeated``. Threads: any. The
    lock is held for bookkeeping only.
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
        # Reentrant, because a finalizer that runs at an allocation in here may log.
        self._lock = threading.RLock()
        self._seen: dict[_Kind, _Seen] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write ``record`` now."""
        if not self._limit or record.levelno < logging.WARNING:
            return True
        kind = (record.name, record.levelno, _event(record))
        now = self._clock()
        with self._lock:
            seen = self._seen.get(kind)
            if seen is None or (seen.ends_at <= now and not seen.suppressed):
                if seen is None and not self._has_room(now):
                    return True
                seen = self._seen[kind] = _Seen(now + self._interval_s)
            if seen.written < self._limit:
                seen.written += 1
                return True
            seen.suppressed += 1
            seen.last = record
            has_timer, seen.has_timer = seen.has_timer, True
            left_s = seen.ends_at - now
        if not has_timer:
            self._summarize_later(left_s, kind, seen)
        return False

    def _summarize_later(self, left_s: float, kind: _Kind, seen: _Seen) -> None:
        try:
            self._call_later(left_s, partial(self._summarize_kind, kind))
        except RuntimeError:  # the system gives no thread for it: the next line tries again, or is in time itself
            seen.has_timer = False
            if left_s <= 0:
                self._summarize_kind(kind)

    def flush(self) -> None:
        """Summarize what has been counted so far."""
        for kind in list(self._seen):
            self._summarize_kind(kind)

    def _summarize_kind(self, kind: _Kind) -> None:
        with self._lock:
            seen = self._seen.pop(kind, None)
        if seen is None or seen.last is None:
            return
        self._summarize(_summary(seen.last, seen.suppressed))

    def _has_room(self, now: float) -> bool:
        if len(self._seen) >= _MAX_KINDS:
            self._seen = {kind: seen for kind, seen in self._seen.items() if seen.suppressed or seen.ends_at > now}
        return len(self._seen) < _MAX_KINDS


def _event(record: logging.LogRecord) -> str:
    """Return the event without its arguments; structlog's records hold the fields of the line."""
    message: object = record.msg
    return str(message.get("event")) if isinstance(message, dict) else str(message)


def _summary(last: logging.LogRecord, count: int) -> logging.LogRecord:
    """Return a record for ``count`` records: the last one, without traceback, as earlier ones had it."""
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


_LINE_END = "\n"


class LogControl:
    """Controls the configured logging of the process. Threads: any, one after the other."""

    def __init__(self, repetition: RepetitionFilter) -> None:
        self._repetition = repetition
        self._named: frozenset[str] = frozenset()

    def change(self, settings: LogSettings) -> None:
        """Apply other levels."""
        level = _number(settings.level)
        # At debug, libraries log their event loops and file handles; only our own debug lines are wanted.
        logging.getLogger().setLevel(max(level, logging.INFO))
        levels = {**dict.fromkeys(self._named, logging.NOTSET), "inferd": level}
        levels |= {name: _number(named) for name, named in settings.levels.items()}
        for name, number in levels.items():
            logging.getLogger(name).setLevel(number)
        self._named = frozenset(settings.levels)

    def flush(self) -> None:
        """Log now how many lines were suppressed."""
        self._repetition.flush()


def configure(settings: LogSettings, writer: LineWriter, render: Callable[[Fields], bytes]) -> LogControl:
    """Send all log lines of the process through ``writer``; replaces the previous configuration."""
    handler = _LineHandler(writer, _formatter(settings.format, render))
    repetition = RepetitionFilter(settings.repeats, settings.repeats_interval_s, handler.emit)
    handler.addFilter(repetition)
    logging.captureWarnings(capture=True)
    logging.getLogger().handlers = [handler]
    control = LogControl(repetition)
    control.change(settings)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    return control


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


class _LineHandler(logging.Handler):
    """Formats in the logging thread, because arguments may change, and queues the line."""

    def __init__(self, writer: LineWriter, formatter: logging.Formatter) -> None:
        super().__init__()
        self._writer = writer
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 (a log call never fails its caller; this prints the error)
            self.handleError(record)
        else:
            self._writer.submit(line.encode(errors="backslashreplace"))


def _formatter(style: LogFormat, render: Callable[[Fields], bytes]) -> logging.Formatter:
    def to_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
        return render(dict(event)).decode()

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.contextvars.merge_contextvars, structlog.stdlib.ExtraAdder()],
        processors=[
            _head,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.StackInfoRenderer(),
            _exceptions(style),
            to_line,
        ],
    )


def _head(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put the fields that all lines have first."""
    record: logging.LogRecord = event["_record"]
    head = {"time": utc(record.created), "level": record.levelname.lower(), "event": event.pop("event")}
    return {**head, "logger": record.name, **event}


def _exceptions(style: LogFormat) -> Processor:
    """Return a renderer of exceptions without local variables: those may hold inputs or credentials."""
    if style is LogFormat.HUMAN:
        return structlog.processors.ExceptionRenderer(_traceback)
    return structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
    )


def _traceback(exc_info: ExcInfo) -> str:
    """Format a traceback; newlines in the text of an exception, which may quote a caller, are escaped."""
    error = exc_info[1]
    chunks = traceback.TracebackException(type(error), error, error.__traceback__).format()
    return "".join(
        # Frames and the text between exceptions are Python's, and start with spaces or a newline.
        chunk if chunk.startswith((" ", "\n")) else f"{escaped(chunk.removesuffix(_LINE_END))}{_LINE_END}"
        for chunk in chunks
    ).removesuffix(_LINE_END)
