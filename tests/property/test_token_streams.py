"""Text that comes token by token is what the tokenizer makes of all tokens at once."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.generation.text import ModelText
from tests.unit.generation.tokenizers import KINDS

_REPLACEMENT = "\ufffd"
_WORDS = ["the", "fox", "Paris", "a", "日", "😀", "ü"]
_few = settings(max_examples=40)
_NO_PROMPT = np.empty(0, np.int64)


@cache
def _tokenizer(kind):
    return KINDS[kind]()


@cache
def _text(kind):
    # The same one: those that are trained differ from time to time.
    return ModelText(_tokenizer(kind))


def _streamed(kind, prompt, ids):
    stream = _text(kind).stream(np.array(prompt, np.int64))
    return "".join([stream.add(token) for token in ids] + [stream.end()])


def _ids(kind):
    # Models may have more logits than there are tokens.
    return st.lists(st.integers(0, _tokenizer(kind).get_vocab_size() + 2), max_size=30)


@pytest.mark.parametrize("kind", KINDS)
@_few
@given(data=st.data())
def test_pieces_of_text_are_the_text(kind, data):
    """Streamed pieces of an encoded text are that text."""
    text = data.draw(st.text(max_size=40) | st.lists(st.sampled_from(_WORDS)).map(" ".join))
    ids = _tokenizer(kind).encode(text, add_special_tokens=False).ids
    assert _streamed(kind, [], ids) == _tokenizer(kind).decode(ids)


@pytest.mark.parametrize("kind", KINDS)
@_few
@given(data=st.data())
def test_pieces_of_any_tokens_are_their_text(kind, data):
    """Streamed pieces of any tokens are what the tokenizer decodes from them."""
    ids = data.draw(_ids(kind))
    expected = _tokenizer(kind).decode(ids)
    found = _streamed(kind, [], ids)
    if kind == "byte_level" or _REPLACEMENT not in expected:
        assert found == expected
    else:
        # A tokenizer replaces whole runs of bytes with an invalid one; a stream has given out the valid ones before.
        assert _REPLACEMENT in found
        assert found.encode().decode() == found


@pytest.mark.parametrize("kind", KINDS)
@_few
@given(data=st.data())
def test_text_continues_the_prompt(kind, data):
    """Prompt and streamed answer together are the text of all tokens."""
    words = st.lists(st.sampled_from(_WORDS[:4]), min_size=1, max_size=12).map(" ".join)
    prompt = _tokenizer(kind).encode(data.draw(words), add_special_tokens=False).ids
    answer = _tokenizer(kind).encode(data.draw(words), add_special_tokens=False).ids
    both = _tokenizer(kind).decode(prompt + answer)
    assert _tokenizer(kind).decode(prompt) + _streamed(kind, prompt, answer) == both


@_few
@given(data=st.binary(max_size=24))
def test_any_bytes_become_characters_as_soon_as_they_are_complete(data):
    """Byte-level tokens give out each character with its last byte."""
    tokenizer, text = _tokenizer("byte_level"), _text("byte_level")
    by_byte = {text.token_bytes(token): token for token in range(tokenizer.get_vocab_size())}
    stream, found = text.stream(_NO_PROMPT), ""
    for end, byte in enumerate(data, 1):
        found += stream.add(by_byte[bytes([byte])])
        # No more is held back than the beginning of one character.
        assert len(found.encode()) >= len(data[:end].decode(errors="ignore").encode())
        assert data[:end].decode(errors="replace").startswith(found)
    assert found + stream.end() == data.decode(errors="replace")


@_few
@given(data=st.lists(st.sampled_from(["😀", "日", "ü", "the"]), max_size=8).map("".join))
def test_characters_of_byte_tokens_come_when_complete(data):
    """The tokenizer alone replaces all bytes of a run while its last character is incomplete."""
    ids = _tokenizer("gemma").encode(data, add_special_tokens=False).ids
    stream, given_out = _text("gemma").stream(_NO_PROMPT), ""
    for token in ids:
        given_out += stream.add(token)
        assert _REPLACEMENT not in given_out
        assert data.startswith(given_out)
    assert given_out + stream.end() == data
