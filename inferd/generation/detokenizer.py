"""Detokenizes token by token, so that the pieces together are the text that the tokenizer decodes from all tokens."""

import codecs
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from inferd.generation.ports import TextStream
from inferd.generation.request import TokenIds

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Tokens of single bytes, for characters that are not in the vocabulary.
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
#: Tokens before one that its text depends on: a space before a word depends on there being any, and on the last one.
_CONTEXT = 2
#: Tokens whose bytes are cached; a few megabytes.
_CACHED_TOKENS = 32768


class HuggingFaceDetokenizer:
    """A `Detokenizer` for tokenizers of Hugging Face. Used by any thread.

    Byte-level tokenizers write bytes as letters, and any token may end within a character. Others have whole characters
    in their tokens, and tokens for single bytes. Their tokens may add more than their own characters, such as a space
    before a word, which may depend on the token before; only the tokenizer knows.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._added = frozenset(added)
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        types = _decoder_types(tokenizer)
        self.is_byte_level = types == {"ByteLevel"}
        self._has_byte_tokens = "ByteFallback" in types
        self._some_word = [token_id for token_id in self._encode("a") if token_id not in self._added][-1:]
        self.token_bytes = lru_cache(_CACHED_TOKENS)(self._bytes_of)

    def stream(self, prompt: TokenIds) -> TextStream:
        """See `Detokenizer.stream`; the text leaves out special tokens."""
        if self.is_byte_level:
            return _ByteStream(self)
        before: list[int] = []
        for token_id in reversed(prompt[-_CONTEXT:].tolist()):
            # Text after a special token begins as it does without a prompt.
            if token_id in self.special_ids:
                break
            before.insert(0, token_id)
        return _WordStream(self, before)

    def is_text(self, token_id: int) -> bool:
        """Return False for special tokens and for ids beyond the vocabulary, which add no text."""
        return token_id not in self.special_ids and bool(self._token(token_id))

    def byte(self, token_id: int) -> bytes | None:
        """Return the byte of a single-byte token; None for other tokens."""
        found = _BYTE.fullmatch(self._token(token_id)) if self._has_byte_tokens else None
        return bytes.fromhex(found[1]) if found else None

    def added_text(self, before: Sequence[int], token_id: int) -> str:
        """Return what ``token_id`` adds to the text of the tokens ``before`` it."""
        decode = self._tokenizer.decode
        ids = list(before)
        return decode([*ids, token_id], skip_special_tokens=False)[len(decode(ids, skip_special_tokens=False)) :]

    def _bytes_of(self, token_id: int) -> bytes:
        token = self._token(token_id)
        if self.is_byte_level:
            # Tokens that were added to the vocabulary may have letters that stand for no byte.
            mapped = [_BYTES.get(letter) for letter in token]
            return token.encode() if None in mapped else bytes(byte for byte in mapped if byte is not None)
        if token_id in self._added:
            return token.encode()
        byte = self.byte(token_id)
        return self.added_text(self._some_word, token_id).encode() if byte is None else byte

    def _token(self, token_id: int) -> str:
        """Return the vocabulary's string of a token; empty for ids beyond it, which models may have."""
        return self._tokenizer.id_to_token(token_id) or ""

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids


class _ByteStream:
    """The text of a byte-level tokenizer."""

    def __init__(self, detokenizer: HuggingFaceDetokenizer) -> None:
        self._detokenizer = detokenizer
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token_id: int) -> str:
        if token_id in self._detokenizer.special_ids:
            return ""
        return self._characters.decode(self._detokenizer.token_bytes(token_id))

    def end(self) -> str:
        return self._characters.decode(b"", final=True)


class _WordStream:
    """The text of other tokenizers, including characters of single-byte tokens."""

    def __init__(self, detokenizer: HuggingFaceDetokenizer, before: list[int]) -> None:
        self._detokenizer = detokenizer
        self._before = before
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token_id: int) -> str:
        if not self._detokenizer.is_text(token_id):
            return ""
        byte = self._detokenizer.byte(token_id)
        if byte is None:
            text = self.end() + self._detokenizer.added_text(self._before, token_id)
        else:
            text = self._characters.decode(byte)
        self._before = [*self._before[1 - _CONTEXT :], token_id]
        return text

    def end(self) -> str:
        rest = self._characters.decode(b"", final=True)
        self._characters.reset()
        return rest


def _decoder_types(tokenizer: "Tokenizer") -> set[str]:
    """Return the types of the steps of the tokenizer's decoder."""
    decoder = tokenizer.decoder
    if decoder is None:
        return set()
    description = json.loads(decoder.__getstate__())
    return {step["type"] for step in description.get("decoders", [description])}


def _letters_of_bytes() -> dict[str, int]:
    """Return the byte of each letter in tokens of byte-level tokenizers: those of GPT-2."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}


_BYTES = _letters_of_bytes()
