"""How a log line looks, whatever it tells of."""

import functools
import json
from collections.abc import Callable
from datetime import UTC, datetime

import orjson
import structlog

from inferd.config.logging import LogFormat

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
    """Write one JSON object; values that JSON does not know become text."""
    try:
        return orjson.dumps(fields, default=str, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # Integers beyond 64 bits and file names that are not UTF-8: rare, and no reason to lose a line.
        return json.dumps(fields, default=str, skipkeys=True).encode() + b"\n"


def _human(*, colors: bool) -> Callable[[Fields], bytes]:
    console = structlog.dev.ConsoleRenderer(
        colors=colors, timestamp_key="time", sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )

    def render(fields: Fields) -> bytes:
        return f"{console(None, '', dict(fields))}\n".encode(errors="backslashreplace")

    return render
