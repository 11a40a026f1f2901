"""Open a language model: its decoder and tokenizer, trial runs, and the memory limit of its cache."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from inferd.batching.ports import Clock
from inferd.config.settings import ModelSettings
from inferd.generation.text import ModelText
from inferd.generation.trial import NO_SEEDS, RunSeeds, verify, warm_up
from inferd.models.residency import NO_MEMORY, Memory
from inferd.runtime.batch_axes.verdict import Verdict
from inferd.runtime.decoder import OnnxDecoder
from inferd.runtime.decoder_graph import DecoderForm
from inferd.runtime.decoder_opening import open_decoder
from inferd.runtime.model_folder import model_folder
from inferd.runtime.resources import available_bytes, resident_bytes, usable_bytes

_log = logging.getLogger(__name__)

#: Without generation.cache_bytes, the cache takes at most the free memory divided by the first number, and the budget
#: of all models divided by the second.
_FREE_DIVISOR = 2
_BUDGET_DIVISOR = 4
#: Minimum cache: a machine that is short of memory must still serve requests of this length.
_MIN_TOKENS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedLanguageModel:
    """A language model that is ready to generate, with the run times and settings for its engine.

    ``settings`` have the size of the cache. ``cache`` is its memory, where a measurement of the load does not have it.
    """

    decoder: OnnxDecoder
    text: ModelText | None
    verdict: Verdict
    seeds: RunSeeds
    settings: ModelSettings
    cache: Memory

    @property
    def cache_bytes(self) -> int:
        """Maximum bytes of the cache of all sequences, on the host or a device."""
        return self.settings.generation.cache_bytes or 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Stages:
    """Callbacks of a load: at the begin of the trial and of the warm-up, which runs within ``turn``."""

    verifying: Callable[[], None]
    warming: Callable[[], None]
    turn: Callable[[], AbstractContextManager[None]]


def open_language_model(
    path: Path,
    form: DecoderForm,
    settings: ModelSettings,
    *,
    stages: Stages,
    clock: Clock,
    budget_bytes: int | None,
    promised_bytes: int = 0,
    is_immutable: bool = False,
) -> OpenedLanguageModel:
    """Open the language model in ``path``, which is of ``form``. Raises `ModelLoadError`.

    ``budget_bytes`` is the budget of all models, if there is one, and ``promised_bytes`` the memory that the caches of
    other models may still take.
    """
    text = load_text(path)
    decoder = open_decoder(path, settings, form, is_immutable=is_immutable)
    try:
        stages.verifying()
        verdict = verify(decoder)
        if verdict.reason:
            _log.warning("%s: %s", path.name, verdict.reason)
        stages.warming()
        with stages.turn():
            chunk = settings.generation.prefill_chunk_tokens
            seeds = warm_up(decoder, chunk, clock) if settings.runtime.warmup else NO_SEEDS
        cache_bytes = _cache_bytes(decoder, settings, budget_bytes, promised_bytes)
    except BaseException:
        decoder.close()
        raise
    generation = settings.generation.model_copy(update={"cache_bytes": cache_bytes})
    return OpenedLanguageModel(
        decoder=decoder,
        text=text,
        verdict=verdict,
        seeds=seeds,
        settings=settings.model_copy(update={"generation": generation}),
        # On a device the measurement has it, as it is allocated from the start.
        cache=NO_MEMORY if decoder.on_accelerator else Memory(cache_bytes),
    )


def load_text(path: Path) -> ModelText | None:
    """Return the tokenizer beside the file ``path``, or above its version directory. Raises `ModelLoadError`."""
    for folder in dict.fromkeys((path.parent, model_folder(path))):
        text = ModelText.load(folder)
        if text is not None:
            return text
    return None


def _cache_bytes(decoder: OnnxDecoder, settings: ModelSettings, budget_bytes: int | None, promised_bytes: int) -> int:
    """Return the limit of the cache: the size of all slots, or less by the settings, the memory or the budget."""
    capacity = decoder.slots * decoder.context_length * decoder.cache_bytes_per_token
    if settings.generation.cache_bytes is not None:
        return min(capacity, settings.generation.cache_bytes)
    if decoder.on_accelerator:
        return capacity
    free = available_bytes(resident_bytes(), usable_bytes()) - promised_bytes
    limits = [capacity, free // _FREE_DIVISOR]
    if budget_bytes is not None:
        limits.append(budget_bytes // _BUDGET_DIVISOR)
    return max(min(limits), decoder.cache_bytes_per_token * min(decoder.context_length, _MIN_TOKENS))
