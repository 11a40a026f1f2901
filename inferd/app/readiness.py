"""Whether the server is ready and alive, for the probes, the health service and the inference APIs."""

import threading
from collections.abc import Callable

from inferd.api.health import HealthService
from inferd.api.services import INFERENCE_SERVICE_NAMES
from inferd.config.server import ServerSettings
from inferd.models.registry import ModelRegistry
from inferd.observability.http.server import Health
from inferd.observability.poll_watch import PollWatch


class Readiness:
    """Ready from `open` until `drain`, while the poll thread keeps up; alive unless that thread is stuck.

    ``poll_lag_s`` is the lag of the poll thread. All methods may be called from any thread.
    """

    def __init__(self, server: ServerSettings, registry: ModelRegistry, poll_lag_s: Callable[[], float]) -> None:
        self._registry = registry
        self._opened = threading.Event()
        self._draining = threading.Event()
        self.health = HealthService(
            INFERENCE_SERVICE_NAMES,
            is_late=lambda: bool(self._poll_watch.why_not_ready()),
            is_stuck=lambda: bool(self._poll_watch.why_not_alive()),
        )
        self._poll_watch = PollWatch(
            poll_lag_s,
            ready_max_lag_s=server.ready_max_lag_s,
            live_max_lag_s=server.live_max_lag_s,
            on_change=self.health.update,
        )

    def start(self) -> None:
        """Start watching the poll thread."""
        self._poll_watch.start()

    def stop(self) -> None:
        """Stop watching the poll thread."""
        self._poll_watch.stop()

    def open(self) -> None:
        """Become ready."""
        self._opened.set()
        self.health.open()

    def drain(self) -> None:
        """Become not ready, for good."""
        self._draining.set()
        self._opened.clear()
        self.health.drain()

    def is_ready(self) -> bool:
        """Whether the server accepts requests."""
        return self._opened.is_set() and not self._poll_watch.why_not_ready()

    def readiness(self) -> Health:
        """Return the result of /readyz."""
        details = [f"{each.name} {each.version}: {each.state.value}" for each in self._registry.all()]
        if self._draining.is_set():
            return Health(ok=False, reason="draining", details=details)
        if not self._opened.is_set():
            return Health(ok=False, reason="no model is ready", details=details)
        reason = self._poll_watch.why_not_ready()
        return Health(ok=not reason, reason=reason or "ok", details=details)

    def liveness(self) -> Health:
        """Return the result of /livez."""
        reason = self._poll_watch.why_not_alive()
        return Health(ok=not reason, reason=reason or "ok")
