"""Sets up logging for the whole process: structlog and the standard library's logging give the same lines."""

import logging
import traceback
from collections.abc import Callable

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from inferd.config.logging import LogFormat, LogSettings
from inferd.observability.line_writer import LineWriter
from inferd.observability.rendering import Fields, utc
from inferd.observability.repetition import RepetitionFilter
from inferd.plain_text import escaped

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
