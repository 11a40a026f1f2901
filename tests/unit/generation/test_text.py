"""A model's tokenizer: files, tokens of texts, bytes of tokens. Streams are in tests/property/test_token_streams.py."""

import json
import logging
import sys
import threading

import numpy as np
import pytest
from tokenizers import Tokenizer

from inferd.errors import InvalidInputError
from inferd.generation import text as text_module
from inferd.generation.text import ModelText
from inferd.runtime.errors import ModelLoadError
from tests.patience import PATIENCE_S
from tests.unit.generation.tokenizers import KINDS, byte_level, sentence_piece

_CHAT = [{"role": "user", "content": "the fox"}]
_TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture
def folder(tmp_path):
    sentence_piece().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "chat_template": _TEMPLATE}))
    return tmp_path


def test_reads_the_files_of_a_model(folder):
    text = ModelText.load(folder)
    assert text.has_chat_template
    assert text.vocabulary_size == sentence_piece().get_vocab_size()
    assert text.encode("the fox").tolist() == sentence_piece().encode("the fox").ids
    assert text.encode("the fox").dtype == np.int64


def test_special_tokens_of_a_chat_come_from_the_template_alone(folder):
    text = ModelText.load(folder)
    begin = 1
    assert text.render(_CHAT) == "<s>the fox"
    assert text.encode_rendered(text.render(_CHAT)).tolist().count(begin) == 1


def test_model_without_tokenizer_has_no_text(tmp_path):
    assert ModelText.load(tmp_path) is None


def test_server_without_the_package_serves_token_ids(folder, monkeypatch, caplog):
    monkeypatch.setattr(text_module, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert ModelText.load(folder) is None
    assert "inferd[text]" in caplog.text


@pytest.mark.parametrize("content", ["", "{}", "no JSON", '{"model": {"type": "unknown"}}'])
def test_file_that_is_no_tokenizer_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelLoadError, match=r"tokenizer.json: expected the file of a tokenizer") as raised:
        ModelText.load(tmp_path)
    assert str(tmp_path) not in str(raised.value)


def test_texts_are_neither_truncated_nor_padded(tmp_path):
    made = byte_level()
    made.enable_truncation(3)
    made.enable_padding(length=64)
    made.save(str(tmp_path / "tokenizer.json"))
    text = ModelText.load(tmp_path)
    assert len(text.encode("xyz" * 5)) == len(byte_level().encode("xyz" * 5).ids)


def test_half_a_surrogate_pair_is_refused(folder):
    with pytest.raises(InvalidInputError, match="prompt: expected Unicode text") as raised:
        ModelText.load(folder).encode("\ud83d")
    assert raised.value.field == "prompt"


def test_without_template_chats_are_refused():
    with pytest.raises(InvalidInputError, match="messages: the model has no chat template") as raised:
        ModelText(byte_level()).render(_CHAT)
    assert raised.value.field == "messages"


def test_other_threads_run_while_a_text_is_encoded():
    """Threads give up the interpreter lock only of their own accord here, so another one runs only if encoding does."""
    text, ran, go = ModelText(byte_level()), [], threading.Lock()

    def run():
        with go:
            ran.append(True)

    thread = threading.Thread(target=run)
    interval = sys.getswitchinterval()
    with go:
        thread.start()
        sys.setswitchinterval(PATIENCE_S)
    try:
        for _ in range(100):
            text.encode("the fox jumps over " * 500)
            if ran:
                break
        assert ran
    finally:
        sys.setswitchinterval(interval)
        thread.join(PATIENCE_S)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_of_tokens_are_the_text_that_they_add(kind):
    tokenizer = KINDS[kind]()
    text = ModelText(tokenizer)
    ids = tokenizer.encode("the fox jumps", add_special_tokens=False).ids
    found = b"".join(map(text.token_bytes, ids)).decode()
    assert found.strip() == tokenizer.decode(ids)
    assert text.token_bytes(tokenizer.get_vocab_size() + 5) == b""


def test_bytes_of_special_tokens_are_their_names():
    for kind in KINDS.values():
        tokenizer = kind()
        assert ModelText(tokenizer).token_bytes(tokenizer.token_to_id("</s>")) == b"</s>"


def test_bytes_of_incomplete_characters():
    for kind in ("byte_level", "sentence_piece", "gemma"):
        tokenizer: Tokenizer = KINDS[kind]()
        ids = tokenizer.encode("語", add_special_tokens=False).ids
        tokens = [ModelText(tokenizer).token_bytes(token) for token in ids]
        assert b"".join(tokens).decode().strip() == "語"
    assert {len(token) for token in tokens} == {1}


def test_added_tokens_that_are_not_special_are_text():
    tokenizer = byte_level()
    ids = tokenizer.encode("a<think>思 考</s>b").ids
    stream = ModelText(tokenizer).stream(np.empty(0, np.int64))
    assert "".join(map(stream.add, ids)) == "a<think>思 考b"


def test_first_space_of_an_answer_depends_on_what_is_before():
    tokenizer = sentence_piece()
    text = ModelText(tokenizer)
    fox = tokenizer.token_to_id("▁fox")
    words, behind_special = text.encode("the").tolist(), [*text.encode("the").tolist(), 2]
    assert [text.stream(np.array(prompt, np.int64)).add(fox) for prompt in (words, behind_special)] == [" fox", "fox"]
