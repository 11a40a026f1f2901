"""Decide which model versions are loaded and unloaded, and when: at start, by polling, or by calls.

Each model has one operation at a time; further ones wait in its queue. An operation compares the versions to serve with
those that are served, loads those that are missing or have changed, and once all of them are READY, unloads the others.
All decisions are made in one thread, the *control thread*, which also searches the repositories.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue

from inferd.batching.ports import Clock
from inferd.config.repository import EVERY_MODEL, ModelControl
from inferd.config.settings import Settings
from inferd.errors import (
    ModelControlError,
    ModelLoadFailedError,
    ModelNotFoundError,
    ModelUnavailableError,
    ServingError,
)
from inferd.models.catalog import Catalog, Versions
from inferd.models.cold_models import ColdModels
from inferd.models.lifecycle import Lifecycle
from inferd.models.load_operations import LoadOperations, ModelParts
from inferd.models.load_override import LoadOverride, delete_leftovers
from inferd.models.load_queue import LoadQueue, residency_of
from inferd.models.operation import Cause, OnDone, Operation, Operations
from inferd.models.poller import Poller
from inferd.models.registry import ModelRegistry
from inferd.models.remembered import RememberedModels
from inferd.models.residency import Resident
from inferd.models.residents import residents_of
from inferd.models.router import Router
from inferd.models.sizes import ModelSizes
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.observability.metrics.residency import ResidencyCounts, ResidencySample
from inferd.plain_text import clipped, listed

_log = logging.getLogger(__name__)

#: The text of Triton; clients recognize by it that they cannot control models.
_NOT_EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the repository index; a model that was never loaded is UNAVAILABLE and has no version."""

    name: str
    version: str = ""
    state: ModelState = ModelState.UNAVAILABLE
    reason: str = ""


class ModelManager:
    """Loads and unloads models. Its methods may be called from any thread, and none waits for a load.

    Invariants: every operation ends with one call of its ``on_done``, and every load on demand with one of
    ``on_demand_ended``; one operation of a model runs at a time, the first of its queue. ``waiting`` returns how many
    requests wait for a model, which is then not idle. ``pause`` is called between two steps, so that requests go first.
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
        sizes: ModelSizes,
        on_demand_ended: Callable[[str, ServingError | None], None] = lambda *_: None,
        waiting: Callable[[str], int] = lambda _: 0,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        repository = settings.repository
        poller: Poller | None = None
        if repository.mode is ModelControl.POLL:
            poller = Poller(catalog, interval_s=repository.poll_interval_s, clock=clock, wall_clock=time.time)
        self._parts = ModelParts(
            settings=settings,
            catalog=catalog,
            registry=registry,
            lifecycle=lifecycle,
            router=router,
            sizes=sizes,
            cold=ColdModels(registry, clock),
            clock=clock,
            poller=poller,
            defaults=settings.for_model({}),
            pause=pause,
        )
        self._next_poll_at = 0.0
        self._remembered = RememberedModels(repository.remember)
        self._on_demand_ended = on_demand_ended
        self._waiting = waiting
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._control, name="model-control", daemon=True)
        self._queue = LoadQueue(residency_of(repository), residents=self._residents, evict=self._evict, clock=clock)
        self._operations = Operations(self._work.put, withdraw=self._queue.withdraw)
        self._loads = LoadOperations(self._parts, self._operations, self._queue)

    # Any thread, except `start` and `stop`, which are called once.

    def start(self, found: Mapping[str, Versions], on_loaded: Callable[[], None]) -> None:
        """Begin the loads of the start, of the models that were ``found`` in the repositories.

        The registry has their versions when this returns. The control thread calls ``on_loaded`` when each version is
        loaded or has failed.
        """
        delete_leftovers()
        wanted = self._first_loads(found)
        if self._parts.poller is not None:
            self._next_poll_at = self._clock() + self._settings.repository.poll_interval_s
        remaining = len(wanted)

        def on_done(_: ServingError | None) -> None:
            nonlocal remaining
            remaining -= 1
            if not remaining:
                on_loaded()

        # Before the control thread starts, this one may do what that thread does.
        for name, (versions, only) in wanted.items():
            self._operations.enqueue(
                self._loads.repository_load(name, versions, Cause.START, on_done=on_done, only=only, must_exist=True)
            )
        if not wanted:
            self._work.put(on_loaded)
        self._parts.lifecycle.start()
        self._thread.start()

    def load(
        self, name: str, *, version: str = "", override: LoadOverride | None = None, on_done: OnDone
    ) -> Callable[[], None]:
        """Load the versions that a model's policy chooses, or one ``version`` in addition to those that serve.

        Versions that are loaded and unchanged stay. Returns a function that cancels the load; ``on_done`` then gets an
        error, as it does if no version could be loaded, or the control mode forbids it: in other modes than explicit,
        calls may load models on demand only.
        """
        if self._settings.repository.mode is not ModelControl.EXPLICIT and name not in self._parts.cold:
            on_done(ModelControlError(_NOT_EXPLICIT))
            return lambda: None
        operation = Operation(
            name=name,
            cause=Cause.CALL,
            begin=partial(self._loads.begin_requested, version=version, override=override),
            end=partial(self._end_requested_load, version=version),
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

    def load_on_demand(self, name: str) -> None:
        """Load an on-demand model unless it is READY, then call ``on_demand_ended`` with its name.

        With an error, if no version could be loaded; for some time after a failure, without another attempt.
        """
        self._work.put(partial(self._load_on_demand, name))

    def expected_load_s(self, name: str) -> float:
        """Return how long a load on demand takes, or the one in progress still takes; 0 if unknown."""
        return self._parts.cold.expected_load_s(name)

    def residency(self) -> ResidencySample:
        """Return the use of the memory budget, and the numbers of loads and evictions."""
        return self._queue.sample()

    def counts(self, name: str) -> ResidencyCounts:
        """Return how often versions of a model were loaded, and how often it was evicted."""
        return self._queue.counter.of(name)

    def memory_bytes(self) -> int:
        """Return the host memory that models and loads in progress may take, full caches included."""
        taken = self._parts.lifecycle.memory
        return (taken + self._queue.reserved()).host if self._queue.in_progress else taken.host

    def resident_bytes(self) -> int:
        """Return `memory_bytes` without the unused part of caches."""
        return self.memory_bytes() - self._parts.lifecycle.unused_cache_bytes()

    def memory_is_steady(self) -> bool:
        """Return True if no model is being loaded or unloaded."""
        return not (self._queue.in_progress or self._parts.lifecycle.unloading)

    def index(self) -> list[IndexEntry]:
        """Return all models in the repositories and all that are loaded, by name.

        Reads directories, so the poll thread must not call it.
        """
        versions = self._parts.registry.all()
        known = {version.name for version in versions}
        never = [IndexEntry(name) for name in self._parts.catalog.scan() if name not in known]
        entries = [IndexEntry(each.name, each.version, each.state, each.reason) for each in versions]
        return sorted([*entries, *never], key=lambda entry: entry.name)

    def _residents(self) -> list[Resident]:
        """Return the models that are loaded now. Any thread."""
        return residents_of(
            self._parts.lifecycle.loaded(),
            is_evictable=self._parts.cold.__contains__,
            is_held=self._operations.is_held,
            waiting=self._waiting,
        )

    def stop(self, timeout_s: float) -> bool:
        """Unload all models as `Lifecycle.stop` does, and end the control thread; waiting operations fail."""
        finished = self._parts.lifecycle.stop(timeout_s)
        self._work.put(None)
        return finished

    # Control thread only, from here on.

    def _control(self) -> None:
        while (work := self._next_work()) is not None:
            try:
                work()
                self._queue.check()
                self._parts.pause()
            except Exception:  # noqa: BLE001  (the other models must still be controlled)
                _log.exception("an unexpected error in the control of models")
        self._operations.end_all(ModelUnavailableError("the server is stopping"))

    def _next_work(self) -> Callable[[], None] | None:
        """Return the next piece of work, which is polling or checking the load queue if that is due; None to end."""
        poller, memory_at = self._parts.poller, self._queue.next_check_at
        poll_at = None if poller is None else self._next_poll_at
        next_at = min((each for each in (poll_at, memory_at) if each is not None), default=None)
        try:
            return self._work.get(timeout=None if next_at is None else max(0.0, next_at - self._clock()))
        except Empty:
            if poller is None or next_at != poll_at:
                return self._queue.check
            self._next_poll_at = self._clock() + self._settings.repository.poll_interval_s
            return partial(self._poll, poller)

    def _poll(self, poller: Poller) -> None:
        for name, versions in poller.poll().items():
            self._operations.enqueue(self._loads.repository_load(name, versions, Cause.CHANGE))

    def _load_on_demand(self, name: str) -> None:
        cold = self._parts.cold
        error = cold.backoff_error(name)
        if name not in cold:
            error = ModelUnavailableError(f'model "{clipped(name)}" is not loaded on demand any more')
        if error is not None or not cold.missing(name):
            self._on_demand_ended(name, error)
        else:
            self._operations.enqueue(self._loads.on_demand_load(name, partial(self._on_demand_ended, name)))

    # The steps of operations.

    def _first_loads(self, found: Mapping[str, Versions]) -> dict[str, tuple[Versions, Collection[str]]]:
        """Return the models to load at start: their versions, and the numbers to load, empty if the policy chooses."""
        if self._parts.poller is not None:
            return {name: (versions, ()) for name, versions in self._parts.poller.complete_at_start(found).items()}
        repository = self._settings.repository
        if repository.mode is not ModelControl.EXPLICIT or EVERY_MODEL in repository.load:
            return {name: (versions, ()) for name, versions in found.items()}
        remembered = {**self._remembered.read(), **dict.fromkeys(repository.load)}
        return {name: (found.get(name, {}), numbers or ()) for name, numbers in remembered.items()}

    def _evict(self, name: str, in_use: bool) -> None:
        """Unload a model to make room for another one; its next request loads it again."""
        _log.info("model evicted", extra={"model": name, "in_use": in_use})
        self._operations.enqueue(
            Operation(
                name=name,
                cause=Cause.EVICTION,
                begin=self._begin_eviction,
                end=self._end_eviction,
                is_load=False,
            )
        )

    def _begin_eviction(self, operation: Operation) -> None:
        versions = self._parts.registry.versions(operation.name)
        self._retire(operation, [each for each in versions if each.state is ModelState.READY])

    def _end_eviction(self, operation: Operation) -> ServingError | None:
        cold = self._parts.cold.sources(operation.name)
        for each in operation.to_unload:
            if each.version in cold:
                self._parts.lifecycle.register_cold([cold[each.version]], each.settings)
        return None

    def _retire(self, operation: Operation, versions: Sequence[ModelVersion]) -> None:
        operation.to_unload.extend(versions)
        operation.pending += len(versions)
        for each in versions:
            self._parts.lifecycle.retire(each, partial(self._operations.version_ended, operation))

    def _end_requested_load(self, operation: Operation, *, version: str) -> ServingError | None:
        error = self._loads.end(operation)
        if error is None:
            self._remembered.loaded(operation.name, version, self._parts.ready(operation.name))
        return error

    def _begin_unload(self, operation: Operation, *, version: str) -> None:
        versions = [each for each in self._parts.registry.versions(operation.name) if version in ("", each.version)]
        if not versions:
            of_version = f' version "{clipped(version)}"' if version else ""
            raise ModelNotFoundError(f'there is no model "{clipped(operation.name)}"{of_version}')
        self._parts.cold.remove(operation.name, [each.version for each in versions])
        for each in versions:
            each.on_demand = False
            if each.state is ModelState.ON_DEMAND:
                self._parts.lifecycle.withdraw(each)
        self._retire(operation, [each for each in versions if each.state is ModelState.READY])

    def _end_unload(self, operation: Operation, *, version: str) -> ServingError | None:
        self._remembered.unloaded(operation.name, version, self._parts.ready(operation.name))
        left = [each.version for each in operation.to_unload if each.state is not ModelState.UNAVAILABLE]
        if left:
            name = clipped(operation.name)
            return ModelLoadFailedError(f"failed to unload '{name}', versions that are still available: {listed(left)}")
        return None
