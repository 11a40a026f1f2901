"""Sets up logging for the whole process: structlog and the standard library's logging give the same lines."""

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

#: Fields that take several lines for people.
_LINES = frozenset({"exception", "stack"})

#: A line by field: ``time``, ``level`` and ``event`` first, then what belongs to the event.
Fields = dict[str, object]


def utc(at: float) -> str:
    """Write seconds since the epoch as ISO 8601 in UTC."""
    return utc_of_ms(int(at * 1000))


@functools.lru_cache(maxsize=16)
def utc_of_ms(at_ms: int) -> str:
    """Write milliseconds since the epoch as ISO 8601 in UTC; many lines are of the same one."""
    second, millisecond = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{millisecond:03d}Z"


def renderer(style: LogFormat, *, colors: bool = False) -> Callable[[Fields], bytes]:
    """Return what makes a line, newline included, of its fields."""
    return _human(colors=colors) if style is LogFormat.HUMAN else render_json


def render_json(fields: Fields) -> bytes:
    """Write one JSON object; values that JSON does not know become text, and what cannot be seen is escaped."""
    shown = _shown(fields)
    try:
        return orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # Integers beyond 64 bits: rare, and no reason to lose a line.
        return json.dumps(shown).encode() + b"\n"


def _shown(value: object, *, keep: str = "") -> Any:  # noqa: ANN401  (whatever a field may be)
    """Return ``value`` as JSON's types, with all text in it escaped apart from ``keep``."""
    if isinstance(value, str):
        return escaped(value, keep=keep)
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {escaped(str(key)): _shown(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(each) for each in value]
    return escaped(str(value), keep=keep)


def _human(*, colors: bool) -> Callable[[Fields], bytes]:
    console = structlog.dev.ConsoleRenderer(
        colors=colors, timestamp_key="time", sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )

    def render(fields: Fields) -> bytes:
        shown = {
            escaped(name): _shown(value, keep=_LINE_END if name in _LINES else "") for name, value in fields.items()
        }
        return f"{console(None, '', shown)}\n".encode()

    return render


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


_LINE_END = "\n"


class LogControl:
    """The logging of the process, once it has been set up. Threads: any, one after the other."""

    def __init__(self, repetition: RepetitionFilter) -> None:
        self._repetition = repetition
        self._named: frozenset[str] = frozenset()

    def change(self, settings: LogSettings) -> None:
        """Write lines of these levels from now on."""
        level = _number(settings.level)
        # At debug, libraries tell of their event loops and file handles; ours is what was asked for.
        logging.getLogger().setLevel(max(level, logging.INFO))
        levels = {**dict.fromkeys(self._named, logging.NOTSET), "inferd": level}
        levels |= {name: _number(named) for name, named in settings.levels.items()}
        for name, number in levels.items():
            logging.getLogger(name).setLevel(number)
        self._named = frozenset(settings.levels)

    def flush(self) -> None:
        """Tell now of lines that were held back."""
        self._repetition.flush()


def configure(settings: LogSettings, writer: LineWriter, render: Callable[[Fields], bytes]) -> LogControl:
    """Send every log line of the process through ``writer``. Replaces whatever logging was set up before."""
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
    """Formats in the thread that logs, because arguments may change, and leaves the writing to the writer."""

    def __init__(self, writer: LineWriter, formatter: logging.Formatter) -> None:
        super().__init__()
        self._writer = writer
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 (a log call never fails its caller; this prints what was wrong with it)
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
    """Put the fields that every line has in front."""
    record: logging.LogRecord = event["_record"]
    head = {"time": utc(record.created), "level": record.levelname.lower(), "event": event.pop("event")}
    return {**head, "logger": record.name, **event}


def _exceptions(style: LogFormat) -> Processor:
    """Exceptions as fields, without local variables: those may hold inputs or credentials."""
    if style is LogFormat.HUMAN:
        return structlog.processors.ExceptionRenderer(_traceback)
    return structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
    )


def _traceback(exc_info: ExcInfo) -> str:
    """Write a traceback in which the text of an exception, which may quote a caller, ends no line."""
    error = exc_info[1]
    chunks = traceback.TracebackException(type(error), error, error.__traceback__).format()
    return "".join(
        # Frames and the words between exceptions are ours, and begin with spaces or a line's end.
        chunk if chunk.startswith((" ", "\n")) else f"{escaped(chunk.removesuffix(_LINE_END))}{_LINE_END}"
        for chunk in chunks
    ).removesuffix(_LINE_END)
