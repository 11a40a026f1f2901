"""What is shown of text from elsewhere."""

import itertools
import sys
import unicodedata

import pytest

from inferd.plain_text import clipped, escaped, listed


@pytest.mark.parametrize(
    ("text", "shown"),
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
def test_what_cannot_be_seen_is_escaped(text: str, shown: str) -> None:
    """The rest stays, in any script, backslashes too; twice is as good as once."""
    assert escaped(text) == shown
    assert escaped(shown) == shown


def test_nothing_harmful_is_left_of_any_character() -> None:
    """Each one that there is: only what can be seen, and spaces."""
    text = escaped("".join(map(chr, range(sys.maxunicode + 1))))
    assert {unicodedata.category(character)[0] for character in text} <= set("LMNPSZ")
    assert not {"\u2028", "\u2029"} & set(text)


def test_what_is_to_be_kept_is_kept() -> None:
    """Line ends of tracebacks."""
    assert escaped("a\n\x1bb\r\n", keep="\n") == "a\n\\x1bb\\x0d\n"


def test_long_text_is_clipped() -> None:
    """And says so."""
    assert clipped("x" * 80) == "x" * 80
    assert clipped("x" * 81) == "x" * 80 + "…"


def test_no_more_of_a_list_is_taken_than_shown() -> None:
    """Of one without an end as well."""
    assert listed(["a", 1]) == "a, 1"
    assert listed(itertools.count(), most=3, separator=",") == "0,1,2,…"
    assert listed(["x" * 100]) == "x" * 80 + "…"
