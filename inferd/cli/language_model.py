"""Load a language model as a server would, and show how it would be served: for `inferd inspect`."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from inferd.config import ModelSettings, Settings
from inferd.generation.text import ModelText
from inferd.models.language.loading import OpenedLanguageModel, Stages, open_language_model
from inferd.models.language.settings import language_settings
from inferd.models.repository import ModelSource
from inferd.runtime.decoder_graph import DecoderForm

_MIB = 2**20
#: From here on, a size is told in whole numbers.
_WHOLE = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedLanguageModel:
    """A language model as a server would load it. ``warnings`` are those that a server would log."""

    source: ModelSource
    opened: OpenedLanguageModel
    form: DecoderForm
    warnings: tuple[str, ...]


def load_language_model(
    path: Path, form: DecoderForm, own: ModelSettings, settings: Settings, name: str
) -> OpenedLanguageModel:
    """Load the language model in ``path`` as a server with ``settings`` would. Raises `ModelLoadError`."""
    return open_language_model(
        path,
        form,
        language_settings(own, settings.for_model({}), name),
        stages=Stages(verifying=lambda: None, warming=lambda: None, turn=nullcontext),
        clock=time.monotonic,
        budget_bytes=settings.repository.memory_budget_bytes,
    )


def sentences(model: ServedLanguageModel) -> Iterator[str]:
    """Yield how the model would be served."""
    opened, decoder, layers = model.opened, model.opened.decoder, len(model.form.caches) // 2
    sequences = f"{decoder.slots} sequences"
    yield (
        f"Is a language model of {layers} layers, with a context of {decoder.context_length} tokens and a vocabulary "
        f"of {decoder.vocabulary_size}."
    )
    yield (
        f"Would generate up to {sequences} at a time, with a cache of {_mib(opened.cache_bytes)}, "
        f"{_mib(1024 * decoder.cache_bytes_per_token)} for 1024 tokens."
    )
    yield f"Would take {_prompts(opened.text)}."
    if opened.seeds.steps:
        alone, full = (f"{1000 * seconds:.3g} ms" for _, seconds in (opened.seeds.steps[0], opened.seeds.steps[-1]))
        yield f"Took {alone} for a token of one sequence, and {full} for one of each of {sequences}."
    yield f"Would run on {', '.join(decoder.providers)}."


def _prompts(text: ModelText | None) -> str:
    if text is None:
        return "token ids only, as there is no tokenizer.json that can be read"
    return "text, chats or token ids" if text.has_chat_template else "text or token ids"


def generation_json(model: ServedLanguageModel) -> dict[str, object]:
    """Return what a server reports of it."""
    opened, text = model.opened, model.opened.text
    return {
        "context_length": opened.decoder.context_length,
        "vocabulary_size": opened.decoder.vocabulary_size,
        "max_sequences": opened.decoder.slots,
        "cache_bytes_per_token": opened.decoder.cache_bytes_per_token,
        "cache_bytes": opened.cache_bytes,
        "has_tokenizer": text is not None,
        "has_chat_template": text is not None and text.has_chat_template,
        "default_max_tokens": min(opened.settings.generation.default_max_tokens, opened.decoder.context_length),
        "end_token_ids": opened.decoder.defaults.end_token_ids,
    }


def _mib(nbytes: int) -> str:
    size = nbytes / _MIB
    return f"{size:,.0f} MiB" if size >= _WHOLE else f"{size:.2g} MiB"
