"""Keep the requests that wait until their on-demand model is loaded."""

import logging
import math
from collections.abc import Callable
from functools import partial

from inferd.batching.ports import Clock, PollThread
from inferd.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    ModelUnavailableError,
    OverloadedError,
    Retry,
    ServingError,
)
from inferd.models.registry import ModelRegistry
from inferd.models.states import ModelState
from inferd.plain_text import clipped

_log = logging.getLogger(__name__)

#: Maximum number of requests resumed in one step of the poll thread; some milliseconds, as each has to be parsed.
_SLICE_REQUESTS = 32

#: Interval of checks for room in the queue of a model that was loaded.
_CHECK_ROOM_S = 0.01

#: Retry delay of a request that may not wait, if the time of the load is unknown.
_RETRY_AFTER_S = 0.1

Callback = Callable[[], None]
Fail = Callable[[ServingError], None]


class _Waiter:
    """One request that waits. Drops its callbacks at the end, as the timer of its deadline keeps the waiter longer."""

    __slots__ = ("_fail", "_resume")

    def __init__(self, resume: Callback, fail: Fail) -> None:
        self._resume: Callback | None = resume
        self._fail: Fail | None = fail

    def withdraw(self) -> tuple[Callback | None, Fail | None]:
        """Withdraw the request; return its callbacks."""
        callbacks = self._resume, self._fail
        self._resume = self._fail = None
        return callbacks

    def end(self, error: ServingError | None) -> None:
        """Resume the request, or fail it with ``error``; no effect if it was withdrawn."""
        resume, fail = self.withdraw()
        if resume is None or fail is None:
            return
        try:
            if error is None:
                resume()
            else:
                fail(error)
        except Exception:  # noqa: BLE001  (the other requests must be resumed, and this one must end)
            _log.exception("a request that has waited for its model could not be resumed")
            fail(InferenceFailedError())


#: The requests that wait for a load, in order of arrival.
_Waiters = dict[_Waiter, None]


class OnDemandLoads:
    """The requests that wait for on-demand models; requests one load of a model for all of its requests.

    ``request_load`` makes the manager load a model; it calls `ended` once for each load. ``expected_s`` is how long a
    load takes, or still takes; 0 if unknown. At most ``max_waiting`` requests wait, so that others have room. A load
    continues when its last request is withdrawn: the next request finds the model loaded.

    During a load, more requests may arrive than the queue of the model takes at a time. So they are resumed in order of
    arrival while it ``has_room``; the others wait on instead of being rejected.

    Invariants: a model is in ``_loads`` from the request for its load until that has ended; a waiting request is
    resumed, fails, or is withdrawn, once. Threads: `ended`, `waiting` and ``cold_requests`` any; the rest on the poll
    thread, where requests are resumed and fail too.
    """

    def __init__(
        self,
        *,
        request_load: Callable[[str], None],
        expected_s: Callable[[str], float],
        has_room: Callable[[str], bool],
        poll_thread: PollThread,
        clock: Clock,
        max_waiting: int,
    ) -> None:
        self._request_load = request_load
        self._expected_s = expected_s
        self._has_room = has_room
        self._poll_thread = poll_thread
        self._clock = clock
        self._max_waiting = max_waiting
        self._loads: dict[str, _Waiters] = {}
        self._waiting: dict[str, int] = {}
        self._drained: ServingError | None = None
        #: Number of requests that found their model cold, by model.
        self.cold_requests: dict[str, int] = {}

    def wait(self, name: str, deadline: float, resume: Callback, fail: Fail) -> Callback:
        """Call ``resume`` when the model is loaded, or ``fail``; return a function that withdraws the request.

        Fails now if the load is expected to outlast ``deadline``, a time on the monotonic clock; the load continues.
        """
        if self._drained is not None:
            fail(self._drained)
            return _nothing
        self.cold_requests[name] = self.cold_requests.get(name, 0) + 1
        load = self._loads.get(name)
        if load is None:
            load = self._loads[name] = {}
            self._request_load(name)
        error = self._rejection(name, deadline)
        if error is not None:
            fail(error)
            return _nothing
        waiter = _Waiter(resume, fail)
        load[waiter] = None
        self._waiting[name] = self._waiting.get(name, 0) + 1
        if deadline < math.inf:
            self._poll_thread.call_at(deadline, partial(self._expire, name, load, waiter))
        return partial(self._remove, name, load, waiter)

    def ended(self, name: str, error: ServingError | None) -> None:
        """Resume the requests that wait for a model, or fail them: its load has ended, maybe with an error. Any thread.

        Requests get a `ModelUnavailableError`; the texts of other errors are for operators.
        """
        if error is not None and not isinstance(error, ModelUnavailableError):
            error = ModelUnavailableError(f'model "{clipped(name)}" failed to load')
        self._poll_thread.call_soon(partial(self._end, name, error))

    def waiting(self, name: str) -> int:
        """Return how many requests wait for a model. Any thread."""
        return self._waiting.get(name, 0)

    def drain(self, error: ServingError) -> None:
        """Fail all waiting requests with ``error``, and later ones too."""
        self._drained = error
        for name in list(self._loads):
            self._end(name, error)

    def _rejection(self, name: str, deadline: float) -> ServingError | None:
        """Return the error for a request that may not wait; None if it may."""
        left_s = self._expected_s(name)
        if self._clock() + left_s > deadline:
            text = f'model "{clipped(name)}" is being loaded, in about {left_s:.3g} s, which is after the deadline'
            # A retry of this call would come after its deadline.
            return ModelUnavailableError(text, retry_after_s=left_s, reason="MODEL_LOADING", retry=Retry.NEVER)
        waiting = sum(self._waiting.values())
        if waiting >= self._max_waiting:
            text = f"{waiting} requests wait for models that are being loaded"
            return OverloadedError(text, retry_after_s=left_s or _RETRY_AFTER_S, reason="WAITING_FOR_MODELS")
        return None

    def _end(self, name: str, error: ServingError | None) -> None:
        load = self._loads.pop(name, None)
        if load is not None:
            self._finish(name, load, error)

    def _finish(self, name: str, load: _Waiters, error: ServingError | None) -> None:
        """Resume or fail the first requests of ``load``, and the others in the next rounds of the poll thread."""
        again = partial(self._finish, name, load, error)
        for waiter in list(load)[:_SLICE_REQUESTS]:
            if error is None and not self._has_room(name):
                self._poll_thread.call_at(self._clock() + _CHECK_ROOM_S, again)
                return
            waiter.end(error)
            # Only now: until it is in a queue it counts as waiting.
            self._remove(name, load, waiter)
        if load:
            self._poll_thread.call_soon(again)

    def _expire(self, name: str, load: _Waiters, waiter: _Waiter) -> None:
        waiter.end(DeadlineExceededError(f'the deadline expired while model "{clipped(name)}" was being loaded'))
        self._remove(name, load, waiter)

    def _remove(self, name: str, load: _Waiters, waiter: _Waiter) -> None:
        """Remove a request that does not wait any more; no effect if it was removed before."""
        waiter.withdraw()
        if waiter in load:
            del load[waiter]
            self._waiting[name] -= 1


def has_room(registry: ModelRegistry, name: str) -> bool:
    """Return True if the queue of a model takes another request now, or the model is not loaded."""
    version = next((each for each in registry.versions(name) if each.state is ModelState.READY), None)
    if version is None:
        return True
    if (batcher := version.batcher) is not None:
        return batcher.waiting.rows < batcher.waiting.row_limit
    generator = version.generator
    return generator is None or generator.waiting_tokens < generator.waiting_limit_tokens


def _nothing() -> None:
    """Withdraw a request that has failed."""
