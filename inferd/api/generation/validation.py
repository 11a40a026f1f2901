"""Check what is wanted against the limits of a version, and put the model's defaults in place of what was not given."""

import random
from dataclasses import dataclass
from typing import TypeVar

from inferd.api.generation.limits import Limits
from inferd.api.generation.wanted import Wanted
from inferd.generation.request import Sampling, Stops

Value = TypeVar("Value")

MAX_LOGPROBS = 20
MAX_STOP_TEXTS = 16
MAX_STOP_TEXT_BYTES = 1024
MAX_STOP_TOKENS = 1024
_SEEDS = 2**64


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """All of a request but its prompt, valid."""

    sampling: Sampling
    stops: Stops
    top_logprobs: int | None


def check(wanted: Wanted, limits: Limits) -> Checked:
    """Check everything but the prompt, and what depends on its length. Raises `InvalidInputError`."""
    _between(wanted, "logprobs", wanted.logprobs, 0, MAX_LOGPROBS)
    if wanted.max_tokens is not None and wanted.max_tokens < 1:
        raise wanted.invalid("max_tokens", f"expected 1 or more, got {wanted.max_tokens}")
    if wanted.min_tokens < 0:
        raise wanted.invalid("min_tokens", f"expected 0 or more, got {wanted.min_tokens}")
    return Checked(sampling=_sampling(wanted, limits), stops=_stops(wanted, limits), top_logprobs=wanted.logprobs)


def max_tokens_of(wanted: Wanted, limits: Limits, prompt_tokens: int) -> int:
    """Return how many tokens to generate at most. Raises `InvalidInputError` if the context has no room for them."""
    context = limits.context_length
    left = context - prompt_tokens
    if left < 1:
        text = f"expected at most {context - 1} tokens, as the context has {context}, got {prompt_tokens}"
        raise wanted.too_long("prompt", text)
    if wanted.max_tokens is None:
        max_tokens = min(left, limits.default_max_tokens)
    elif wanted.max_tokens > left:
        text = (
            f"expected at most {left}, as the context has {context} tokens and the prompt {prompt_tokens},"
            f" got {wanted.max_tokens}"
        )
        raise wanted.too_long("max_tokens", text)
    else:
        max_tokens = wanted.max_tokens
    if wanted.min_tokens > max_tokens:
        raise wanted.invalid("min_tokens", f"expected at most {max_tokens}, as max_tokens, got {wanted.min_tokens}")
    return max_tokens


def _sampling(wanted: Wanted, limits: Limits) -> Sampling:
    _between(wanted, "temperature", wanted.temperature, 0, 2)
    if wanted.top_k is not None and wanted.top_k < 0:
        raise wanted.invalid("top_k", f"expected 0 (all) or more, got {wanted.top_k}")
    if wanted.top_p is not None and not 0 < wanted.top_p <= 1:
        raise wanted.invalid("top_p", f"expected more than 0 and at most 1, got {wanted.top_p:g}")
    _between(wanted, "min_p", wanted.min_p, 0, 1)
    _between(wanted, "frequency_penalty", wanted.frequency_penalty, -2, 2)
    _between(wanted, "presence_penalty", wanted.presence_penalty, -2, 2)
    repetition = wanted.repetition_penalty
    if repetition is not None and not 0 < repetition <= 1e6:
        raise wanted.invalid("repetition_penalty", f"expected more than 0 and at most 1e6, got {repetition:g}")
    default = limits.default_sampling
    return Sampling(
        temperature=_or(wanted.temperature, default.temperature),
        # More means all as well, and may be more than an array holds.
        top_k=min(_or(wanted.top_k, default.top_k), limits.vocabulary_size),
        top_p=_or(wanted.top_p, default.top_p),
        min_p=_or(wanted.min_p, default.min_p),
        # The generator counts from an unsigned number; clients of other servers send signed ones too.
        seed=random.getrandbits(64) if wanted.seed is None else wanted.seed % _SEEDS,
        repetition_penalty=_or(repetition, default.repetition_penalty),
        frequency_penalty=_or(wanted.frequency_penalty, default.frequency_penalty),
        presence_penalty=_or(wanted.presence_penalty, default.presence_penalty),
    )


def _or(given: Value | None, default: Value) -> Value:
    return default if given is None else given


def _between(wanted: Wanted, name: str, value: float | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise wanted.invalid(name, f"expected {least} to {most}, got {value:g}")


def _stops(wanted: Wanted, limits: Limits) -> Stops:
    texts = tuple(wanted.stop_texts)
    if len(texts) > MAX_STOP_TEXTS:
        raise wanted.invalid("stop_texts", f"expected at most {MAX_STOP_TEXTS}, got {len(texts)}")
    for text in texts:
        size = len(text.encode(errors="replace"))
        if not 1 <= size <= MAX_STOP_TEXT_BYTES:
            raise wanted.invalid("stop_texts", f"expected texts of 1 to {MAX_STOP_TEXT_BYTES} bytes, got {size}")
    if texts and not limits.has_tokenizer:
        raise wanted.invalid("stop_texts", "expected none, as the model has no tokenizer")
    if len(wanted.stop_token_ids) > MAX_STOP_TOKENS:
        text = f"expected at most {MAX_STOP_TOKENS}, got {len(wanted.stop_token_ids)}"
        raise wanted.invalid("stop_token_ids", text)
    for token in wanted.stop_token_ids:
        if not 0 <= token < limits.vocabulary_size:
            text = f"expected tokens from 0 to {limits.vocabulary_size - 1}, got {token}"
            raise wanted.invalid("stop_token_ids", text)
    ends = frozenset() if wanted.ignore_end_tokens else limits.end_token_ids
    return Stops(token_ids=ends.union(wanted.stop_token_ids), texts=texts, min_tokens=wanted.min_tokens)
