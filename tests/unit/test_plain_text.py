"""Escaping and truncating untrusted text."""

import itertools
import sys
import unicodedata

import pytest

from inferd.plain_text import clipped, escaped, listed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model", "model"),
        ("Grüße 東京 🙂 e\u0301 \u3000x\xa0y", "Grüße 東京 🙂 e\u0301 \u3000x\xa0y"),
        ("a\nb\tc\r", r"a\x0ab\x09c\x0d"),
        ("\x00\x1b[31m\x7f\x85\x9b", r"\x00\x1b[31m\x7f\x85\x9b"),
        ("\u2028\u2029\u202e\u2066\u200b\ufeff\xad", r"\u2028\u2029\u202e\u2066\u200b\ufeff\xad"),
        ("\ud800\ue000\U000e0001\U000f0000\u0378", r"\ud800\ue000\U000e0001\U000f0000\u0378"),
        (r"C:\new\x1b", r"C:\new\x1b"),
    ],
)
def test_escapes_unsafe_characters(text: str, expected: str) -> None:
    """Other characters of any script are kept, backslashes too; escaping is idempotent."""
    assert escaped(text) == expected
    assert escaped(expected) == expected


def test_escapes_all_of_unicode() -> None:
    """Only visible characters and spaces remain."""
    text = escaped("".join(map(chr, range(sys.maxunicode + 1))))
    assert {unicodedata.category(character)[0] for character in text} <= set("LMNPSZ")
    assert not {"\u2028", "\u2029"} & set(text)


def test_keeps_given_characters() -> None:
    """Such as line ends of tracebacks."""
    assert escaped("a\n\x1bb\r\n", keep="\n") == "a\n\\x1bb\\x0d\n"


def test_long_text_is_clipped() -> None:
    """With an ellipsis."""
    assert clipped("x" * 80) == "x" * 80
    assert clipped("x" * 81) == "x" * 80 + "…"


def test_lists_the_first_items() -> None:
    """Also of an endless iterable."""
    assert listed(["a", 1]) == "a, 1"
    assert listed(itertools.count(), most=3, separator=",") == "0,1,2,…"
    assert listed(["x" * 100]) == "x" * 80 + "…"
