"""A version of a language model, without a model."""

from types import SimpleNamespace

from inferd.config.settings import ModelSettings
from inferd.models.loaded import GenerationLimits, LanguageModel, LoadedLanguageModel
from inferd.models.residency import Memory
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.runtime.batch_axes.verdict import Standing, Verdict
from inferd.runtime.genai_config import GenaiConfig


class IdleGenerator:
    """An engine without requests."""

    why_broken = ""
    is_hopeless = False
    cache_bytes = 4096
    cache_bytes_in_use = 1024
    waiting_tokens = 0
    waiting_limit_tokens = 100

    @staticmethod
    def run_cost():
        return None


def language_version(
    name: str = "lm", *, generator: IdleGenerator | None = None, has_chat_template: bool | None = None
) -> ModelVersion:
    """Return a READY version. It has a tokenizer unless ``has_chat_template`` is None."""
    made = ModelVersion(name=name, version="1", settings=ModelSettings(), state=ModelState.WARMING)
    text = None if has_chat_template is None else SimpleNamespace(has_chat_template=has_chat_template)
    model = LanguageModel(
        decoder=SimpleNamespace(slots=4, cache_bytes_per_token=8, providers=("CPUExecutionProvider",)),
        generator=generator or IdleGenerator(),
        text=text,
        limits=GenerationLimits(context_length=128, vocabulary_size=32, scores_prompts=True, defaults=GenaiConfig()),
        verdict=Verdict(standing=Standing.PROVEN),
    )
    made.mark_ready(LoadedLanguageModel(model=model, memory=Memory(5000)))
    return made
