"""How a log line looks, whatever it tells of."""

import functools
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from inferd.config.logging import LogFormat
from inferd.plain_text import escaped

#: Fields that take several lines for people.
_LINES = frozenset({"exception", "stack"})
_LINE_END = "\n"

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
