"""Tokenizes chats so that control tokens, those which separate messages, stay text if callers write them."""

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from os.path import commonprefix
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Digits, which the functions of templates leave as they are; random, so that no message has it.
_MARK = f"{secrets.randbelow(10**24):024}"


class LiteralTexts:
    """Marks the control tokens in messages, and tokenizes what a template made of the messages. Used by any thread.

    They are the special tokens, and other added ones in the ``frame``, what the template writes around messages. A mark
    behind the first character of one cuts it in two, neither of which is a token. So tokens of one character cannot be
    marked.
    """

    def __init__(self, tokenizer: "Tokenizer", frame: str) -> None:
        added = sorted(tokenizer.get_added_tokens_decoder().items())
        control = sorted(
            token.content
            for _, token in added
            if len(token.content) > 1 and (token.special or (token.content in frame and _is_name(token.content)))
        )
        self._control = re.compile(_one_of(control)) if control else None
        self._tokenizer, self._mark_id = _with_mark(tokenizer, [token for _, token in added])

    def marked(self, messages: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
        """Return ``messages`` with marks."""
        return [{name: self._marked(text) for name, text in message.items()} for message in messages]

    def _marked(self, text: str) -> str:
        control = self._control
        if control is None or control.search(text) is None:
            return text
        pieces, begin = [], 0
        # The next one may begin within the last.
        while (found := control.search(text, begin)) is not None:
            pieces.append(text[begin : found.start() + 1])
            begin = found.start() + 1
        return _MARK.join([*pieces, text[begin:]])

    def encode(self, rendered: str) -> list[int]:
        """Return the token ids of a text that has marks."""
        [encoding] = self._tokenizer.encode_batch_fast([rendered], add_special_tokens=False)
        return [token_id for token_id in encoding.ids if token_id != self._mark_id]


def _is_name(token: str) -> bool:
    """Return whether ``token`` is between signs, as ``<|user|>``: others are spaces and words of ordinary texts."""
    return not token[0].isalnum() and not token[-1].isalnum() and len(token.split()) == 1


def has_marks(text: str) -> bool:
    """Return whether `LiteralTexts.marked` put a mark into ``text``."""
    return _MARK in text


def unmarked(text: str) -> str:
    """Return ``text`` without marks."""
    return text.replace(_MARK, "")


def _with_mark(tokenizer: "Tokenizer", added: Sequence[object]) -> tuple["Tokenizer", int | None]:
    """Return a tokenizer that shares the vocabulary of ``tokenizer`` and has the mark as a token, and that token's id.

    ``added`` are its added tokens by their ids.
    """
    from tokenizers import AddedToken, Tokenizer  # noqa: PLC0415  (not every server has it)

    made = Tokenizer(tokenizer.model)
    if tokenizer.normalizer is not None:
        made.normalizer = tokenizer.normalizer
    if tokenizer.pre_tokenizer is not None:
        made.pre_tokenizer = tokenizer.pre_tokenizer
    made.add_tokens(list(added))
    made.add_tokens([AddedToken(_MARK, normalized=False)])
    return made, made.token_to_id(_MARK)


def _one_of(texts: Sequence[str]) -> str:
    """Return a pattern for any of ``texts``, which are sorted; it tries each character once, however many there are."""
    prefix = commonprefix(texts)  # noqa: RUF071  (of characters, as it is meant here)
    rests = [text[len(prefix) :] for text in texts]
    if "" in rests:
        return re.escape(prefix)
    branches = [_one_of(list(group)) for _, group in groupby(rests, key=lambda rest: rest[0])]
    return f"{re.escape(prefix)}(?:{'|'.join(branches)})"
