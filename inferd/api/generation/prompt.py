"""Turn what is to be continued into tokens."""

from collections.abc import Iterable, Sequence

import numpy as np

from inferd.api.generation.limits import Limits
from inferd.api.generation.wanted import Chat, Wanted
from inferd.errors import InvalidInputError
from inferd.generation.request import TokenIds
from inferd.models.version import ModelVersion

#: What is tokenized on the poll thread; more takes longer than a millisecond.
SHORT_CHARACTERS = 2048
_SHORT_MESSAGES = 32

MAX_MESSAGES = 1024


def takes_long(wanted: Wanted) -> bool:
    """Return whether to turn the prompt into tokens in the thread for large messages."""
    prompt = wanted.prompt
    if isinstance(prompt, Chat):
        if len(prompt.messages) > _SHORT_MESSAGES:
            return True
        return sum(len(text) for message in prompt.messages for text in message.values()) > SHORT_CHARACTERS
    return not isinstance(prompt, np.ndarray) and len(prompt) > SHORT_CHARACTERS


def tokens_of(wanted: Wanted, version: ModelVersion, limits: Limits) -> TokenIds:
    """Return the tokens of the prompt, at least one; any thread. Raises `InvalidInputError`."""
    prompt = wanted.prompt
    if not isinstance(prompt, str | Chat):
        return _given_tokens(wanted, prompt, limits)
    text = version.text
    if text is None:
        raise wanted.invalid("prompt", f'expected token ids, as model "{version.name}" has no tokenizer')
    _require_text(wanted, prompt)
    try:
        tokens = text.encode_chat(prompt.messages) if isinstance(prompt, Chat) else text.encode(prompt)
    except InvalidInputError as error:
        error.field = error.field or wanted.field_of("prompt")
        raise
    if not len(tokens):
        raise wanted.invalid("prompt", "expected at least one token, got an empty text")
    return tokens


def text_of(wanted: Wanted, version: ModelVersion) -> str:
    """Return the text that a valid prompt is: of a chat what the template makes of it; of tokens none. Any thread."""
    prompt = wanted.prompt
    if isinstance(prompt, Chat):
        return "" if version.text is None else version.text.render(prompt.messages)
    return prompt if isinstance(prompt, str) else ""


def _require_text(wanted: Wanted, prompt: str | Chat) -> None:
    texts: Iterable[str] = (prompt,)
    if isinstance(prompt, Chat):
        if not 1 <= len(prompt.messages) <= MAX_MESSAGES:
            raise wanted.invalid("prompt", f"expected 1 to {MAX_MESSAGES} messages, got {len(prompt.messages)}")
        texts = (text for message in prompt.messages for text in message.values())
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        # JSON may have it.
        raise wanted.invalid("prompt", "expected text, got half of a surrogate pair") from None


def _given_tokens(wanted: Wanted, prompt: Sequence[int] | TokenIds, limits: Limits) -> TokenIds:
    try:
        tokens = np.asarray(prompt, dtype=np.int64)
    except (OverflowError, TypeError, ValueError):
        raise wanted.invalid("prompt", "expected token ids") from None
    if not tokens.size:
        raise wanted.invalid("prompt", "expected at least one token, got none")
    wrong = np.flatnonzero((tokens < 0) | (tokens >= limits.vocabulary_size))
    if wrong.size:
        position = int(wrong[0])
        text = f"expected tokens from 0 to {limits.vocabulary_size - 1}, got {tokens[position]} at {position}"
        raise wanted.invalid("prompt", text)
    return tokens
