"""Validate generation parameters against the limits of a model version, and fill in its defaults."""

import random
from dataclasses import dataclass
from typing import TypeVar

from inferd.api.generation.params import GenerationParams
from inferd.errors import InvalidInputError
from inferd.generation.request import Sampling, StopConditions
from inferd.generation_bounds import NUMBERS, stop_violation
from inferd.models.version import ModelVersion
from inferd.runtime.genai_config import GenaiConfig

Value = TypeVar("Value")

MAX_STOP_TOKENS = 1024
_SEEDS = 2**64


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits and defaults of a version of a language model."""

    context_length: int
    vocabulary_size: int
    scores_prompts: bool
    has_tokenizer: bool
    end_token_ids: frozenset[int]
    default_max_tokens: int
    default_sampling: Sampling


def limits_of(version: ModelVersion) -> Limits:
    """Return the limits of ``version``.

    Raises `InvalidInputError` if it is not a language model, `ModelUnavailableError` if it is not loaded.
    """
    language = version.language
    if language is None:
        if not version.is_loaded:
            raise version.unavailable()
        raise InvalidInputError(f'model "{version.name}" is no language model: it does not generate text', at="model")
    return Limits(
        # Less than the model's own context if the cache is too small for it.
        context_length=min(language.limits.context_length, language.generator.max_request_tokens),
        vocabulary_size=language.limits.vocabulary_size,
        scores_prompts=language.limits.scores_prompts,
        has_tokenizer=language.text is not None,
        end_token_ids=frozenset(language.limits.defaults.end_token_ids),
        default_max_tokens=version.settings.generation.default_max_tokens,
        default_sampling=_default_sampling(language.limits.defaults),
    )


def _default_sampling(defaults: GenaiConfig) -> Sampling:
    """Return the sampling of requests that set nothing: that of the model's files, or else greedy."""
    fallback = Sampling()
    return Sampling(
        temperature=fallback.temperature if defaults.temperature is None else defaults.temperature,
        top_k=fallback.top_k if defaults.top_k is None else defaults.top_k,
        top_p=fallback.top_p if defaults.top_p is None else defaults.top_p,
        repetition_penalty=(
            fallback.repetition_penalty if defaults.repetition_penalty is None else defaults.repetition_penalty
        ),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidParams:
    """The parts of a valid request that do not depend on its prompt."""

    sampling: Sampling
    stops: StopConditions
    top_logprobs: int | None


def validate(params: GenerationParams, limits: Limits) -> ValidParams:
    """Validate everything but the prompt and its length. Raises `InvalidInputError`."""
    _require_bounds(params, "logprobs", "min_tokens")
    if not (params.scores_prompt and params.max_tokens == 0):
        _require_bounds(params, "max_tokens")
    if params.scores_prompt and not limits.scores_prompts:
        text = "expected none of the prompt, as the model gives logits of last tokens only"
        raise params.invalid("logprobs", f"{text}, got {params.logprobs}")
    return ValidParams(sampling=_sampling(params, limits), stops=_stops(params, limits), top_logprobs=params.logprobs)


def resolve_max_tokens(params: GenerationParams, limits: Limits, prompt_tokens: int) -> int:
    """Return the maximum number of tokens to generate. Raises `InvalidInputError` if they do not fit the context."""
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
    _require_bounds(params, "temperature", "top_k", "top_p", "min_p")
    _require_bounds(params, "frequency_penalty", "presence_penalty", "repetition_penalty")
    default = limits.default_sampling
    return Sampling(
        temperature=_given_or(params.temperature, default.temperature),
        # A larger top_k keeps all tokens as well, and may be more than an array can have.
        top_k=min(_given_or(params.top_k, default.top_k), limits.vocabulary_size),
        top_p=_given_or(params.top_p, default.top_p),
        min_p=_given_or(params.min_p, default.min_p),
        # Keys of the random generator are unsigned; clients of other servers also send negative seeds.
        seed=random.getrandbits(64) if params.seed is None else params.seed % _SEEDS,
        repetition_penalty=_given_or(params.repetition_penalty, default.repetition_penalty),
        frequency_penalty=_given_or(params.frequency_penalty, default.frequency_penalty),
        presence_penalty=_given_or(params.presence_penalty, default.presence_penalty),
    )


def _given_or(given: Value | None, default: Value) -> Value:
    return default if given is None else given


def _require_bounds(params: GenerationParams, *names: str) -> None:
    for name in names:
        value: float | None = getattr(params, name)
        if value is not None and (text := NUMBERS[name].violation(value)) is not None:
            raise params.invalid(name, text)


def _stops(params: GenerationParams, limits: Limits) -> StopConditions:
    strings = tuple(params.stop_strings)
    if (text := stop_violation(strings)) is not None:
        raise params.invalid("stop_strings", text)
    if strings and not limits.has_tokenizer:
        raise params.invalid("stop_strings", f"expected none, as the model has no tokenizer, got {len(strings)}")
    if len(params.stop_token_ids) > MAX_STOP_TOKENS:
        text = f"expected at most {MAX_STOP_TOKENS}, got {len(params.stop_token_ids)}"
        raise params.invalid("stop_token_ids", text)
    for token in params.stop_token_ids:
        if not 0 <= token < limits.vocabulary_size:
            text = f"expected tokens from 0 to {limits.vocabulary_size - 1}, got {token}"
            raise params.invalid("stop_token_ids", text)
    ends = frozenset() if params.ignore_end_tokens else limits.end_token_ids
    return StopConditions(token_ids=ends.union(params.stop_token_ids), strings=strings, min_tokens=params.min_tokens)
