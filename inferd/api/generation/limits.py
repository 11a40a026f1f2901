"""Limits and defaults of a version of a language model."""

from dataclasses import dataclass

from inferd.errors import InvalidInputError
from inferd.generation.request import Sampling
from inferd.models.version import ModelVersion
from inferd.runtime.genai_config import GenaiConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits and defaults of a version."""

    context_length: int
    vocabulary_size: int
    scores_prompts: bool
    has_tokenizer: bool
    end_token_ids: frozenset[int]
    default_max_tokens: int
    default_sampling: Sampling


def limits_of(version: ModelVersion) -> Limits:
    """Return the limits of a READY version. Raises `InvalidInputError` for one that is no language model."""
    language = version.language
    if language is None:
        if not version.is_loaded:
            raise version.unavailable()
        raise InvalidInputError(f'model "{version.name}" is no language model: it does not generate text', at="model")
    return Limits(
        # Less than what the model was made for, if the cache is too small for that.
        context_length=min(language.limits.context_length, language.generator.max_request_tokens),
        vocabulary_size=language.limits.vocabulary_size,
        scores_prompts=language.limits.scores_prompts,
        has_tokenizer=language.text is not None,
        end_token_ids=frozenset(language.limits.defaults.end_token_ids),
        default_max_tokens=version.settings.generation.default_max_tokens,
        default_sampling=_default_sampling(language.limits.defaults),
    )


def _default_sampling(defaults: GenaiConfig) -> Sampling:
    """Return the sampling of requests that set nothing: what the model's files say, or else greedy."""
    fallback = Sampling()
    return Sampling(
        temperature=fallback.temperature if defaults.temperature is None else defaults.temperature,
        top_k=fallback.top_k if defaults.top_k is None else defaults.top_k,
        top_p=fallback.top_p if defaults.top_p is None else defaults.top_p,
        repetition_penalty=(
            fallback.repetition_penalty if defaults.repetition_penalty is None else defaults.repetition_penalty
        ),
    )
