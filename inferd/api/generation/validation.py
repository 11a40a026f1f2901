"""Validate generation params against the limits of a version, and fill in the model's defaults."""

import random
from dataclasses import dataclass
from typing import TypeVar

from inferd.api.generation.limits import Limits
from inferd.api.generation.params import GenerationParams
from inferd.generation.request import Sampling, StopConditions

Value = TypeVar("Value")

MAX_LOGPROBS = 20
MAX_STOP_TEXTS = 16
MAX_STOP_TEXT_BYTES = 1024
MAX_STOP_TOKENS = 1024
_SEEDS = 2**64


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """All of a valid request but its prompt."""

    sampling: Sampling
    stops: StopConditions
    top_logprobs: int | None


def check(params: GenerationParams, limits: Limits) -> Checked:
    """Check everything but the prompt, and what depends on its length. Raises `InvalidInputError`."""
    _between(params, "logprobs", params.logprobs, 0, MAX_LOGPROBS)
    least = 0 if params.scores_prompt else 1
    if params.max_tokens is not None and params.max_tokens < least:
        raise params.invalid("max_tokens", f"expected {least} or more, got {params.max_tokens}")
    if params.scores_prompt and not limits.scores_prompts:
        raise params.invalid("logprobs", "expected none of the prompt, as the model gives logits of last tokens only")
    if params.min_tokens < 0:
        raise params.invalid("min_tokens", f"expected 0 or more, got {params.min_tokens}")
    return Checked(sampling=_sampling(params, limits), stops=_stops(params, limits), top_logprobs=params.logprobs)


def max_tokens_of(params: GenerationParams, limits: Limits, prompt_tokens: int) -> int:
    """Return how many tokens to generate at most. Raises `InvalidInputError` if the context has no room for them."""
    context = limits.context_length
    left = context - prompt_tokens
    least = 0 if params.max_tokens == 0 else 1
    if left < least:
        text = f"expected at most {context - least} tokens, as the context has {context}, got {prompt_tokens}"
        raise params.too_long("prompt", text)
    if params.max_tokens is None:
        max_tokens = min(left, limits.default_max_tokens)
    elif params.max_tokens > left:
        text = (
            f"expected at most {left}, as the context has {context} tokens and the prompt {prompt_tokens},"
            f" got {params.max_tokens}"
        )
        raise params.too_long("max_tokens", text)
    else:
        max_tokens = params.max_tokens
    if params.min_tokens > max_tokens:
        raise params.invalid("min_tokens", f"expected at most {max_tokens}, as max_tokens, got {params.min_tokens}")
    return max_tokens


def _sampling(params: GenerationParams, limits: Limits) -> Sampling:
    _between(params, "temperature", params.temperature, 0, 2)
    if params.top_k is not None and params.top_k < 0:
        raise params.invalid("top_k", f"expected 0 (all) or more, got {params.top_k}")
    if params.top_p is not None and not 0 < params.top_p <= 1:
        raise params.invalid("top_p", f"expected more than 0 and at most 1, got {params.top_p:g}")
    _between(params, "min_p", params.min_p, 0, 1)
    _between(params, "frequency_penalty", params.frequency_penalty, -2, 2)
    _between(params, "presence_penalty", params.presence_penalty, -2, 2)
    repetition = params.repetition_penalty
    if repetition is not None and not 0 < repetition <= 1e6:
        raise params.invalid("repetition_penalty", f"expected more than 0 and at most 1e6, got {repetition:g}")
    default = limits.default_sampling
    return Sampling(
        temperature=_or(params.temperature, default.temperature),
        # More means all as well, and may be more than an array holds.
        top_k=min(_or(params.top_k, default.top_k), limits.vocabulary_size),
        top_p=_or(params.top_p, default.top_p),
        min_p=_or(params.min_p, default.min_p),
        # The generator counts from an unsigned number; clients of other servers send signed ones too.
        seed=random.getrandbits(64) if params.seed is None else params.seed % _SEEDS,
        repetition_penalty=_or(repetition, default.repetition_penalty),
        frequency_penalty=_or(params.frequency_penalty, default.frequency_penalty),
        presence_penalty=_or(params.presence_penalty, default.presence_penalty),
    )


def _or(given: Value | None, default: Value) -> Value:
    return default if given is None else given


def _between(params: GenerationParams, name: str, value: float | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise params.invalid(name, f"expected {least} to {most}, got {value:g}")


def _stops(params: GenerationParams, limits: Limits) -> StopConditions:
    texts = tuple(params.stop_texts)
    if len(texts) > MAX_STOP_TEXTS:
        raise params.invalid("stop_texts", f"expected at most {MAX_STOP_TEXTS}, got {len(texts)}")
    for text in texts:
        size = len(text.encode(errors="replace"))
        if not 1 <= size <= MAX_STOP_TEXT_BYTES:
            raise params.invalid("stop_texts", f"expected texts of 1 to {MAX_STOP_TEXT_BYTES} bytes, got {size}")
    if texts and not limits.has_tokenizer:
        raise params.invalid("stop_texts", "expected none, as the model has no tokenizer")
    if len(params.stop_token_ids) > MAX_STOP_TOKENS:
        text = f"expected at most {MAX_STOP_TOKENS}, got {len(params.stop_token_ids)}"
        raise params.invalid("stop_token_ids", text)
    for token in params.stop_token_ids:
        if not 0 <= token < limits.vocabulary_size:
            text = f"expected tokens from 0 to {limits.vocabulary_size - 1}, got {token}"
            raise params.invalid("stop_token_ids", text)
    ends = frozenset() if params.ignore_end_tokens else limits.end_token_ids
    return StopConditions(token_ids=ends.union(params.stop_token_ids), strings=texts, min_tokens=params.min_tokens)
