"""Decides which model versions are loaded and unloaded, and when: at start, by polling, or by calls.

Each model has one operation at a time, others wait for their turn. An operation compares what is wanted with what is
served, loads what is missing or has changed, and unloads what is not wanted any more once all of that is READY. All
decisions are made in one thread, the *control thread*, which also searches the repositories.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping
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
from inferd.models.catalog import Catalog, LoadOverride, OverriddenModel, Versions, fingerprint
from inferd.models.lifecycle import Lifecycle
from inferd.models.operation import OnDone, Operation
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
_ENDED = {ModelState.FAILED, ModelState.UNAVAILABLE}


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the index; a model that was never loaded is UNAVAILABLE and has no version."""

    name: str
    version: str = ""
    state: ModelState = ModelState.UNAVAILABLE
    reason: str = ""


class ModelManager:
    """Loads and unloads models. Its methods may be called from any thread, and none waits for a load.

    Invariants: every operation ends with one call of its ``on_done``; one operation of a model runs at a time, the
    first of its queue.
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
        self._operations: dict[str, deque[Operation]] = {}

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
            self._enqueue(self._load_operation(name, versions, on_done, only=only, must_exist=True))
        if not wanted:
            self._work.put(on_loaded)
        self._lifecycle.start()
        self._thread.start()

    def load(
        self, name: str, *, version: str = "", override: LoadOverride | None = None, on_done: OnDone
    ) -> Callable[[], None]:
        """Load the versions of a model that its policy wants, or one ``version`` in addition to those that serve.

        What is loaded and unchanged stays. Returns a function that cancels the load; ``on_done`` then gets an error,
        as it does if no version could be loaded, or the mode of control forbids it.
        """
        if self._settings.repository.mode is not ModelControl.EXPLICIT:
            on_done(ModelControlError(_NOT_EXPLICIT))
            return lambda: None
        operation = Operation(
            name=name,
            begin=partial(self._begin_asked_load, version=version, override=override),
            end=partial(self._end_asked_load, version=version),
            on_done=on_done,
            is_load=True,
        )
        self._work.put(partial(self._enqueue, operation))
        return lambda: self._work.put(partial(self._cancel, operation, "the load was cancelled"))

    def unload(self, name: str, *, version: str = "", on_done: OnDone) -> None:
        """Unload a model, or one ``version`` of it, when its requests are answered; cancels loads of that model."""
        if self._settings.repository.mode is not ModelControl.EXPLICIT:
            on_done(ModelControlError(_NOT_EXPLICIT))
            return
        operation = Operation(
            name=name,
            begin=partial(self._begin_unload, version=version),
            end=partial(self._end_unload, version=version),
            on_done=on_done,
            is_load=False,
        )
        self._work.put(partial(self._enqueue, operation))

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
        stopping = ModelUnavailableError("the server is stopping")
        for operation in [each for queue in self._operations.values() for each in queue]:
            self._answer(operation, stopping)

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
            self._enqueue(self._load_operation(name, versions, lambda _: None))

    def _enqueue(self, operation: Operation) -> None:
        queue = self._operations.setdefault(operation.name, deque())
        queue.append(operation)
        if len(queue) == 1:
            self._begin(operation)
        elif not operation.is_load:
            for other in [each for each in queue if each.is_load]:
                self._cancel(other, "the model is being unloaded")

    def _begin(self, operation: Operation) -> None:
        queue = self._operations.get(operation.name)
        if not queue or queue[0] is not operation:
            return  # cancelled
        try:
            operation.begin(operation)
        except ServingError as error:
            _log.warning("%s", error.message)
            self._conclude(operation, error)
        except Exception:  # noqa: BLE001  (every operation must end)
            _log.exception("model %s cannot be loaded or unloaded", operation.name)
            self._conclude(operation, ModelLoadFailedError(f"failed to load '{operation.name}', see the server's log"))
        else:
            self._continue(operation)

    def _continue(self, operation: Operation) -> None:
        if operation.pending == 0:
            self._conclude(operation, operation.end(operation))

    def _part_ended(self, operation: Operation, _: object = None) -> None:
        """A load or unload of ``operation`` has ended. Any thread."""

        def count() -> None:
            operation.pending -= 1
            self._continue(operation)

        self._work.put(count)

    def _conclude(self, operation: Operation, error: ServingError | None) -> None:
        queue = self._operations[operation.name]
        was_first = queue[0] is operation
        queue.remove(operation)
        self._answer(operation, error)
        if not queue:
            del self._operations[operation.name]
        elif was_first:
            self._work.put(partial(self._begin, queue[0]))

    @staticmethod
    def _answer(operation: Operation, error: ServingError | None) -> None:
        if operation.overridden is not None:
            operation.overridden.delete()
        operation.on_done(error)

    def _cancel(self, operation: Operation, reason: str) -> None:
        if operation not in self._operations.get(operation.name, ()):
            return
        for load in operation.loads:
            load.cancel(reason)
        if not operation.pending:
            self._conclude(operation, ModelLoadFailedError(f"failed to load '{clipped(operation.name)}', {reason}"))

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
        self, name: str, versions: Versions, on_done: OnDone, *, only: Collection[str] = (), must_exist: bool = False
    ) -> Operation:
        """Return the operation that makes a model serve what its policy wants of ``versions``, or ``only`` those."""

        def begin(operation: Operation) -> None:
            known = {number for number in only if number in versions}
            if must_exist and not (known if only else versions):
                raise _not_found(name)
            self._load(operation, versions, known)

        return Operation(name=name, begin=begin, end=self._end_load, on_done=on_done, is_load=True)

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

        Wanted are ``only`` those, beside the ones that serve, or else what the model's policy says.
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
        newest_first = sorted(wanted, key=int, reverse=True)
        incomplete = [number for number in newest_first if not self._load_version(operation, versions[number])]
        for each in self._registry.versions(operation.name):
            if each.version not in wanted and each.state is ModelState.READY and not (only or incomplete):
                operation.leaving.append(each)
            elif each.version not in versions and each.state in _ENDED:
                self._registry.remove(each)

    def _load_version(self, operation: Operation, source: ModelSource) -> bool:
        """Begin to load a version unless it serves in its present form. Returns False if it is not complete now."""
        serving = self._lifecycle.serving(source)
        found = fingerprint(source)
        if serving is not None and serving.fingerprint == found:
            return True
        if self._poller is not None and not self._poller.is_complete(source):
            return False
        version = self._lifecycle.register(source, self._settings.for_model({}), found)
        operation.pending += 1
        load = self._lifecycle.begin(
            source, version, partial(self._part_ended, operation), partial(self._has_changed, source, found)
        )
        operation.loads.append(load)
        return True

    def _has_changed(self, source: ModelSource, found: Hashable) -> bool:
        """Whether what was loaded may be another thing than what was ``found`` complete. In a thread of the pool."""
        return self._poller is not None and fingerprint(source) != found

    def _end_load(self, operation: Operation) -> ServingError | None:
        versions = [load.version for load in operation.loads]
        failed = [version for version in versions if version.state is not ModelState.READY]
        if not failed:
            for each in operation.leaving:
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
        operation.leaving = [each for each in versions if each.state is ModelState.READY]
        operation.pending = len(operation.leaving)
        for each in operation.leaving:
            self._lifecycle.retire(each, partial(self._part_ended, operation))

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
