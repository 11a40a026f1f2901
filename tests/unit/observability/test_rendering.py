"""No value may cost a line."""

import json

import pytest

from inferd.config.logging import LogFormat
from inferd.observability.rendering import render_json, renderer, utc


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2**70, 2**70),
        ("\ud800", "\ud800"),
        (float("nan"), None),
        (b"x", "b'x'"),
        ({1: object}, {"1": "<class 'object'>"}),
        ("two\nlines", "two\nlines"),
    ],
)
def test_odd_values_in_json(value: object, shown: object) -> None:
    """Numbers beyond 64 bits, broken text, things: one line that parses."""
    line = render_json({"value": value})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"value": shown}


def test_odd_text_for_people() -> None:
    """Broken text is escaped."""
    assert b"\\ud800" in renderer(LogFormat.HUMAN)({"time": "t", "level": "info", "event": "\ud800"})


@pytest.mark.parametrize(
    ("at", "text"), [(0.0, "1970-01-01T00:00:00.000Z"), (1_700_000_000.999999, "2023-11-14T22:13:20.999Z")]
)
def test_time(at: float, text: str) -> None:
    """Always with milliseconds, never rounded into the next second."""
    assert utc(at) == text
