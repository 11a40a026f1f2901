"""Tokenize prompts: for generation, and for the method ``Tokenize``, which returns the tokens."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

import numpy as np

from inferd.api.admission import charge_invalid, charge_request, find_model
from inferd.api.generation.params import Chat, GenerationParams
from inferd.api.generation.validation import Limits, limits_of
from inferd.api.handler_resources import HandlerResources
from inferd.api.model_waits import Waited
from inferd.call_context import log_fields
from inferd.errors import ColdModelError, InferenceFailedError, InvalidInputError, ServingError
from inferd.generation.literal_texts import unmarked
from inferd.generation.request import TokenIds
from inferd.models.version import ModelVersion
from inferd.rpc import Call

_log = logging.getLogger(__name__)


#: The longest prompt to tokenize on the poll thread, where it takes up to a millisecond: bytes of text, token ids, or
#: messages.
SHORT_BYTES = 2048
_SHORT_MESSAGES = 32

#: Characters of the longest token of any tokenizer. Texts with more than this for each token of the context are
#: rejected without tokenizing them, which would take seconds.
_MAX_TOKEN_CHARACTERS = 128

MAX_MESSAGES = 1024


def is_long_prompt(params: GenerationParams) -> bool:
    """Return whether the prompt must be tokenized in the thread for large messages."""
    prompt = params.prompt
    if isinstance(prompt, Chat):
        if len(prompt.messages) > _SHORT_MESSAGES:
            return True
        return sum(_bytes(text) for message in prompt.messages for text in message.values()) > SHORT_BYTES
    if isinstance(prompt, str):
        return _bytes(prompt) > SHORT_BYTES
    return not isinstance(prompt, np.ndarray) and len(prompt) > SHORT_BYTES


def _bytes(text: str) -> int:
    """Return an upper estimate of the bytes of ``text`` in UTF-8, without encoding it."""
    return len(text) if text.isascii() else 3 * len(text)


def tokenize_prompt(params: GenerationParams, version: ModelVersion, limits: Limits) -> tuple[TokenIds, str]:
    """Return the token ids of the prompt, at least one, and its text: rendered for a chat, empty for token ids.

    Any thread. Raises `InvalidInputError`.
    """
    prompt = params.prompt
    if not isinstance(prompt, str | Chat):
        return _check_token_ids(params, prompt, limits), ""
    model = version.text
    if model is None:
        raise params.invalid("prompt", f'expected token ids, as model "{version.name}" has no tokenizer')
    _check_text(params, prompt)
    try:
        marked = model.render(prompt.messages) if isinstance(prompt, Chat) else prompt
        text = unmarked(marked)
        if len(text) > _MAX_TOKEN_CHARACTERS * limits.context_length:
            most = limits.context_length - 1
            raise params.too_long("prompt", f"expected at most {most} tokens, got {len(text)} characters")
        tokens = model.encode_rendered(marked) if isinstance(prompt, Chat) else model.encode(text)
    except InvalidInputError as error:
        error.field = params.field_of("prompt")
        raise
    if not len(tokens):
        raise params.invalid("prompt", "expected at least one token, got an empty text")
    return tokens, text


def _check_text(params: GenerationParams, prompt: str | Chat) -> None:
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
        # JSON can escape halves of surrogate pairs, which are no text.
        raise params.invalid("prompt", "expected text, got half of a surrogate pair") from None


def _check_token_ids(params: GenerationParams, prompt: Sequence[int] | TokenIds, limits: Limits) -> TokenIds:
    try:
        tokens = np.asarray(prompt, dtype=np.int64)
    except (OverflowError, TypeError, ValueError):
        raise params.invalid("prompt", "expected token ids, got others than integers of 64 bits") from None
    if not tokens.size:
        raise params.invalid("prompt", "expected at least one token, got none")
    wrong = np.flatnonzero((tokens < 0) | (tokens >= limits.vocabulary_size))
    if wrong.size:
        position = int(wrong[0])
        text = f"expected tokens from 0 to {limits.vocabulary_size - 1}, got {tokens[position]} at {position}"
        raise params.invalid("prompt", text)
    return tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenized:
    """The result of ``Tokenize``: token ids and text of a prompt, as `tokenize_prompt` returns them."""

    version: ModelVersion
    ids: TokenIds
    text: str


class Tokenizations:
    """Serves ``Tokenize``; each call counts as one request in the quota of its caller. Called on the poll thread."""

    def __init__(self, resources: HandlerResources) -> None:
        self._resources = resources

    def begin(
        self,
        call: Call,
        params: GenerationParams,
        respond: Callable[[Tokenized], object],
        fail: Callable[[ServingError], None],
    ) -> None:
        """Call ``respond`` with the tokens of the prompt, or ``fail`` with an error; either in any thread."""
        self._begin(call, params, respond, fail, Waited(monotonic()))

    def _begin(
        self,
        call: Call,
        params: GenerationParams,
        respond: Callable[[Tokenized], object],
        fail: Callable[[ServingError], None],
        waited: Waited,
    ) -> None:
        try:
            version, _ = find_model(self._resources.registry, call, params.model, params.version)
            limits = limits_of(version)
            charge_request(call, version.name)
            work = partial(self._tokenize, call, params, version, limits, respond, fail)
            if is_long_prompt(params):
                self._resources.large_messages.decode(work)
            else:
                work()
        except ColdModelError as error:
            go_on = partial(self._begin, call, params, respond, fail)
            call.on_terminated(self._resources.waits.add(call, error, waited, go_on=go_on, fail=fail))
        except InvalidInputError as error:
            params.name_field(error)
            fail(charge_invalid(call, error))
        except ServingError as error:
            fail(charge_invalid(call, error))

    def _tokenize(
        self,
        call: Call,
        params: GenerationParams,
        version: ModelVersion,
        limits: Limits,
        respond: Callable[[Tokenized], object],
        fail: Callable[[ServingError], None],
    ) -> None:
        """Tokenize and answer; in any thread."""
        if call.ended_at != math.inf:
            return
        try:
            tokens, text = tokenize_prompt(params, version, limits)
        except ServingError as error:
            fail(error)
        except Exception:  # noqa: BLE001  (the thread must go on, and the call must end)
            _log.exception("could not tokenize a prompt of %s", call.method, extra=log_fields(call))
            fail(InferenceFailedError())
        else:
            respond(Tokenized(version=version, ids=tokens, text=text))
