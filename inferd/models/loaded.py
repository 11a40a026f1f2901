"""Loaded model versions: a session and its batcher, or a language model and its engine."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from inferd.batching.batcher import Batcher
from inferd.config.settings import BatchingSettings
from inferd.generation.engine import GenerationEngine
from inferd.generation.text import ModelText
from inferd.models.load_meter import NOTHING_MEASURED, Measured
from inferd.models.residency import NO_MEMORY, Memory
from inferd.runtime.batch_axes.verdict import Verdict
from inferd.runtime.decoder import OnnxDecoder
from inferd.runtime.genai_config import GenaiConfig
from inferd.runtime.session import OnnxSession

#: Runs the requests of a loaded version.
Engine = Batcher | GenerationEngine


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationLimits:
    """The limits of a language model, and the defaults of sampling in its files."""

    context_length: int
    vocabulary_size: int
    scores_prompts: bool
    defaults: GenaiConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageModel:
    """A decoder, the engine that runs it, and its tokenizer if it has one.

    ``verdict``: whether sequences that run together are equal, bit for bit, to those that run alone.
    """

    decoder: OnnxDecoder
    generator: GenerationEngine
    text: ModelText | None
    limits: GenerationLimits
    verdict: Verdict

    @property
    def has_tokenizer(self) -> bool:
        """True if the model takes and returns text, and not token ids only."""
        return self.text is not None

    @property
    def has_chat_template(self) -> bool:
        """True if the model takes chats."""
        return self.text is not None and self.text.has_chat_template


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedVersion(ABC):
    """A version in memory.

    ``memory`` is its expected memory while it serves, and ``measured`` that of this load. ``least_peak`` is the minimum
    of the peaks of its loads, nothing if unknown. ``reserved`` is the part of these that only requests take: the cache
    of a language model. ``files`` keeps the files from remote storage in the cache.
    """

    memory: Memory = NO_MEMORY
    measured: Measured = NOTHING_MEASURED
    least_peak: Memory = NO_MEMORY
    reserved: Memory = NO_MEMORY
    loaded_at: float = 0.0
    files: object = None

    @property
    @abstractmethod
    def engine(self) -> Engine:
        """Runs its requests."""

    @property
    @abstractmethod
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, in order of preference."""

    @property
    def language(self) -> LanguageModel | None:
        """The language model; None for an ordinary one."""
        return None

    @property
    def unused_cache_bytes(self) -> int:
        """Bytes of ``reserved`` host memory that are not in use."""
        return 0

    @property
    @abstractmethod
    def verdict(self) -> Verdict:
        """The verdict on running rows of several requests together."""

    @abstractmethod
    def max_batch_size(self, batching: BatchingSettings) -> int:
        """Return the maximum number of rows per batch at present; 1 if ``batching`` or the model do not allow more."""

    @abstractmethod
    def close(self) -> None:
        """Free the model's memory; nothing may run any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel(LoadedVersion):
    """A session and its batcher."""

    session: OnnxSession
    batcher: Batcher

    @property
    def engine(self) -> Engine:
        """The batcher."""
        return self.batcher

    @property
    def providers(self) -> tuple[str, ...]:
        """The session's."""
        return self.session.providers

    @property
    def verdict(self) -> Verdict:
        """The session's, which may be revoked while it serves."""
        return self.session.verdict

    def max_batch_size(self, batching: BatchingSettings) -> int:
        """Return the batcher's, unless each request runs alone."""
        return self.batcher.max_rows if batching.enabled and self.session.signature.batchable else 1

    def close(self) -> None:
        """Close the session."""
        self.session.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedLanguageModel(LoadedVersion):
    """A language model with its engine."""

    model: LanguageModel

    @property
    def engine(self) -> Engine:
        """The generator."""
        return self.model.generator

    @property
    def language(self) -> LanguageModel:
        """The model."""
        return self.model

    @property
    def providers(self) -> tuple[str, ...]:
        """The decoder's."""
        return self.model.decoder.providers

    @property
    def unused_cache_bytes(self) -> int:
        """Bytes of the cache that sequences have not written to."""
        return max(0, self.reserved.host - self.model.generator.cache_bytes_written)

    @property
    def verdict(self) -> Verdict:
        """The model's."""
        return self.model.verdict

    def max_batch_size(self, _: BatchingSettings) -> int:
        """Return the number of sequences in a run."""
        return self.model.decoder.slots

    def close(self) -> None:
        """Close the decoder, with its cache."""
        self.model.decoder.close()
