"""Long strings that are cut out of JSON before it is parsed."""

import base64
import json

import pytest

from inferd.api.rest.long_texts import read_with_long_texts
from inferd.errors import InvalidInputError

_FILE = base64.b64encode(bytes(range(256)) * 1000).decode()


def test_files_are_cut_out():
    """They are views of the body; short strings, escapes and numbers between them are parsed."""
    content = {"a": 'x "y" \\', "file:1/a": _FILE, "b": [1, {"c": None}], "file:1/b": _FILE[::-1], "d": ""}
    found, texts = read_with_long_texts(json.dumps(content).encode())
    restored = {
        name: value if (text := texts.get(value)) is None else bytes(text).decode() for name, value in found.items()
    }
    assert restored == content
    assert [name for name, value in found.items() if texts.get(value) is not None] == ["file:1/a", "file:1/b"]


def test_short_bodies_are_parsed_as_they_are():
    """Their strings stay, however long."""
    text = "x" * 10_000
    found, texts = read_with_long_texts(json.dumps({"a": text}).encode())
    assert found == {"a": text}
    assert texts.get(text) is None


def test_marks_cannot_be_guessed():
    """A text of the caller stands for itself."""
    found, texts = read_with_long_texts(json.dumps({"a": "long text 0 0", "b": _FILE}).encode())
    assert texts.get(found["a"]) is None
    assert texts.get(found["b"]) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"%d":1' % number for number in range(100_000)) + b"}",
        b'{"a":[' + b"1," * 200_000 + b"1]}",
        b'{"a":"' + b'\\"' * 200_000 + b'"}',
        b'{"a":"' + b"\\\\" * 200_000 + b'"}',
        b'{"a":1}' + b" " * 200_000 + b'"',
        b'{"a":"' + b"x" * 200_000,
        b"[" * 200_000,
    ],
    ids=["names", "numbers", "escaped quotes", "backslashes", "spaces", "no end", "arrays"],
)
def test_everything_else_is_bounded(body):
    """Only what is likely to be a file may be long."""
    with pytest.raises(InvalidInputError):
        read_with_long_texts(body)
