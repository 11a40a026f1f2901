"""The models of one server: they are loaded, guarded while they run, and unloaded together."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from inferd import demo
from inferd.config.settings import Settings
from inferd.models.catalog import Catalog
from inferd.models.idle_memory import IdleMemory
from inferd.models.lifecycle import Lifecycle
from inferd.models.load_meter import LoadMeter
from inferd.models.load_pool import LoadPool
from inferd.models.loader import BatcherParts, VersionLoader
from inferd.models.manager import ModelManager
from inferd.models.model_source import ModelSource
from inferd.models.on_demand import OnDemandLoads, has_room
from inferd.models.probe import ModelProbe
from inferd.models.registry import ModelRegistry
from inferd.models.remote import RemoteRepositories
from inferd.models.repository import no_remote
from inferd.models.requests_first import RequestsFirst
from inferd.models.router import Router
from inferd.models.shadow import ComparisonThread, Shadow, ShadowCounts
from inferd.models.sizes import ModelSizes
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.observability.metrics.generation import GenerationStats
from inferd.observability.metrics.models import ModelStats
from inferd.observability.metrics.residency import ResidencySample
from inferd.rpc import Server
from inferd.runtime.run_timeout import Watchdog

_log = logging.getLogger("inferd.app")

#: Stages of a load, which are over soon.
_STAGES = {ModelState.VERIFYING, ModelState.WARMING}

#: States by which a version comes to have requests, or to have none.
_ROUTED = {ModelState.READY, ModelState.UNLOADING}


class ServedModels:
    """The models of a server; ``sources`` are those found before the start. Called by the main thread.

    ``remote`` has those in remote storage, if there are any.

    ``settle`` and ``on_state`` are those of `Lifecycle`, ``on_health`` that of `Batcher`.
    """

    def __init__(
        self,
        settings: Settings,
        sources: Sequence[ModelSource],
        registry: ModelRegistry,
        server: Server,
        *,
        stats_for: Callable[[str, str], ModelStats],
        generation_stats_for: Callable[[str, str], GenerationStats],
        settle: Callable[[Callable[[], None]], None],
        on_state: Callable[[ModelVersion], None],
        on_health: Callable[[], None],
        remote: RemoteRepositories | None = None,
    ) -> None:
        self.remote = remote
        self._sources = sources
        self._registry = registry
        self._on_state = on_state
        self._run_watchdog = Watchdog("run-watchdog")
        parts = BatcherParts(
            clock=time.monotonic,
            poll_thread=server.poll_loop,
            alarm=self._run_watchdog,
            stats_for=stats_for,
            generation_stats_for=generation_stats_for,
            on_health=on_health,
            free_idle=lambda: self._idle_memory.free(),  # noqa: PLW0108  (it is made below)
        )
        repository = settings.repository
        self._probe = (
            ModelProbe(timeout_s=repository.probe_timeout_s, processes=repository.parallel_loads)
            if repository.probe
            else None
        )
        meter, sizes = LoadMeter(time.monotonic), ModelSizes()
        pause = RequestsFirst(parts.idle_cores, time.monotonic, time.sleep).pause
        lifecycle = Lifecycle(
            registry=registry,
            loader=VersionLoader(
                settings,
                parts,
                probe=self._probe,
                versions=lambda: len(registry.all()),
                meter=meter,
                sizes=sizes,
                unused_cache_bytes=lambda: lifecycle.unused_cache_bytes(),  # noqa: PLW0108  (it is made here)
                pause=pause,
            ),
            pool=LoadPool(repository.parallel_loads),
            clock=time.monotonic,
            settle=settle,
            on_state=self._changed,
            meter=meter,
        )
        self._idle_memory = IdleMemory(lifecycle.loaded, time.monotonic)
        self.shadow_counts = ShadowCounts()
        self._comparisons = ComparisonThread()
        self.router = Router(
            registry, partial(Shadow, counts=self.shadow_counts, compare=self._comparisons, clock=time.monotonic)
        )
        self.loads = OnDemandLoads(
            request_load=lambda name: self.manager.load_on_demand(name),  # noqa: PLW0108  (the manager is made below)
            expected_s=lambda name: self.manager.expected_load_s(name),  # noqa: PLW0108  (the same)
            has_room=partial(has_room, registry),
            poll_thread=server.poll_loop,
            clock=time.monotonic,
            max_waiting=max(1, settings.server.max_inflight_requests // 2),
        )
        self.manager = ModelManager(
            settings=settings,
            catalog=Catalog(
                settings,
                settings.models or [demo.repository()],
                no_remote if remote is None else remote.sources,
            ),
            registry=registry,
            lifecycle=lifecycle,
            router=self.router,
            clock=time.monotonic,
            sizes=sizes,
            on_demand_ended=self.loads.ended,
            waiting=self.loads.waiting,
            pause=pause,
        )

    def start(self) -> None:
        """Start the threads that watch over runs and their memory; nothing is loaded yet."""
        self._run_watchdog.start()
        self._idle_memory.start()

    def load(self, on_loaded: Callable[[], None]) -> None:
        """Start loading; another thread calls ``on_loaded`` when each version is loaded or has failed."""
        found: dict[str, dict[str, ModelSource]] = {}
        for source in self._sources:
            found.setdefault(source.name, {})[source.version] = source
        self.manager.start(found, on_loaded)
        self._registry.is_complete = True

    def residency(self) -> ResidencySample:
        """Return what the models take of the memory budget, and how often they came, went and were missing."""
        return replace(self.manager.residency(), cold_requests=dict(self.loads.cold_requests))

    def ready_names(self) -> list[str]:
        """Return the names of the models that have a ready version."""
        return sorted({version.name for version in self._registry.all() if version.state is ModelState.READY})

    def unload(self, timeout_s: float) -> bool:
        """Let every version finish its requests, and close it. Returns False if some did not finish in time."""
        return self.manager.stop(timeout_s)

    def stop(self) -> None:
        """Stop the threads; no model may run any more."""
        if self._probe is not None:
            self._probe.stop()
        self._comparisons.stop()
        self._idle_memory.stop()
        self._run_watchdog.stop()

    def _changed(self, version: ModelVersion) -> None:
        _log_state(version)
        if version.state in _ROUTED:
            self.router.refresh(version.name)
        self._on_state(version)

    def unfinished(self) -> list[str]:
        """Return name and version of the models with unanswered requests or threads that hang in a run."""
        return [f"{version.name} {version.version}" for version in self._registry.all() if version.is_unfinished]


def _log_state(version: ModelVersion) -> None:
    facts = {"model": version.name, "version": version.version, "state": version.state.value}
    if version.state is ModelState.FAILED:
        _log.error("model failed to load", extra={**facts, "reason": version.reason})
    elif version.state is ModelState.READY:
        _log.info(
            "model ready",
            extra={
                **facts,
                "providers": version.providers,
                "max_batch_size": version.max_batch_size,
                "load_s": round(version.load_s, 3),
                "memory_bytes": version.memory_bytes,
            },
        )
    else:
        level = logging.DEBUG if version.state in _STAGES else logging.INFO
        _log.log(level, "model %s", version.state.value, extra=facts)
