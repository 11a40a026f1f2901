"""Decides which model versions are loaded and unloaded, and when: at start, by polling, or by calls.

Each model has one operation at a time, others wait for their turn. An operation compares what is wanted with what is
served, loads what is missing or has changed, and unloads what is not wanted any more once all of that is READY. All
decisions are made in one thread, the *control thread*, which also searches the repositories.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue

from inferd.batching.ports import Clock
from inferd.config.repository import EVERY_MODEL, ModelControl
from inferd.config.settings import ModelSettings, Settings
from inferd.errors import (
    ModelControlError,
    ModelLoadFailedError,
    ModelNotFoundError,
    ModelUnavailableError,
    ServingError,
)
from inferd.models.catalog import Catalog, LoadOverride, OverriddenModel, Versions, fingerprint
from inferd.models.cold_models import ColdModels
from inferd.models.lifecycle import Lifecycle
from inferd.models.operation import Cause, OnDone, Operation, Operations
from inferd.models.poller import Poller
from inferd.models.registry import ModelRegistry
from inferd.models.remembered import RememberedModels
from inferd.models.repository import ModelSource
from inferd.models.router import Router
from inferd.models.states import ModelState
from inferd.models.temporary_folder import delete_leftovers
from inferd.plain_text import clipped, listed

_log = logging.getLogger(__name__)

#: Triton's text, by which clients know that they cannot control models.
_NOT_EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"

#: States of versions that nothing holds on to.
_ENDED = {ModelState.FAILED, ModelState.UNAVAILABLE, ModelState.ON_DEMAND}


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the index; a model that was never loaded is UNAVAILABLE and has no version."""

    name: str
    version: str = ""
    state: ModelState = ModelState.UNAVAILABLE
    reason: str = ""


class ModelManager:
    """Loads and unloads models. Its methods may be called from any thread, and none waits for a load.

    Invariants: every operation ends with one call of its ``on_done``, and every demand with one of ``on_demand_ended``;
    one operation of a model runs at a time, the first of its queue.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        catalog: Catalog,
        registry: ModelRegistry,
        lifecycle: Lifecycle,
        router: Router,
        clock: Clock,
        on_demand_ended: Callable[[str, ServingError | None], None] = lambda *_: None,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._router = router
        self._clock = clock
        repository = settings.repository
        self._poller: Poller | None = None
        if repository.mode is ModelControl.POLL:
            self._poller = Poller(catalog, interval_s=repository.poll_interval_s, clock=clock, wall_clock=time.time)
        self._next_look_at = 0.0
        self._registry = registry
        self._lifecycle = lifecycle
        self._remembered = RememberedModels(settings.repository.remember)
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._control, name="model-control", daemon=True)
        self._operations = Operations(self._work.put)
        self._cold = ColdModels(registry, clock)
        self._on_demand_ended = on_demand_ended

    # What is called from outside.

    def start(self, found: Mapping[str, Versions], on_loaded: Callable[[], None]) -> None:
        """Load what is to be loaded at start of the models that were ``found`` in the repositories.

        All of it is in the registry when this returns. The control thread calls ``on_loaded`` when each version is
        loaded or has failed.
        """
        delete_leftovers()
        wanted = self._first_loads(found)
        if self._poller is not None:
            self._next_look_at = self._clock() + self._settings.repository.poll_interval_s
        remaining = len(wanted)

        def on_done(_: ServingError | None) -> None:
            nonlocal remaining
            remaining -= 1
            if not remaining:
                on_loaded()

        # Before the control thread starts, this one may do what that thread does.
        for name, (versions, only) in wanted.items():
            self._operations.enqueue(
                self._load_operation(name, versions, Cause.START, on_done=on_done, only=only, must_exist=True)
            )
        if not wanted:
            self._work.put(on_loaded)
        self._lifecycle.start()
        self._thread.start()

    def load(
        self, name: str, *, version: str = "", override: LoadOverride | None = None, on_done: OnDone
    ) -> Callable[[], None]:
        """Load the versions of a model that its policy wants, or one ``version`` in addition to those that serve.

        What is loaded and unchanged stays. Returns a function that cancels the load; ``on_done`` then gets an error,
        as it does if no version could be loaded, or the mode of control forbids it: in other modes than explicit,
        models that are loaded on demand may be loaded by calls too.
        """
        if self._settings.repository.mode is not ModelControl.EXPLICIT and name not in self._cold:
            on_done(ModelControlError(_NOT_EXPLICIT))
            return lambda: None
        operation = Operation(
            name=name,
            cause=Cause.CALL,
            begin=partial(self._begin_asked_load, version=version, override=override),
            end=partial(self._end_asked_load, version=version),
            on_done=on_done,
            is_load=True,
        )
        self._work.put(partial(self._operations.enqueue, operation))
        return lambda: self._work.put(partial(self._operations.cancel, operation, "the load was cancelled"))

    def unload(self, name: str, *, version: str = "", on_done: OnDone) -> None:
        """Unload a model, or one ``version`` of it, when its requests are answered; cancels loads of that model."""
        if self._settings.repository.mode is not ModelControl.EXPLICIT:
            on_done(ModelControlError(_NOT_EXPLICIT))
            return
        operation = Operation(
            name=name,
            cause=Cause.CALL,
            begin=partial(self._begin_unload, version=version),
            end=partial(self._end_unload, version=version),
            on_done=on_done,
            is_load=False,
        )
        self._work.put(partial(self._operations.enqueue, operation))

    def demand(self, name: str) -> None:
        """Load a model that is loaded on demand, unless it is READY; ``on_demand_ended`` is then called with its name.

        It gets an error if no version could be loaded, at once for some time after a failure.
        """
        self._work.put(partial(self._demand, name))

    def expected_load_s(self, name: str) -> float:
        """Return how long a load on demand will take, or the one that goes on still takes; 0 if nothing is known."""
        return self._cold.expected_load_s(name)

    def index(self) -> list[IndexEntry]:
        """Return all models in the repositories and all that are loaded, by name.

        Reads directories, so the poll thread must not call it.
        """
        versions = self._registry.all()
        known = {version.name for version in versions}
        never = [IndexEntry(name) for name in self._catalog.scan() if name not in known]
        entries = [IndexEntry(each.name, each.version, each.state, each.reason) for each in versions]
        return sorted([*entries, *never], key=lambda entry: entry.name)

    def stop(self, timeout_s: float) -> bool:
        """Unload everything as `Lifecycle.stop`, and end the control thread; operations that wait fail."""
        finished = self._lifecycle.stop(timeout_s)
        self._work.put(None)
        return finished

    # The control thread.

    def _control(self) -> None:
        while (work := self._next_work()) is not None:
            try:
                work()
            except Exception:  # noqa: BLE001  (the other models must still be controlled)
                _log.exception("an unexpected error in the control of models")
        self._operations.end_all(ModelUnavailableError("the server is stopping"))

    def _next_work(self) -> Callable[[], None] | None:
        """Return what is to be done next, a look at the repositories if it is due; None to end."""
        if self._poller is None:
            return self._work.get()
        try:
            return self._work.get(timeout=max(0.0, self._next_look_at - self._clock()))
        except Empty:
            self._next_look_at = self._clock() + self._settings.repository.poll_interval_s
            return partial(self._look, self._poller)

    def _look(self, poller: Poller) -> None:
        for name, versions in poller.look().items():
            self._operations.enqueue(self._load_operation(name, versions, Cause.CHANGE))

    def _demand(self, name: str) -> None:
        error = self._cold.refusal(name)
        if name not in self._cold:
            error = ModelUnavailableError(f'model "{clipped(name)}" is not loaded on demand any more')
        if error is not None or not self._cold.missing(name):
            self._on_demand_ended(name, error)
            return
        self._operations.enqueue(
            Operation(
                name=name,
                cause=Cause.DEMAND,
                begin=self._begin_demanded_load,
                end=self._end_demanded_load,
                on_done=partial(self._on_demand_ended, name),
                is_load=True,
            )
        )

    # What operations do.

    def _first_loads(self, found: Mapping[str, Versions]) -> dict[str, tuple[Versions, Collection[str]]]:
        """Return the models of the start: the versions to choose from, and their numbers if the policy does not."""
        if self._poller is not None:
            return {name: (versions, ()) for name, versions in self._poller.first(found).items()}
        repository = self._settings.repository
        if repository.mode is not ModelControl.EXPLICIT or EVERY_MODEL in repository.load:
            return {name: (versions, ()) for name, versions in found.items()}
        remembered = {**self._remembered.read(), **dict.fromkeys(repository.load)}
        return {name: (found.get(name, {}), numbers or ()) for name, numbers in remembered.items()}

    def _load_operation(
        self,
        name: str,
        versions: Versions,
        cause: Cause,
        *,
        on_done: OnDone = lambda _: None,
        only: Collection[str] = (),
        must_exist: bool = False,
    ) -> Operation:
        """Return the operation that makes a model serve what its policy wants of ``versions``, or ``only`` those."""

        def begin(operation: Operation) -> None:
            known = {number for number in only if number in versions}
            if must_exist and not (known if only else versions):
                raise _not_found(name)
            self._load(operation, versions, known)

        return Operation(name=name, cause=cause, begin=begin, end=self._end_load, on_done=on_done, is_load=True)

    def _begin_asked_load(self, operation: Operation, *, version: str, override: LoadOverride | None) -> None:
        versions = self._catalog.scan().get(operation.name, {})
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

    def _load(self, operation: Operation, versions: Versions, only: Collection[str] = ()) -> None:
        """Begin to load those of the wanted versions that do not serve in their present form.

        Wanted are ``only`` those, beside the ones that serve, or else what the model's policy says. Those of an
        on-demand model that does not serve are only registered, unless a call asks to load them.
        """
        settings = self._catalog.settings_of(versions)
        wanted = set(only) or self._catalog.wanted(versions, settings)
        if versions and not wanted:
            have = sorted(versions, key=int)
            raise ModelLoadFailedError(
                f"failed to load '{clipped(operation.name)}', no version is available: its policy (versions) serves"
                f" none of those in the model repository: {listed(have)}"
            )
        if settings is not None:
            # Before a new version is ready, which would get all requests otherwise.
            self._router.configure(operation.name, settings.routing)
        sources = {number: versions[number] for number in sorted(wanted, key=int, reverse=True)}
        self._note_sources(operation, sources, settings, is_addition=bool(only))
        if operation.name in self._cold and operation.cause is not Cause.CALL and not self._ready(operation.name):
            self._lifecycle.register_cold(sources.values(), settings or self._settings.for_model({}))
            incomplete = []
        else:
            incomplete = [number for number, each in sources.items() if not self._load_version(operation, each)]
        for each in self._registry.versions(operation.name):
            if each.version not in wanted and each.state is ModelState.READY and not (only or incomplete):
                operation.leaving.append(each)
            elif each.version not in versions and each.state in _ENDED:
                self._registry.remove(each)

    def _note_sources(
        self, operation: Operation, sources: Versions, settings: ModelSettings | None, *, is_addition: bool
    ) -> None:
        """Take note of what a demand for the model loads from now on, if it is loaded on demand."""
        name = operation.name
        if sources and operation.overridden is None and self._is_on_demand(settings):
            self._cold.know(name, {**self._cold.sources(name), **sources} if is_addition else sources)
        else:
            self._cold.forget(name)

    def _is_on_demand(self, settings: ModelSettings | None) -> bool:
        if settings is None or settings.on_demand is None:
            on_demand = self._settings.repository.on_demand
        else:
            on_demand = settings.on_demand
        return on_demand and not (settings is not None and settings.pinned)

    def _load_version(self, operation: Operation, source: ModelSource) -> bool:
        """Begin to load a version unless it serves in its present form. Returns False if it is not complete now."""
        serving = self._lifecycle.serving(source)
        found = fingerprint(source)
        if serving is not None and serving.fingerprint == found:
            return True
        if self._poller is not None and not self._poller.is_complete(source):
            return False
        version = self._lifecycle.register(
            source, self._settings.for_model({}), found, on_demand=operation.name in self._cold
        )
        operation.pending += 1
        load = self._lifecycle.begin(
            source, version, partial(self._operations.part_ended, operation), partial(self._has_changed, source, found)
        )
        operation.loads.append(load)
        return True

    def _begin_demanded_load(self, operation: Operation) -> None:
        self._cold.load_begins(operation.name)
        for source in self._cold.missing(operation.name).values():
            self._load_version(operation, source)

    def _end_demanded_load(self, operation: Operation) -> ServingError | None:
        return self._cold.load_ended(operation.name)

    def _has_changed(self, source: ModelSource, found: Hashable) -> bool:
        """Whether what was loaded may be another thing than what was ``found`` complete. In a thread of the pool."""
        return self._poller is not None and fingerprint(source) != found

    def _end_load(self, operation: Operation) -> ServingError | None:
        versions = [load.version for load in operation.loads]
        failed = [version for version in versions if version.state is not ModelState.READY]
        if not failed:
            for each in operation.leaving:
                each.on_demand = False
                self._lifecycle.retire(each)
        elif len(failed) == len(versions):
            name, reason = clipped(operation.name), failed[0].reason
            return ModelLoadFailedError(f"failed to load '{name}', no version is available: {reason}")
        return None

    def _end_asked_load(self, operation: Operation, *, version: str) -> ServingError | None:
        error = self._end_load(operation)
        if error is None:
            self._remembered.loaded(operation.name, version, self._ready(operation.name))
        return error

    def _begin_unload(self, operation: Operation, *, version: str) -> None:
        versions = [each for each in self._registry.versions(operation.name) if version in ("", each.version)]
        if not versions:
            of_version = f' version "{clipped(version)}"' if version else ""
            raise ModelNotFoundError(f'there is no model "{clipped(operation.name)}"{of_version}')
        self._cold.forget(operation.name, [each.version for each in versions])
        for each in versions:
            each.on_demand = False
            if each.state is ModelState.ON_DEMAND:
                self._lifecycle.withdraw(each)
        operation.leaving = [each for each in versions if each.state is ModelState.READY]
        operation.pending = len(operation.leaving)
        for each in operation.leaving:
            self._lifecycle.retire(each, partial(self._operations.part_ended, operation))

    def _end_unload(self, operation: Operation, *, version: str) -> ServingError | None:
        self._remembered.unloaded(operation.name, version, self._ready(operation.name))
        left = [each.version for each in operation.leaving if each.state is not ModelState.UNAVAILABLE]
        if left:
            name = clipped(operation.name)
            return ModelLoadFailedError(f"failed to unload '{name}', versions that are still available: {listed(left)}")
        return None

    def _ready(self, name: str) -> list[str]:
        return [each.version for each in self._registry.versions(name) if each.state is ModelState.READY]


def _not_found(name: str) -> ModelLoadFailedError:
    """Return the error for a model that is in no repository, in Triton's words."""
    return ModelLoadFailedError(f"failed to load '{clipped(name)}', failed to poll from model repository")
