"""Load one model version: read its settings, open it, verify how it batches, warm it up, and make its batcher.

A language model is recognized by its file. `inferd.models.language` opens it, and it gets an engine for a batcher.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from inferd.batching.batcher import Batcher
from inferd.batching.idle_cores import IdleCores
from inferd.batching.ports import Alarm, Clock, PollThread
from inferd.config.settings import ModelSettings, Settings
from inferd.generation.engine import GenerationEngine
from inferd.models.language.loading import OpenedLanguageModel, Stages, open_language_model
from inferd.models.language.settings import language_settings
from inferd.models.load_meter import LoadMeter
from inferd.models.loaded import GenerationLimits, LanguageModel, LoadedLanguageModel, LoadedModel, LoadedVersion
from inferd.models.model_source import ModelSource, model_file
from inferd.models.probe import ModelProbe
from inferd.models.residency import NO_MEMORY
from inferd.models.settings import limit_threads, read_model_settings
from inferd.models.sizes import ModelSizes, size_key
from inferd.models.states import ModelState
from inferd.observability.metrics.generation import GenerationStats
from inferd.observability.metrics.models import ModelStats
from inferd.runtime.decoder_graph import DecoderForm, read_decoder
from inferd.runtime.providers import built_in
from inferd.runtime.resources import usable_cores
from inferd.runtime.session import open_session
from inferd.runtime.warmup import warm_up
from inferd.runtime.warmup_samples import run_samples

_log = logging.getLogger(__name__)

#: How long a version waits for the warm-up of another one.
_MAX_WARM_UP_WAIT_S = 10.0


class LoadCancelledError(Exception):
    """The load was cancelled before it ended."""


class Progress(Protocol):
    """Gets the progress of a load, at the beginning of each stage."""

    def is_cancelled(self) -> bool:
        """Return True if the load was cancelled."""

    def set_settings(self, settings: ModelSettings) -> None:
        """Set the settings of the version. Raises `LoadCancelledError` if the load was cancelled."""

    def advance(self, state: ModelState) -> None:
        """Begin the stage ``state``. Raises `LoadCancelledError` if the load was cancelled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatcherParts:
    """The parts that the batchers of all versions share."""

    clock: Clock
    poll_thread: PollThread
    alarm: Alarm
    stats_for: Callable[[str, str], ModelStats]
    generation_stats_for: Callable[[str, str], GenerationStats] = lambda *_: GenerationStats()
    on_health: Callable[[], None] = lambda: None
    free_idle: Callable[[], bool] = lambda: False
    idle_cores: IdleCores = field(default_factory=IdleCores)


class VersionLoader:
    """Loads model versions, each in the thread that calls `load`; several threads may.

    Versions are warmed up one after another, because the times and the memory of their runs are measured; a very long
    warm-up does not delay the others. ``versions`` returns the number of versions that share the machine's threads, and
    ``unused_cache_bytes`` the memory that caches of language models may still take. ``sizes`` records the memory and
    time of loads. ``pause`` is called between two steps, so that requests go first.
    """

    def __init__(
        self,
        settings: Settings,
        parts: BatcherParts,
        *,
        probe: ModelProbe | None,
        versions: Callable[[], int],
        meter: LoadMeter,
        sizes: ModelSizes,
        unused_cache_bytes: Callable[[], int] = lambda: 0,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        #: Unloads call it too.
        self.pause = pause
        self._meter = meter
        self._sizes = sizes
        self._settings = settings
        self._parts = parts
        self._probe = probe
        self._versions = versions
        self._unused_cache_bytes = unused_cache_bytes
        self._warming = threading.Lock()
        self._limit_logged = False

    def load(self, source: ModelSource, progress: Progress) -> LoadedVersion:
        """Load ``source``; its engine is not started. Raises `ModelLoadError` and `LoadCancelledError`."""
        own = read_model_settings(self._settings, source)
        self.pause()
        key = size_key(source, own)
        self.pause()
        settings = self._limited(own)
        progress.set_settings(settings)
        files = _fetch(source, settings, progress)
        with self._meter.load() as measurement:
            loaded = self._open(source, settings, progress)
        measured = measurement.result.with_reserved(loaded.reserved)
        self.pause()
        if source.override is None:
            self._sizes.record(key, measured)
            self.pause()
        expected = self._sizes.expected(key)
        self.pause()
        return replace(
            loaded,
            memory=expected.steady if expected.is_known else measured.steady,
            measured=measured,
            least_peak=NO_MEMORY if source.override is not None else expected.least_peak,
            loaded_at=self._parts.clock(),
            files=files,
        )

    def _open(self, source: ModelSource, settings: ModelSettings, progress: Progress) -> LoadedVersion:
        """Return the model, verified and warmed up, with its engine."""
        path = model_file(source, settings.file)
        self.pause()
        # The session reads the file again: another one may take its place while the probe opens it.
        form = read_decoder(path)
        self.pause()
        if form is not None:
            settings = language_settings(settings, self._settings.for_model({}), source.name)
            progress.set_settings(settings)
        if self._probe is not None:
            self._probe.check(path, settings, progress.is_cancelled, self.pause)
        if form is not None:
            return self._load_language_model(source, path, form, settings, progress)
        return self._load_tensor_model(source, path, settings, progress)

    def _load_tensor_model(
        self, source: ModelSource, path: Path, settings: ModelSettings, progress: Progress
    ) -> LoadedModel:
        verifying = partial(progress.advance, ModelState.VERIFYING)
        session = open_session(path, settings, verifying, is_immutable=source.is_immutable, pause=self.pause)
        try:
            progress.advance(ModelState.WARMING)
            with self._warm_up_turn():
                run_times = warm_up(session, settings, clock=self._parts.clock, pause=self.pause)
                run_samples(session, settings, path)
        except BaseException:
            session.close()
            raise
        self.pause()
        batcher = Batcher(
            name=source.name,
            session=session,
            one_core=session.one_core,
            queue=settings.queue,
            batching=settings.batching,
            max_run_s=settings.runtime.max_run_ms / 1000,
            clock=self._parts.clock,
            poll_thread=self._parts.poll_thread,
            alarm=self._parts.alarm,
            stats=self._parts.stats_for(source.name, source.version),
            seeds=run_times,
            idle_cores=self._parts.idle_cores,
            on_health=self._parts.on_health,
            free_idle=self._parts.free_idle,
        )
        return LoadedModel(session=session, batcher=batcher)

    def _load_language_model(
        self, source: ModelSource, path: Path, form: DecoderForm, settings: ModelSettings, progress: Progress
    ) -> LoadedLanguageModel:
        opened = open_language_model(
            path,
            form,
            settings,
            stages=Stages(
                verifying=partial(progress.advance, ModelState.VERIFYING),
                warming=partial(progress.advance, ModelState.WARMING),
                turn=self._warm_up_turn,
            ),
            clock=self._parts.clock,
            budget_bytes=self._settings.repository.memory_budget_bytes,
            promised_bytes=self._unused_cache_bytes(),
            is_immutable=source.is_immutable,
        )
        progress.set_settings(opened.settings)
        return LoadedLanguageModel(model=self._with_engine(source, opened), reserved=opened.cache)

    def _with_engine(self, source: ModelSource, opened: OpenedLanguageModel) -> LanguageModel:
        decoder, settings, parts = opened.decoder, opened.settings, self._parts
        engine = GenerationEngine(
            name=source.name,
            decoder=decoder,
            detokenizer=opened.text,
            settings=settings.generation,
            queue=settings.queue,
            max_run_s=settings.runtime.max_run_ms / 1000,
            clock=parts.clock,
            poll_thread=parts.poll_thread,
            alarm=parts.alarm,
            stats=parts.generation_stats_for(source.name, source.version),
            step_seeds=opened.seeds.steps,
            chunk_seeds=opened.seeds.chunks,
            on_health=parts.on_health,
        )
        return LanguageModel(
            decoder=decoder,
            generator=engine,
            text=opened.text,
            limits=GenerationLimits(
                context_length=engine.max_request_tokens,
                vocabulary_size=decoder.vocabulary_size,
                scores_prompts=decoder.scores_prompts,
                defaults=decoder.defaults,
            ),
            verdict=opened.verdict,
        )

    @contextmanager
    def _warm_up_turn(self) -> Iterator[None]:
        """Wait until no other version is being warmed up, but not for one that takes very long."""
        is_turn = self._warming.acquire(timeout=_MAX_WARM_UP_WAIT_S)
        try:
            yield
        finally:
            if is_turn:
                self._warming.release()

    def _limited(self, settings: ModelSettings) -> ModelSettings:
        """Return ``settings`` with fewer threads if there are many versions; logs that once."""
        versions = self._versions()
        limited = limit_threads(settings, versions=versions, cores=usable_cores(), available=built_in())
        threads = limited.runtime.intra_op_threads
        if threads != settings.runtime.intra_op_threads and not self._limit_logged:
            self._limit_logged = True
            _log.info(
                "runs of %d model versions have %d threads each, unless runtime.intra_op_threads is set",
                versions,
                threads,
            )
        return limited


def _fetch(source: ModelSource, settings: ModelSettings, progress: Progress) -> object:
    """Fetch the files of a remote model to the cache, where they stay as long as the returned object."""
    if source.remote is None:
        return None
    files = source.remote.fetch(model_file(source, settings.file), progress.is_cancelled)
    if progress.is_cancelled():
        raise LoadCancelledError
    return files
