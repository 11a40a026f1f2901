"""Load and unload model versions, off the request path."""

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial

from structlog.contextvars import bound_contextvars

from inferd.batching.batcher import Batcher
from inferd.batching.idle_cores import IdleCores
from inferd.batching.ports import Alarm, Clock, PollThread
from inferd.config.settings import ModelSettings, Settings
from inferd.models.registry import ModelRegistry
from inferd.models.repository import ModelSource
from inferd.models.settings import limit_threads, read_model_settings
from inferd.models.states import IN_PROGRESS, ModelState
from inferd.models.version import LoadedModel, ModelVersion
from inferd.observability.metrics.models import ModelStats
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.providers import built_in
from inferd.runtime.resources import resident_bytes, usable_cores
from inferd.runtime.session import open_session
from inferd.runtime.warmup import warm_up

_log = logging.getLogger(__name__)


class ModelLoader:
    """Loads models one after the other in a background thread, and unloads them.

    Invariants: states change only under the lock, so that no version becomes READY once unloading has begun; a session
    is closed only after its batcher's workers have ended. `load_all` and `unload_all` are called once each by the main
    thread. ``on_state`` is called without the lock, by the thread that changed the state.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        registry: ModelRegistry,
        clock: Clock,
        poll_thread: PollThread,
        alarm: Alarm,
        stats_for: Callable[[str, str], ModelStats],
        on_state: Callable[[ModelVersion], None],
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._poll_thread = poll_thread
        self._alarm = alarm
        self._stats_for = stats_for
        self._on_state = on_state
        self._idle_cores = IdleCores()
        self._lock = threading.Lock()
        self._unloading = False

    def load_all(self, sources: Sequence[ModelSource], on_loaded: Callable[[], None]) -> None:
        """Register all versions as LOADING, and start loading them in the background, in this order.

        The loader's thread calls ``on_loaded`` when every version is loaded or has failed.
        """
        pending = []
        for source in sources:
            version = ModelVersion(name=source.name, version=source.version, settings=self._settings.for_model({}))
            self._registry.add(version)
            self._on_state(version)
            pending.append((source, version))
        self._log_thread_limit(len(pending))
        # A daemon, because a load cannot be interrupted and must not keep the process from exiting.
        threading.Thread(target=self._load_each, args=(pending, on_loaded), name="model-loader", daemon=True).start()

    def unload_all(self, timeout_s: float) -> bool:
        """Let every ready version finish its admitted requests, and close it.

        Returns True if all finished within ``timeout_s``; the remaining requests fail. A version that is still loading
        never becomes READY.
        """
        deadline = self._clock() + timeout_s
        with self._lock:
            self._unloading = True
            active = [each for each in self._registry.all() if each.state in IN_PROGRESS | {ModelState.READY}]
            stopping = [loaded for each in active if (loaded := _leave(each)) is not None]
        for version in active:
            self._on_state(version)
        finished = True
        for loaded in stopping:
            if loaded.batcher.stop(max(0.0, deadline - self._clock())):
                loaded.session.close()
            else:
                finished = False
        return finished

    def _load_each(self, pending: Sequence[tuple[ModelSource, ModelVersion]], on_loaded: Callable[[], None]) -> None:
        for source, version in pending:
            if version.state is ModelState.LOADING:
                with bound_contextvars(model=version.name, version=version.version):
                    self._load(source, version)
        on_loaded()

    def _load(self, source: ModelSource, version: ModelVersion) -> None:
        try:
            loaded = self._open(source, version)
        except ModelLoadError as error:
            self._fail(version, str(error))
        except Exception:  # noqa: BLE001  (the other models must still be loaded)
            _log.exception("loading %s failed", source.path)
            self._fail(version, "an unexpected error, see the server's log")
        else:
            self._finish(version, loaded)

    def _open(self, source: ModelSource, version: ModelVersion) -> LoadedModel:
        settings = self._limited(read_model_settings(self._settings, source.config))
        version.settings = settings
        bytes_before = resident_bytes()
        session = open_session(source.path, settings, partial(self._advance, version, ModelState.VERIFYING))
        self._advance(version, ModelState.WARMING)
        run_times = warm_up(session, settings, clock=self._clock)
        memory_bytes = max(resident_bytes() - bytes_before, 0)
        batcher = Batcher(
            name=version.name,
            session=session,
            queue=settings.queue,
            batching=settings.batching,
            max_run_s=settings.runtime.max_run_ms / 1000,
            clock=self._clock,
            poll_thread=self._poll_thread,
            alarm=self._alarm,
            stats=self._stats_for(version.name, version.version),
            seeds=run_times,
            idle_cores=self._idle_cores,
        )
        return LoadedModel(session=session, batcher=batcher, memory_bytes=memory_bytes)

    def _advance(self, version: ModelVersion, state: ModelState) -> None:
        with self._lock:
            if version.state in IN_PROGRESS:
                version.advance(state)

    def _finish(self, version: ModelVersion, loaded: LoadedModel) -> None:
        with self._lock:
            if self._unloading:
                loaded.session.close()
                return
            loaded.batcher.start()
            version.mark_ready(loaded)
        self._on_state(version)

    def _fail(self, version: ModelVersion, reason: str) -> None:
        with self._lock:
            if self._unloading:
                return
            version.mark_failed(reason)
        self._on_state(version)

    def _limited(self, settings: ModelSettings) -> ModelSettings:
        versions = len(self._registry.all())
        return limit_threads(settings, versions=versions, cores=usable_cores(), available=built_in())

    def _log_thread_limit(self, versions: int) -> None:
        """Log once if the server's settings give runs fewer threads than a single model would have."""
        settings = self._settings.for_model({})
        threads = self._limited(settings).runtime.intra_op_threads
        if threads != settings.runtime.intra_op_threads:
            _log.info(
                "runs of %d model versions have %d threads each, unless runtime.intra_op_threads is set",
                versions,
                threads,
            )


def _leave(version: ModelVersion) -> LoadedModel | None:
    """Stop accepting requests to ``version``, or its load. Return what is to be stopped and closed."""
    if version.state is ModelState.READY:
        return version.mark_unloading()
    version.mark_unavailable("the server is stopping")
    return None
