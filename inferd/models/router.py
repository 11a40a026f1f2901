"""Set the routing of requests to the versions of models: from their settings, or from a call."""

import threading
from collections.abc import Callable, Iterable

from inferd.config.routing import RoutingSettings, ShadowSettings
from inferd.errors import InvalidInputError, ModelNotFoundError
from inferd.models.registry import ModelRegistry
from inferd.models.routing import Routes, require_ready
from inferd.models.shadow import Shadow
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.observability.metrics.routing import RoutedVersion
from inferd.plain_text import clipped

_NO_ROUTING = RoutingSettings()


class Router:
    """Sets the routing of models, and lets their versions copy requests to a shadow. Any thread.

    The settings of a model apply when they change, which is when it is loaded with another model.yaml; the routing that
    a call has set holds until then. ``make_shadow`` makes the shadow of a READY version.
    """

    def __init__(self, registry: ModelRegistry, make_shadow: Callable[[ModelVersion, ShadowSettings], Shadow]) -> None:
        self._registry = registry
        self._make_shadow = make_shadow
        self._lock = threading.Lock()
        self._configured: dict[str, RoutingSettings] = {}
        self._shadows: dict[str, Shadow] = {}

    def routing(self, name: str) -> RoutingSettings:
        """Return the present routing of a model."""
        routes = self._registry.routes().get(name)
        return _NO_ROUTING if routes is None else routes.settings

    def shares(self) -> Iterable[RoutedVersion]:
        """Yield the READY versions of the models that have routing, for metrics."""
        for name, routes in sorted(self._registry.routes().items()):
            ready = [each.version for each in self._registry.versions(name) if each.state is ModelState.READY]
            weights = routes.weights
            total = sum(weights.get(number, 0.0) for number in ready)
            labels = routes.settings.labels
            for position, number in enumerate(ready):
                yield RoutedVersion(
                    model=name,
                    version=number,
                    labels=tuple(label for label, labelled in labels.items() if labelled == number),
                    share=weights.get(number, 0.0) / total if total else float(position == 0),
                )

    def configure(self, name: str, settings: RoutingSettings) -> None:
        """Apply the settings of a model; versions that they name may not be ready yet."""
        with self._lock:
            if self._configured.get(name, _NO_ROUTING) != settings:
                self._configured[name] = settings
                self._apply(name, settings)

    def change(self, name: str, settings: RoutingSettings) -> None:
        """Apply the routing of a call. Raises `InvalidInputError`, and `ModelNotFoundError` for an unknown model."""
        versions = self._registry.versions(name)
        if not versions:
            raise ModelNotFoundError(f'there is no model "{clipped(name)}"')
        require_ready(settings, versions)
        if settings.shadow is not None and any(each.language is not None for each in versions):
            raise InvalidInputError("shadow: expected none for a language model, whose answers are not compared")
        with self._lock:
            self._apply(name, settings)

    def refresh(self, name: str) -> None:
        """Update the shadow after versions of a model have become READY, or have stopped being so."""
        with self._lock:
            self._set_shadow(name, self.routing(name))

    def _apply(self, name: str, settings: RoutingSettings) -> None:
        self._registry.route(name, None if settings == _NO_ROUTING else Routes(settings))
        self._set_shadow(name, settings)

    def _set_shadow(self, name: str, settings: RoutingSettings) -> None:
        shadow = self._shadow(name, settings)
        if shadow is None:
            self._shadows.pop(name, None)
        else:
            self._shadows[name] = shadow
        for each in self._registry.versions(name):
            each.shadow = None if shadow is None or each is shadow.target else shadow.copy

    def _shadow(self, name: str, settings: RoutingSettings) -> Shadow | None:
        """Return the present shadow if it matches ``settings``, or a new one; None without a shadow."""
        wanted = settings.shadow
        if wanted is None:
            return None
        number = settings.number(wanted.version)
        for each in self._registry.versions(name):
            if each.version == number and each.state is ModelState.READY:
                present = self._shadows.get(name)
                is_kept = present is not None and present.target is each and present.settings == wanted
                return present if is_kept else self._make_shadow(each, wanted)
        return None
