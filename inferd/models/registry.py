"""The registry of model versions, which looks up the version for a request."""

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType

from inferd.errors import InvalidInputError, ModelNotFoundError, ModelUnavailableError, Retry, ServingError
from inferd.models.routing import Routes
from inferd.models.states import ModelState
from inferd.models.version import LOADING_RETRY_S, ModelVersion
from inferd.plain_text import clipped, listed

#: Returns True if the caller may see a model; called with names of existing models only.
Visible = Callable[[str], bool]


class ModelRegistry:
    """All model versions of the server, in any state.

    Invariants: the mapping is immutable and replaced as a whole, so that reads take no lock; the versions of a model
    are sorted with the highest first. All methods may be called from any thread.

    While it ``is_complete`` is false, models that were found at the start may still be missing.
    """

    def __init__(self, *, is_complete: bool = True) -> None:
        self.is_complete = is_complete
        self._models: Mapping[str, tuple[ModelVersion, ...]] = MappingProxyType({})
        self._routes: Mapping[str, Routes] = MappingProxyType({})
        self._writing = threading.Lock()

    def add(self, version: ModelVersion) -> None:
        """Register ``version``. Raises `ValueError` if its name and version are registered already."""
        with self._writing:
            others = self._models.get(version.name, ())
            if any(other.version == version.version for other in others):
                msg = f'model "{version.name}" has a version "{version.version}" already'
                raise ValueError(msg)
            self._set(version.name, (*others, version))

    def put(self, version: ModelVersion) -> None:
        """Register ``version`` in place of the one with the same name and number, if there is one."""
        with self._writing:
            others = (each for each in self._models.get(version.name, ()) if each.version != version.version)
            self._set(version.name, (*others, version))

    def remove(self, version: ModelVersion) -> None:
        """Remove ``version``; no effect if another one has replaced it."""
        with self._writing:
            self._set(version.name, tuple(each for each in self._models.get(version.name, ()) if each is not version))

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """Return the versions of a model, the highest first; empty if there is none."""
        return self._models.get(name, ())

    def route(self, name: str, routes: Routes | None) -> None:
        """Choose among the versions of a model by ``routes``; with None, the highest READY one."""
        with self._writing:
            changed = {each: other for each, other in self._routes.items() if each != name}
            if routes is not None:
                changed[name] = routes
            self._routes = MappingProxyType(changed)

    def routes(self) -> Mapping[str, Routes]:
        """Return the routing of the models that have one, by name."""
        return self._routes

    def _set(self, name: str, versions: tuple[ModelVersion, ...]) -> None:
        models = {**self._models, name: tuple(sorted(versions, key=lambda each: int(each.version), reverse=True))}
        if not versions:
            del models[name]
        self._models = MappingProxyType(models)

    def get(self, name: str, version: str = "") -> ModelVersion:
        """Return a version that is READY.

        ``version`` is a number or a label. Without it, the routing of the model chooses, or else it is the highest one
        that is READY; without ``name``, it is one of the only model.

        Raises:
            InvalidInputError: there are several models, and no name is given.
            ModelNotFoundError: no such model or version.
            ModelUnavailableError: the version is not READY, `ColdModelError` if it is loaded on demand; or it may
                still be missing.
        """
        if self._routes and (routes := self._routes.get(name)) is not None:
            routed = routes.choose(version, self._models.get(name, ()))
            if routed is not None:
                return routed
        for each in self._models.get(name, ()):
            if (not version or each.version == version) and each.state is ModelState.READY:
                return each
        found = self.find(name, version)
        if found.state is not ModelState.READY:
            raise found.unavailable()
        return found

    def find(self, name: str, version: str = "", visible: Visible | None = None) -> ModelVersion:
        """Return the same as `get`, but in any state.

        Without ``version``, and if none is READY, it is the highest one that a request can load, or else the highest.
        Models that are not ``visible`` are treated as if they did not exist.
        """
        versions = self._models.get(name)
        if versions is None or (visible is not None and not visible(name)):
            versions = self._without_name(name, visible)
        if version and (routes := self._routes.get(versions[0].name)) is not None:
            version = routes.settings.labels.get(version, version)
        for each in versions:
            if each.version == version or (not version and each.state is ModelState.READY):
                return each
        if not version:
            return next((each for each in versions if each.accepts_requests), versions[0])
        normal = _normalized(version)
        if normal != version:
            return self.find(name, normal, visible)
        have = listed(each.version for each in versions)
        raise self._not_found(f'model "{versions[0].name}" has no version "{clipped(version)}", it has {have}')

    def all(self) -> list[ModelVersion]:
        """Return all versions, ordered by name, then by version with the highest first."""
        return [version for _, versions in sorted(self._models.items()) for version in versions]

    def _without_name(self, name: str, visible: Visible | None) -> tuple[ModelVersion, ...]:
        if name:
            raise self._not_found(f'there is no model "{clipped(name)}"')
        models = self._models
        if visible is not None:
            models = {name: versions for name, versions in models.items() if visible(name)}
        if not models:
            raise self._not_found("there is no model")
        if len(models) > 1:
            raise InvalidInputError(f"model: expected one of {listed(sorted(models))}, got no name", at="model")
        return next(iter(models.values()))

    def _not_found(self, text: str) -> ServingError:
        if self.is_complete:
            return ModelNotFoundError(text)
        starting = f"{text} yet: the server is starting"
        return ModelUnavailableError(starting, retry_after_s=LOADING_RETRY_S, retry=Retry.SOON)


def _normalized(version: str) -> str:
    """Return ``version`` without leading zeros, which Triton accepts too."""
    if version[:1] == "0" and version.isdecimal():
        return version.lstrip("0") or "0"
    return version
