"""Run the operations of each model, its loads and unloads, one after another."""

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from inferd.errors import ModelLoadFailedError, ServingError
from inferd.models.lifecycle import VersionLoad
from inferd.models.load_override import OverriddenModel
from inferd.models.version import ModelVersion
from inferd.plain_text import clipped

_log = logging.getLogger(__name__)

#: Called once with the outcome of an operation, by the control thread.
OnDone = Callable[[ServingError | None], None]


class Cause(StrEnum):
    """Why a model is loaded or unloaded."""

    START = "start"
    CHANGE = "change"
    CALL = "call"
    DEMAND = "demand"
    EVICTION = "eviction"


def _ignore(_: ServingError | None) -> None:
    pass


@dataclass(eq=False, kw_only=True, slots=True)
class Operation:
    """A load or unload of one model, with any number of its versions. Control thread only.

    ``begin`` starts the loads and unloads of versions, and counts them in ``pending``. ``end`` is called when all of
    them have ended, and returns the error of the operation; ``on_done`` gets it.
    """

    name: str
    cause: Cause
    begin: Callable[["Operation"], None]
    end: Callable[["Operation"], ServingError | None]
    on_done: OnDone = _ignore
    is_load: bool
    loads: list[VersionLoad] = field(default_factory=list)
    #: Versions to unload when all ``loads`` have succeeded, or that are being unloaded.
    to_unload: list[ModelVersion] = field(default_factory=list)
    pending: int = 0
    overridden: OverriddenModel | None = None

    @property
    def is_waiting(self) -> bool:
        """True if all of its loads wait in the load queue, and none has begun."""
        return self.is_load and self.pending > 0 and not self.loads

    def reset(self) -> None:
        """Return to the state before ``begin``, which is called again later; the loads must be withdrawn before."""
        self.pending = 0
        self.to_unload.clear()
        if self.overridden is not None:
            self.overridden.delete()
            self.overridden = None


class Operations:
    """Runs the operations of each model one after another, and those of different models in parallel.

    ``do`` makes the control thread call a function; that thread calls all methods, except where they say "any thread".
    ``withdraw`` removes the loads of an operation that have not begun from the load queue, and returns their number.
    """

    def __init__(self, do: Callable[[Callable[[], None]], None], *, withdraw: Callable[[Operation], int]) -> None:
        self._do = do
        self._withdraw = withdraw
        self._queues: dict[str, deque[Operation]] = {}

    def is_held(self, name: str) -> bool:
        """Return True if an operation of a model is in progress, and does not only wait. Any thread."""
        queue = self._queues.get(name)
        with suppress(IndexError):
            return queue is not None and not queue[0].is_waiting
        return False

    def enqueue(self, operation: Operation) -> None:
        """Begin ``operation`` when those before it have ended; an unload by a call cancels the loads among them.

        An eviction comes before loads that wait: those may wait for the memory that it frees.
        """
        queue = self._queues.setdefault(operation.name, deque())
        if operation.cause is Cause.EVICTION and queue and queue[0].is_waiting:
            self._withdraw(queue[0])
            queue[0].reset()
            queue.appendleft(operation)
            self._begin(operation)
            return
        queue.append(operation)
        if len(queue) == 1:
            self._begin(operation)
        elif operation.cause is Cause.CALL and not operation.is_load:
            for other in [each for each in queue if each.is_load]:
                self.cancel(other, "the model is being unloaded")

    def cancel(self, operation: Operation, reason: str) -> None:
        """Cancel a load, unless it has ended."""
        if operation not in self._queues.get(operation.name, ()):
            return
        operation.pending -= self._withdraw(operation)
        for load in operation.loads:
            load.cancel(reason)
        if not operation.pending:
            self._conclude(operation, ModelLoadFailedError(f"failed to load '{clipped(operation.name)}', {reason}"))

    def version_ended(self, operation: Operation, _: object = None) -> None:
        """Count a load or unload of a version of ``operation`` that has ended. Any thread."""

        def count() -> None:
            operation.pending -= 1
            self._continue(operation)

        self._do(count)

    def end_all(self, error: ServingError) -> None:
        """End all operations with ``error``."""
        for operation in [each for queue in self._queues.values() for each in queue]:
            _answer(operation, error)

    def _begin(self, operation: Operation) -> None:
        queue = self._queues.get(operation.name)
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

    def _conclude(self, operation: Operation, error: ServingError | None) -> None:
        queue = self._queues[operation.name]
        was_first = queue[0] is operation
        queue.remove(operation)
        _answer(operation, error)
        if not queue:
            del self._queues[operation.name]
        elif was_first:
            self._do(partial(self._begin, queue[0]))


def _answer(operation: Operation, error: ServingError | None) -> None:
    if operation.overridden is not None:
        operation.overridden.delete()
    operation.on_done(error)
