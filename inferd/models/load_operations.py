"""The operations that load a model: choose its versions, begin the loads of missing ones, and end."""

import logging
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from functools import partial

from inferd.batching.ports import Clock
from inferd.config.settings import ModelSettings, Settings
from inferd.errors import ModelLoadFailedError, ModelUnavailableError, Retry, ServingError
from inferd.models.catalog import Catalog, Versions
from inferd.models.cold_models import ColdModels
from inferd.models.fingerprint import load_fingerprint
from inferd.models.lifecycle import Lifecycle, VersionLoad
from inferd.models.load_override import LoadOverride, OverriddenModel
from inferd.models.load_queue import LoadQueue, QueuedLoad
from inferd.models.loaded import LoadedVersion
from inferd.models.model_source import ModelSource
from inferd.models.operation import Cause, OnDone, Operation, Operations
from inferd.models.poller import Poller
from inferd.models.registry import ModelRegistry
from inferd.models.residency import NO_MEMORY
from inferd.models.router import Router
from inferd.models.sizes import UNKNOWN_SIZE, ModelSize, ModelSizes, size_key
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.plain_text import clipped, listed

_log = logging.getLogger(__name__)

#: States of versions that are not in use, and may be removed from the registry.
_ENDED = {ModelState.FAILED, ModelState.UNAVAILABLE, ModelState.ON_DEMAND}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelParts:
    """The parts that the operations of all models share.

    ``poller`` is for mode poll only. ``defaults`` are the settings of a model without any of its own. ``pause`` is
    called between two steps, so that requests go first.
    """

    settings: Settings
    catalog: Catalog
    registry: ModelRegistry
    lifecycle: Lifecycle
    router: Router
    sizes: ModelSizes
    cold: ColdModels
    clock: Clock
    poller: Poller | None
    defaults: ModelSettings
    pause: Callable[[], None]

    def ready(self, name: str) -> list[str]:
        """Return the numbers of the versions of a model that are READY."""
        return [each.version for each in self.registry.versions(name) if each.state is ModelState.READY]


class LoadOperations:
    """Makes operations that load models. Control thread only, except `_rejection_reason`."""

    def __init__(self, parts: ModelParts, operations: Operations, queue: LoadQueue) -> None:
        self._parts = parts
        self._cold = parts.cold
        self._lifecycle = parts.lifecycle
        self._operations = operations
        self._queue = queue

    def repository_load(
        self,
        name: str,
        versions: Versions,
        cause: Cause,
        *,
        on_done: OnDone = lambda _: None,
        only: Collection[str] = (),
        must_exist: bool = False,
    ) -> Operation:
        """Return the operation that makes a model serve the ``versions`` that its policy chooses, or ``only`` those."""

        def begin(operation: Operation) -> None:
            known = {number for number in only if number in versions}
            if must_exist and not (known if only else versions):
                raise _not_found(name)
            self._load(operation, versions, known)

        return Operation(name=name, cause=cause, begin=begin, end=self.end, on_done=on_done, is_load=True)

    def on_demand_load(self, name: str, on_done: OnDone) -> Operation:
        """Return the operation that loads the versions of an on-demand model that are not READY."""

        def begin(operation: Operation) -> None:
            missing = self._cold.missing(name)
            settings = self._parts.catalog.settings_of(missing)
            self._parts.pause()
            for number, source in missing.items():
                self._load_version(operation, source, settings[number])

        def end(operation: Operation) -> ServingError | None:
            if not operation.loads and self._cold.missing(name):
                text = f'the files of model "{clipped(name)}" are being changed or deleted'
                interval_s = self._parts.settings.repository.poll_interval_s
                return ModelUnavailableError(text, retry_after_s=interval_s, retry=Retry.SOON)
            return self._cold.load_ended(name)

        return Operation(name=name, cause=Cause.DEMAND, begin=begin, end=end, on_done=on_done, is_load=True)

    def begin_requested(self, operation: Operation, *, version: str, override: LoadOverride | None) -> None:
        """Begin the loads that a call asks for: all versions that the policy chooses, or one ``version``."""
        versions = self._parts.catalog.scan(operation.name).get(operation.name, {})
        self._parts.pause()
        if override is not None:
            operation.overridden = OverriddenModel(operation.name, override, versions)
            versions = operation.overridden.versions
        if not versions:
            raise _not_found(operation.name)
        if version and version not in versions:
            raise ModelLoadFailedError(
                f"failed to load '{clipped(operation.name)}', version {clipped(version)} is not in the model repository"
            )
        self._load(operation, versions, {version} if version else ())

    def end(self, operation: Operation) -> ServingError | None:
        """Unload the versions to unload, if all that were loaded are READY; return the error if none is."""
        if operation.loads:
            self._cold.load_ended(operation.name)
        versions = [load.version for load in operation.loads]
        failed = [version for version in versions if version.state is not ModelState.READY]
        if not failed:
            for each in operation.to_unload:
                each.on_demand = False
                self._lifecycle.retire(each)
                self._parts.pause()
        elif len(failed) == len(versions):
            name, reason = clipped(operation.name), failed[0].reason
            return ModelLoadFailedError(f"failed to load '{name}', no version is available: {reason}")
        return None

    def _load(self, operation: Operation, versions: Versions, only: Collection[str] = ()) -> None:
        """Begin the loads of the chosen versions that are not READY with their present files.

        Chosen are ``only`` those, in addition to the READY ones, or else those that the model's policy chooses. The
        versions of an on-demand model that is not loaded are only registered, unless a call asks to load them.
        """
        parts = self._parts
        settings_of = parts.catalog.settings_of(versions)
        settings = next(iter(settings_of.values()), None)
        parts.pause()
        chosen = set(only) or parts.catalog.chosen(versions, settings)
        if versions and not chosen:
            available = sorted(versions, key=int)
            raise ModelLoadFailedError(
                f"failed to load '{clipped(operation.name)}', no version is available: its policy (versions) serves"
                f" none of those in the model repository: {listed(available)}"
            )
        if settings is not None:
            # Before a new version is ready, which would get all requests otherwise.
            parts.router.configure(operation.name, settings.routing)
        sources = {number: versions[number] for number in sorted(chosen, key=int, reverse=True)}
        self._update_cold_models(operation, sources, settings_of, is_addition=bool(only))
        if operation.name in self._cold and operation.cause is not Cause.CALL and not parts.ready(operation.name):
            self._lifecycle.register_cold(sources.values(), settings or parts.defaults)
            incomplete = []
        else:
            incomplete = [
                number
                for number, each in sources.items()
                if not self._load_version(operation, each, settings_of[number])
            ]
        for each in parts.registry.versions(operation.name):
            if each.version not in chosen and each.state is ModelState.READY and not (only or incomplete):
                operation.to_unload.append(each)
            elif each.state in _ENDED and (each.version not in versions or self._is_stale(each)):
                parts.registry.remove(each)

    def _update_cold_models(
        self,
        operation: Operation,
        sources: Versions,
        settings_of: Mapping[str, ModelSettings | None],
        *,
        is_addition: bool,
    ) -> None:
        """Set the versions to load on demand, or none if the model is not loaded on demand."""
        name = operation.name
        settings = next(iter(settings_of.values()), None)
        if sources and operation.overridden is None and self._is_on_demand(settings):
            known = {**self._cold.sources(name), **sources} if is_addition else sources
            sizes = [self._size(each, settings_of.get(number)) for number, each in known.items()]
            self._cold.set_sources(name, known, load_s=max(size.load_s for size in sizes))
        else:
            self._cold.remove(name)

    def _is_stale(self, version: ModelVersion) -> bool:
        """Return True if a version is ON_DEMAND, but not among those to load on demand any more."""
        return version.state is ModelState.ON_DEMAND and version.version not in self._cold.sources(version.name)

    def _is_on_demand(self, settings: ModelSettings | None) -> bool:
        if settings is None:
            return self._parts.settings.repository.on_demand
        on_demand = self._parts.settings.repository.on_demand if settings.on_demand is None else settings.on_demand
        return on_demand and not settings.pinned

    def _load_version(self, operation: Operation, source: ModelSource, settings: ModelSettings | None) -> bool:
        """Queue the load of a version unless it is READY with its present files. Returns False if it is incomplete."""
        poller = self._parts.poller
        serving = self._lifecycle.serving(source)
        found = load_fingerprint(source)
        self._parts.pause()
        if serving is not None and serving.fingerprint == found:
            return True
        if poller is not None and not poller.is_complete(source):
            return False
        size = self._size(source, settings)
        self._parts.pause()
        operation.pending += 1
        self._queue.add(
            QueuedLoad(
                operation=operation,
                version=source.version,
                size=size,
                queued_at=self._parts.clock(),
                begin=partial(self._begin_version, operation, source, found),
                refuse=partial(self._refuse_version, operation, source, found),
            )
        )
        return True

    def _begin_version(self, operation: Operation, source: ModelSource, found: Hashable) -> VersionLoad:
        is_on_demand = operation.name in self._cold
        version = self._lifecycle.register(source, self._parts.defaults, found, on_demand=is_on_demand)
        if is_on_demand:
            self._cold.load_began(operation.name)
        load = self._lifecycle.begin(
            source,
            version,
            partial(self._operations.version_ended, operation),
            partial(self._rejection_reason, source, found),
        )
        operation.loads.append(load)
        return load

    def _refuse_version(self, operation: Operation, source: ModelSource, found: Hashable, reason: str) -> None:
        version = self._lifecycle.register(source, self._parts.defaults, found, on_demand=operation.name in self._cold)
        operation.loads.append(self._lifecycle.refuse(source, version, reason))
        self._operations.version_ended(operation)

    def _rejection_reason(self, source: ModelSource, found: Hashable, loaded: LoadedVersion) -> str:
        """Return why a loaded version must not serve; empty if it may. ``found`` is the fingerprint before the load."""
        if self._parts.poller is not None and load_fingerprint(source) != found:
            return "its files were changed while it was loaded"
        measured = loaded.measured
        if not measured.is_alone:
            return ""
        # Of several measurements, one may be high because of requests to other models.
        peak = measured.peak if loaded.least_peak == NO_MEMORY else measured.peak.at_most(loaded.least_peak)
        return self._queue.over_budget_reason(source.name, peak, measured.steady)

    def _size(self, source: ModelSource, settings: ModelSettings | None) -> ModelSize:
        """Return the expected size of a version; its load reports invalid settings."""
        return UNKNOWN_SIZE if settings is None else self._parts.sizes.expected(size_key(source, settings))


def _not_found(name: str) -> ModelLoadFailedError:
    """Return the error for a model that is in no repository, with the text of Triton."""
    return ModelLoadFailedError(f"failed to load '{clipped(name)}', failed to poll from model repository")
