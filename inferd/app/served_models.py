"""The models of one server: they are loaded, guarded while they run, and unloaded together."""

import logging
import time
from collections.abc import Callable, Sequence

from inferd.config.settings import Settings
from inferd.models.loader import ModelLoader
from inferd.models.registry import ModelRegistry
from inferd.models.repository import ModelSource
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.observability.metrics.models import ModelStats
from inferd.rpc import Server
from inferd.runtime.run_timeout import Watchdog

_log = logging.getLogger("inferd.app")


class ServedModels:
    """The model versions of ``sources``, in ``registry`` once loading has begun. Called by the main thread."""

    def __init__(
        self,
        settings: Settings,
        sources: Sequence[ModelSource],
        registry: ModelRegistry,
        server: Server,
        stats_for: Callable[[str, str], ModelStats],
        on_state: Callable[[ModelVersion], None],
    ) -> None:
        self._on_state = on_state
        self._sources = sources
        self._registry = registry
        self._run_watchdog = Watchdog("run-watchdog")
        self._loader = ModelLoader(
            settings=settings,
            registry=registry,
            clock=time.monotonic,
            poll_thread=server.poll_loop,
            alarm=self._run_watchdog,
            stats_for=stats_for,
            on_state=self._changed,
        )

    def start(self) -> None:
        """Start the watchdog that ends runs; nothing is loaded yet."""
        self._run_watchdog.start()

    def load(self, on_loaded: Callable[[], None]) -> None:
        """Start loading all models; another thread calls ``on_loaded`` when each is loaded or has failed."""
        self._loader.load_all(self._sources, on_loaded)

    def ready_names(self) -> list[str]:
        """Return the names of the models that have a ready version."""
        return sorted({version.name for version in self._registry.all() if version.state is ModelState.READY})

    def unload(self, timeout_s: float) -> bool:
        """Let every version finish its requests, and close it. Returns False if some did not finish in time."""
        return self._loader.unload_all(timeout_s)

    def stop(self) -> None:
        """Stop the watchdog; no model may run any more."""
        self._run_watchdog.stop()

    def _changed(self, version: ModelVersion) -> None:
        _log_state(version)
        self._on_state(version)

    def unfinished(self) -> list[str]:
        """Return name and version of the models with unanswered requests or threads that hang in a run."""
        return [
            f"{version.name} {version.version}"
            for version in self._registry.all()
            if version.batcher is not None and version.batcher.unanswered_requests + version.batcher.stuck_threads
        ]


def _log_state(version: ModelVersion) -> None:
    facts = {"model": version.name, "version": version.version, "state": version.state.value}
    if version.state is ModelState.FAILED:
        _log.error("model failed to load", extra={**facts, "reason": version.reason})
    elif version.state is ModelState.READY:
        _log.info(
            "model ready", extra={**facts, "providers": version.providers, "max_batch_size": version.max_batch_size}
        )
    else:
        _log.info("model %s", version.state.value, extra=facts)
