"""Turn prompts into tokens."""

from collections.abc import Iterable, Sequence

import numpy as np

from inferd.api.generation.limits import Limits
from inferd.api.generation.params import Chat, GenerationParams
from inferd.errors import InvalidInputError
from inferd.generation.request import TokenIds
from inferd.models.version import ModelVersion

#: What is tokenized on the poll thread; more takes longer than a millisecond. A character that is not ASCII counts as
#: many bytes.
SHORT_BYTES = 2048
_SHORT_MESSAGES = 32

#: No tokenizer has longer tokens: a text with more characters for each token of the context is not tokenized at all, as
#: that would keep others waiting for seconds.
_LONGEST_TOKEN = 128

MAX_MESSAGES = 1024


def takes_long(params: GenerationParams) -> bool:
    """Return whether to turn the prompt into tokens in the thread for large messages."""
    prompt = params.prompt
    if isinstance(prompt, Chat):
        if len(prompt.messages) > _SHORT_MESSAGES:
            return True
        return sum(_bytes(text) for message in prompt.messages for text in message.values()) > SHORT_BYTES
    if isinstance(prompt, str):
        return _bytes(prompt) > SHORT_BYTES
    return not isinstance(prompt, np.ndarray) and len(prompt) > SHORT_BYTES


def _bytes(text: str) -> int:
    """Return about how long ``text`` is in UTF-8, without encoding it."""
    return len(text) if text.isascii() else 3 * len(text)


def tokens_of(params: GenerationParams, version: ModelVersion, limits: Limits) -> tuple[TokenIds, str]:
    """Return the tokens of the prompt, at least one, and its text. Any thread. Raises `InvalidInputError`.

    The text of a chat is what the template makes of it; given tokens have none.
    """
    prompt = params.prompt
    if not isinstance(prompt, str | Chat):
        return _given_tokens(params, prompt, limits), ""
    model = version.text
    if model is None:
        raise params.invalid("prompt", f'expected token ids, as model "{version.name}" has no tokenizer')
    _require_text(params, prompt)
    try:
        text = model.render(prompt.messages) if isinstance(prompt, Chat) else prompt
        if len(text) > _LONGEST_TOKEN * limits.context_length:
            most = limits.context_length - 1
            raise params.too_long("prompt", f"expected at most {most} tokens, got {len(text)} characters")
        tokens = model.encode_rendered(text) if isinstance(prompt, Chat) else model.encode(text)
    except InvalidInputError as error:
        error.field = params.field_of("prompt")
        raise
    if not len(tokens):
        raise params.invalid("prompt", "expected at least one token, got an empty text")
    return tokens, text


def _require_text(params: GenerationParams, prompt: str | Chat) -> None:
    texts: Iterable[str]
    if isinstance(prompt, str):
        texts = (prompt,)
    else:
        if not 1 <= len(prompt.messages) <= MAX_MESSAGES:
            raise params.invalid("prompt", f"expected 1 to {MAX_MESSAGES} messages, got {len(prompt.messages)}")
        texts = (text for message in prompt.messages for text in message.values())
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        # JSON may have it.
        raise params.invalid("prompt", "expected text, got half of a surrogate pair") from None


def _given_tokens(params: GenerationParams, prompt: Sequence[int] | TokenIds, limits: Limits) -> TokenIds:
    try:
        tokens = np.asarray(prompt, dtype=np.int64)
    except (OverflowError, TypeError, ValueError):
        raise params.invalid("prompt", "expected token ids") from None
    if not tokens.size:
        raise params.invalid("prompt", "expected at least one token, got none")
    wrong = np.flatnonzero((tokens < 0) | (tokens >= limits.vocabulary_size))
    if wrong.size:
        position = int(wrong[0])
        text = f"expected tokens from 0 to {limits.vocabulary_size - 1}, got {tokens[position]} at {position}"
        raise params.invalid("prompt", text)
    return tokens
