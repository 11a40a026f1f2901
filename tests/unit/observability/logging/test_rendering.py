"""Log lines from any field values."""

import json
from pathlib import PurePath

import pytest

from inferd.config.logging import LogFormat
from inferd.observability.logging.setup import render_json, renderer, utc
from inferd.plain_text import escaped


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2**70, 2**70),
        ("\ud800", r"\ud800"),
        (float("nan"), None),
        (b"x", "b'x'"),
        ({1: object}, {"1": "<class 'object'>"}),
        ("two\nlines", r"two\x0alines"),
        ({"\x1b": ["\x9b", ("\u202e",)]}, {r"\x1b": [r"\x9b", [r"\u202e"]]}),
        (PurePath("a\x7f"), r"a\x7f"),
    ],
)
def test_unusual_values_in_json(value: object, shown: object) -> None:
    """Numbers beyond 64 bits, invalid text, objects: one line that parses."""
    line = render_json({"value": value})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"value": shown}


@pytest.mark.parametrize("style", [LogFormat.HUMAN, LogFormat.JSON])
def test_lines_are_safe_for_terminals(style: LogFormat) -> None:
    """Whatever is in the event, and in names and values of fields."""
    harmful = "\ud800\x00\x1b\x7f\x85\x9b\u2028\u202e\u200b"
    values = (harmful, [harmful], {harmful: harmful}, PurePath(harmful), ValueError(harmful))
    fields = {"time": "t", "level": "info", "event": harmful} | {f"{harmful}{n}": each for n, each in enumerate(values)}
    line = renderer(style)(fields).decode()
    assert line == escaped(line, keep="\n")
    assert line.count("\n") == 1
    assert line.count("x9b") == 12


def test_human_tracebacks_keep_line_breaks() -> None:
    """Everything else in them is escaped."""
    fields = {"time": "t", "level": "info", "event": "e", "exception": "one\ntwo\x1b", "stack": "three\nfour"}
    assert {r"two\x1b", "four"} <= set(renderer(LogFormat.HUMAN)(fields).decode().splitlines())


@pytest.mark.parametrize(
    ("at", "text"), [(0.0, "1970-01-01T00:00:00.000Z"), (1_700_000_000.999999, "2023-11-14T22:13:20.999Z")]
)
def test_timestamps(at: float, text: str) -> None:
    """Always with milliseconds, never rounded up to the next second."""
    assert utc(at) == text
