"""Readiness and liveness of the server, for the probes, the health service and the inference APIs."""

import threading
from collections.abc import Callable, Collection

from inferd.api.health import HealthService
from inferd.api.services import INFERENCE_SERVICE_NAMES
from inferd.config.repository import EVERY_MODEL, ModelControl, RequiredModels
from inferd.config.settings import Settings
from inferd.models.registry import ModelRegistry
from inferd.models.states import IN_PROGRESS, ModelState
from inferd.models.version import ModelVersion
from inferd.observability.monitoring import Health
from inferd.observability.poll_watch import PollWatch
from inferd.plain_text import listed

#: States of a version that is wanted and not ready.
_MISSING = IN_PROGRESS | {ModelState.FAILED}
#: States of a version that answers requests, now or when it has been loaded for the first of them.
_SERVED = frozenset({ModelState.READY, ModelState.ON_DEMAND})
#: States of a version that has been loaded or has failed.
_TRIED = frozenset(ModelState) - IN_PROGRESS


class Readiness:
    """Ready until `drain`, while the poll thread keeps up; alive unless that thread is stuck or a device is lost.

    It begins when every model of the start is loaded or has failed (`open`), or with ``repository.readiness: all`` when
    every wanted version is ready, perhaps later, after `on_state`. From then on, models that come and go do not change
    it. ``found`` are the models in the repositories at start: with mode poll, those that have just been written are
    loaded only when they have stayed the same for a while, and a server that has no others waits for one of them.
    ``poll_lag_s`` is the lag of the poll thread. All methods may be called from any thread.
    """

    def __init__(
        self,
        settings: Settings,
        registry: ModelRegistry,
        poll_lag_s: Callable[[], float],
        *,
        found: Collection[str] = (),
    ) -> None:
        self._repository = settings.repository
        names = sorted(found)
        self._found = names if settings.repository.mode is ModelControl.POLL else []
        self._named = names if settings.repository.mode is ModelControl.NONE else settings.repository.load
        self._registry = registry
        self._opening = threading.Lock()
        #: None until the models of the start have been tried.
        self._on_ready: Callable[[], None] | None = None
        self._opened = threading.Event()
        self._draining = threading.Event()
        #: Models whose device this process has lost for good.
        self._lost: list[str] = []
        self.health = HealthService(
            INFERENCE_SERVICE_NAMES,
            models=registry,
            anonymous_sees_models=settings.security.open_model_health,
            is_late=lambda: bool(self._poll_watch.why_not_ready()),
            is_stuck=lambda: bool(self._why_not_alive()),
        )
        self._poll_watch = PollWatch(
            poll_lag_s,
            ready_max_lag_s=settings.server.ready_max_lag_s,
            live_max_lag_s=settings.server.live_max_lag_s,
            on_change=self.health.update,
        )

    def start(self) -> None:
        """Start watching the poll thread."""
        self._poll_watch.start()

    def stop(self) -> None:
        """Stop watching the poll thread."""
        self._poll_watch.stop()

    def why_exit(self) -> str:
        """Return why the server should exit, now that its models have been tried; empty if it should not."""
        failed = [*self._versions_in(frozenset({ModelState.FAILED})), *self._absent()]
        if failed and self._repository.exit_on_error:
            return f"failed to load, with repository.exit_on_error: {listed(failed)}"
        if self._repository.mode is ModelControl.NONE and not self._versions_in(_SERVED):
            return "no model could be loaded"
        return ""

    def open(self, on_ready: Callable[[], None]) -> None:
        """Become ready as soon as all required versions are; the thread that detects it calls ``on_ready``."""
        self._on_ready = on_ready
        self.health.start()
        self._open_if_possible()

    def on_state(self) -> None:
        """Check readiness again, and report changes: a version has changed its state, or stopped or begun to run."""
        self._open_if_possible()
        self._lost = [f"{each.name} {each.version}" for each in self._registry.all() if each.has_lost_device]
        self.health.update_models()

    def drain(self) -> None:
        """Become not ready, for good."""
        with self._opening:
            self._draining.set()
            self._opened.clear()
        self.health.drain()

    def is_ready(self) -> bool:
        """Whether the server accepts requests."""
        return self._opened.is_set() and not self._poll_watch.why_not_ready()

    def missing(self) -> list[str]:
        """Return the models that the server waits for, with the states of their versions."""
        unloaded = [f"{name} (just written)" for name in self._found if not self._registry.versions(name)]
        if self._repository.readiness is RequiredModels.ALL:
            return [*self._versions_in(_MISSING), *self._absent(), *unloaded]
        return [] if self._versions_in(_TRIED) else unloaded or (self._versions_in(IN_PROGRESS) if self._found else [])

    def readiness(self) -> Health:
        """Return the result of /readyz."""
        details = [f"{each.name} {each.version}: {_state_of(each)}" for each in self._registry.all()]
        reason = self._why_not_open() or self._poll_watch.why_not_ready()
        return Health(ok=not reason, reason=reason or "ok", details=details)

    def liveness(self) -> Health:
        """Return the result of /livez."""
        reason = self._why_not_alive()
        return Health(ok=not reason, reason=reason or "ok")

    def _why_not_alive(self) -> str:
        if self._lost:
            return f"the process has lost the device or the memory of {listed(self._lost)}"
        return self._poll_watch.why_not_alive()

    def _why_not_open(self) -> str:
        if self._draining.is_set():
            return "draining"
        if self._opened.is_set():
            return ""
        if self._on_ready is None:
            return "the models are being loaded"
        return f"waiting for models (repository.readiness): {listed(self.missing())}"

    def _open_if_possible(self) -> None:
        if self._opened.is_set() or self._on_ready is None:
            return
        with self._opening:
            if self._opened.is_set() or self._draining.is_set() or self.missing():
                return
            self._opened.set()
        self.health.open()
        self._on_ready()

    def _absent(self) -> list[str]:
        """Return the models that should be loaded at start of which no version is there, or none is chosen."""
        named = [name for name in self._named if name != EVERY_MODEL]
        return [f"{name} (no version)" for name in named if not self._registry.versions(name)]

    def _versions_in(self, states: frozenset[ModelState]) -> list[str]:
        """Return the versions in ``states``."""
        versions = self._registry.all()
        return [f"{each.name} {each.version} ({each.state.value})" for each in versions if each.state in states]


def _state_of(version: ModelVersion) -> str:
    is_broken = version.state is ModelState.READY and not version.accepts_requests
    return "ready, but runs nothing at present" if is_broken else version.state.value
