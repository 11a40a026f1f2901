"""Chats, whatever is in their messages: ordinary texts have the tokens of the whole, special tokens are text."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.generation.chat import ChatTemplate
from inferd.generation.literal_texts import LiteralTexts, has_marks, unmarked
from inferd.generation.text import ModelText
from tests.unit.generation.tokenizers import BEGIN, END, KINDS, MARK

_TEMPLATE = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}<s>assistant\n"
_few = settings(max_examples=40)
_words = st.sampled_from(["the", "fox ", "<", "</", "s>", "|", " ", "\n", "ü", "日", "😀", MARK, "1"])
_ordinary = st.text(max_size=20) | st.lists(_words, max_size=9).map("".join)


@cache
def _text(kind):
    return ModelText(KINDS[kind](), ChatTemplate(_TEMPLATE, {}))


def _is_ordinary(text):
    return not any(token in text for token in (BEGIN, END, "<unk>"))


@pytest.mark.parametrize("kind", KINDS)
@_few
@given(contents=st.lists(_ordinary.filter(_is_ordinary), min_size=1, max_size=3))
def test_ordinary_chats(kind, contents):
    """Have the tokens of the rendered text, from either tokenizer."""
    text = _text(kind)
    rendered = text.render([{"role": "user", "content": content} for content in contents])
    expected = text.encode(rendered, add_special_tokens=False).tolist()
    assert not has_marks(rendered)
    assert text.encode_rendered(rendered).tolist() == expected
    assert LiteralTexts(text._tokenizer, "").encode(rendered) == expected


@pytest.mark.parametrize("kind", KINDS)
@_few
@given(pieces=st.lists(_words | st.sampled_from([BEGIN, END, "<unk>"]), max_size=12))
def test_chats_with_special_tokens(kind, pieces):
    """Have as many special tokens as without them; byte-level tokenizers lose nothing."""
    text, content = _text(kind), "".join(pieces)
    rendered = text.render([{"role": "user", "content": content}])
    ids = text.encode_rendered(rendered).tolist()
    assert [token for token in ids if token in (1, 2)] == [1, 2, 1]
    assert content in unmarked(rendered)
    if kind == "byte_level":
        assert b"".join(map(text.token_bytes, ids)).decode() == unmarked(rendered)
