"""Load model versions in a pool of threads, switch requests to them, and unload the old ones.

A version takes requests from the moment it is READY. One that is loaded again keeps serving until its successor is
READY and has its place in the registry; if the load fails, nothing changes but its reason. A version that is unloaded
gets no new requests once it is UNLOADING. Requests that had found it before are still on their way to its queue, so the
queue is closed only when all of those have arrived (``settle``), and the session when all of them are answered.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping

from structlog.contextvars import bound_contextvars

from inferd.batching.ports import Clock
from inferd.config.settings import ModelSettings
from inferd.models.load_meter import LoadMeter
from inferd.models.load_pool import LoadPool
from inferd.models.loaded import LoadedVersion
from inferd.models.loader import LoadCancelledError, VersionLoader
from inferd.models.model_source import ModelSource
from inferd.models.registry import ModelRegistry
from inferd.models.residency import NO_MEMORY
from inferd.models.states import IN_PROGRESS, ModelState
from inferd.models.version import ModelVersion
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.mapped_memory import mapped_memory
from inferd.runtime.resources import trim_heap

_log = logging.getLogger(__name__)

#: Timeout for the requests of a version that is unloaded. A run that hangs is ended long before.
_FINISH_TIMEOUT_S = 600.0

#: Called once with the version when its load has ended, in whichever state.
OnEnd = Callable[[ModelVersion], None]

#: Returns why a loaded version must not serve; empty if it may. Called in a thread of the pool.
Validate = Callable[[LoadedVersion], str]


class VersionLoad:
    """One load of one version; reports its progress to the version. Any thread may cancel it."""

    def __init__(
        self,
        lifecycle: "Lifecycle",
        source: ModelSource,
        version: ModelVersion,
        on_end: OnEnd,
        validate: Validate,
    ) -> None:
        self.source = source
        self.version = version
        self.validate = validate
        #: True once the memory that only the load needed is free.
        self.is_over = False
        self._lifecycle = lifecycle
        self._on_end = on_end

    def is_cancelled(self) -> bool:
        """Return True if the load was cancelled."""
        return self.version.state not in IN_PROGRESS

    def set_settings(self, settings: ModelSettings) -> None:
        """Set the settings of the version. Raises `LoadCancelledError`."""
        if self.is_cancelled():
            raise LoadCancelledError
        self.version.settings = settings

    def advance(self, state: ModelState) -> None:
        """Enter the next stage. Raises `LoadCancelledError`."""
        self._lifecycle.advance(self.version, state)

    def cancel(self, reason: str) -> None:
        """Cancel the load; its result is discarded when it ends. No effect if it has ended."""
        if self._lifecycle.cancel(self.version, reason):
            self._on_end(self.version)

    def run(self) -> None:
        """Load the version, and end the load. In a thread of the pool."""
        with bound_contextvars(model=self.version.name, version=self.version.version):
            has_ended = self._lifecycle.load(self)
        self.is_over = True
        if has_ended:
            self._on_end(self.version)


class Lifecycle:
    """Loads and unloads versions.

    Invariants: states change only under the lock; no version becomes READY once `stop` has begun; a session is closed
    only after its workers have ended. ``on_state`` is called without the lock, by the thread that changed
    the state. ``settle`` calls a function back once every request whose model has been looked up is in a queue.
    """

    def __init__(
        self,
        *,
        registry: ModelRegistry,
        loader: VersionLoader,
        pool: LoadPool,
        clock: Clock,
        settle: Callable[[Callable[[], None]], None],
        on_state: Callable[[ModelVersion], None],
        meter: LoadMeter,
    ) -> None:
        self._meter = meter
        self._registry = registry
        self._loader = loader
        self._pool = pool
        self._clock = clock
        self._settle = settle
        self._on_state = on_state
        self._lock = threading.Condition()
        self._stopping = False
        #: The versions that take memory, and their total: the poll thread reads it often.
        self._loaded: dict[ModelVersion, LoadedVersion] = {}
        self.memory = NO_MEMORY
        #: Versions that finish their last requests before they are closed.
        self.unloading: set[ModelVersion] = set()
        #: True if one of them could not be closed, because a run does not end.
        self._is_stuck = False

    def start(self) -> None:
        """Start the loads that were submitted so far, and run further ones."""
        self._pool.start()

    def register(
        self, source: ModelSource, settings: ModelSettings, fingerprint: Hashable = None, *, on_demand: bool = False
    ) -> ModelVersion:
        """Return a new version of ``source``, LOADING.

        It is registered, unless another one with its number is READY, which then serves until this one is.
        """
        version = ModelVersion(
            name=source.name, version=source.version, settings=settings, fingerprint=fingerprint, on_demand=on_demand
        )
        if self.serving(source) is None:
            self._registry.put(version)
        self._on_state(version)
        return version

    def register_cold(self, sources: Iterable[ModelSource], settings: ModelSettings) -> None:
        """Register versions that are ON_DEMAND, in place of those with their numbers; none of these is loaded."""
        for source in sources:
            version = ModelVersion(
                name=source.name,
                version=source.version,
                settings=settings,
                on_demand=True,
                state=ModelState.ON_DEMAND,
            )
            self._registry.put(version)
            self._on_state(version)

    def withdraw(self, cold: ModelVersion) -> None:
        """Register a version that is UNAVAILABLE in place of one that is ON_DEMAND."""
        version = ModelVersion(name=cold.name, version=cold.version, settings=cold.settings)
        version.mark_unavailable("unloaded")
        self._registry.put(version)
        self._on_state(version)

    def serving(self, source: ModelSource) -> ModelVersion | None:
        """Return the READY version with the name and number of ``source``."""
        versions = self._registry.versions(source.name)
        return next((v for v in versions if v.version == source.version and v.state is ModelState.READY), None)

    def begin(self, source: ModelSource, version: ModelVersion, on_end: OnEnd, validate: Validate) -> VersionLoad:
        """Load the registered ``version`` when a thread of the pool is free; it fails if ``validate`` has a reason."""
        load = VersionLoad(self, source, version, on_end, validate)
        self._pool.submit(load.run)
        return load

    def refuse(self, source: ModelSource, version: ModelVersion, reason: str) -> VersionLoad:
        """Return a load of the registered ``version`` that has failed with ``reason`` before it began."""
        load = VersionLoad(self, source, version, lambda _: None, lambda _: "")
        load.is_over = True
        self._fail(load, reason)
        return load

    def loaded(self) -> Mapping[ModelVersion, LoadedVersion]:
        """Return the versions that take memory: the READY ones, and those that are not closed yet."""
        with self._lock:
            return dict(self._loaded)

    def unused_cache_bytes(self) -> int:
        """Return the part of the host's ``memory`` that is reserved for caches of language models, and unused."""
        unused = 0
        # A copy, as other threads change it.
        for each in list(self._loaded.values()):
            if each.reserved.host:
                unused += each.unused_cache_bytes
        return unused

    def advance(self, version: ModelVersion, state: ModelState) -> None:
        """Enter the next stage of a load. Raises `LoadCancelledError`."""
        with self._lock:
            if version.state not in IN_PROGRESS:
                raise LoadCancelledError
            version.advance(state)
        self._on_state(version)

    def cancel(self, version: ModelVersion, reason: str) -> bool:
        """Cancel a load; return False if it has ended."""
        with self._lock:
            if version.state not in IN_PROGRESS:
                return False
            version.mark_unavailable(reason)
        self._on_state(version)
        return True

    def load(self, load: VersionLoad) -> bool:
        """Run ``load``; return False if it was cancelled."""
        version = load.version
        if version.state not in IN_PROGRESS:
            return False
        try:
            with mapped_memory():
                loaded = self._loader.load(load.source, load)
        except LoadCancelledError:
            return False
        except ModelLoadError as error:
            return self._fail(load, str(error))
        except Exception:  # noqa: BLE001  (the other models must still be loaded)
            _log.exception("loading %s failed", load.source.path)
            return self._fail(load, "an unexpected error, see the server's log")
        if reason := load.validate(loaded):
            loaded.close()
            trim_heap()
            return self._fail(load, reason)
        return self._finish(load, loaded)

    def _finish(self, load: VersionLoad, loaded: LoadedVersion) -> bool:
        version = load.version
        with self._lock:
            if self._stopping or version.state not in IN_PROGRESS:
                loaded.close()
                return False
            replaced = self.serving(load.source)
            loaded.engine.start()
            self._loaded[version] = loaded
            self.memory += loaded.memory
            version.mark_ready(loaded)
            # After this one is READY and before the other is not: some version always is.
            self._registry.put(version)
        self._on_state(version)
        self._loader.pause()
        if replaced is not None:
            self.retire(replaced)
        return True

    def _fail(self, load: VersionLoad, reason: str) -> bool:
        with self._lock:
            if load.version.state not in IN_PROGRESS:
                return False
            load.version.mark_failed(reason)
            serving = self.serving(load.source)
            if serving is not None:
                serving.reload_failed(reason)
        self._on_state(load.version)
        return True

    def retire(self, version: ModelVersion, on_gone: Callable[[], None] = lambda: None) -> None:
        """Unload a READY ``version``; calls ``on_gone`` when its requests are answered and its session is closed."""
        with self._lock:
            if self._stopping or version.state is not ModelState.READY:
                return
            loaded = version.mark_unloading()
            self.unloading.add(version)
        self._on_state(version)
        unload = threading.Thread(
            target=self._unload, args=(version, loaded, on_gone), name=f"unload-{version.name}", daemon=True
        )
        self._settle(unload.start)

    def _unload(self, version: ModelVersion, loaded: LoadedVersion, on_gone: Callable[[], None]) -> None:
        self._loader.pause()
        if not self._close(version, loaded, _FINISH_TIMEOUT_S):
            with self._lock:
                self.unloading.discard(version)
                self._is_stuck = True
                self._lock.notify_all()
        on_gone()

    def _close(self, version: ModelVersion, loaded: LoadedVersion, timeout_s: float) -> bool:
        """Let the requests of ``version`` finish, and close it. Returns False if a run does not end."""
        if not loaded.engine.stop(timeout_s):
            # The run may still use the session, so the version stays UNLOADING.
            return False
        with self._meter.unload():
            loaded.close()
            trim_heap()
        with self._lock:
            version.mark_unavailable("unloaded")
            del self._loaded[version]
            self.memory -= loaded.memory
            self.unloading.discard(version)
            self._lock.notify_all()
        self._on_state(version)
        return True

    def stop(self, timeout_s: float) -> bool:
        """Let every ready version finish its admitted requests, and close it.

        Returns True if all finished within ``timeout_s``; the remaining requests fail. A version that is still loading
        never becomes READY.
        """
        deadline = self._clock() + timeout_s
        self._pool.stop()
        with self._lock:
            self._stopping = True
            versions = self._registry.all()
            stopping = [(each, each.mark_unloading()) for each in versions if each.state is ModelState.READY]
        for version in versions:
            if version.state is ModelState.UNLOADING:
                self._on_state(version)
            self.cancel(version, "the server is stopping")
        finished = True
        for version, loaded in stopping:
            finished &= self._close(version, loaded, max(0.0, deadline - self._clock()))
        with self._lock:
            gone = self._lock.wait_for(lambda: not self.unloading, max(0.0, deadline - self._clock()))
            return finished and gone and not self._is_stuck
