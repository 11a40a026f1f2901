"""A request on its way through the queue, and the handle through which it is answered exactly once."""

import math
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.errors import InferenceFailedError, ServingError
from inferd.runtime.signature import Tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchTiming:
    """Where a batch's time went; one object for all requests of the batch. Seconds on the monotonic clock."""

    started_at: float
    stack_s: float
    run_s: float
    rows: int


@dataclass(slots=True)
class InferenceResult:
    """The answer to one request: its own rows of the outputs it asked for, in the order it asked.

    Not to be changed. (It is not frozen because frozen ones take several times as long to make.)
    """

    outputs: dict[str, NDArray[np.generic]]
    timing: BatchTiming
    queue_s: float


class FailedRunError(InferenceFailedError):
    """The model ran for this request alone and failed.

    ``timing`` is of that run; what came before it is not told apart from it. ``queue_s`` is as for a result.
    """

    def __init__(self, timing: BatchTiming, queue_s: float) -> None:
        super().__init__()
        self.timing = timing
        self.queue_s = queue_s


Outcome = InferenceResult | ServingError


def _ignore(_outcome: Outcome) -> None:
    pass


class Reply:
    """Delivers one outcome to whoever waits for it.

    Invariant: however many threads try, exactly one `deliver` or `withdraw` takes effect; the others return False and
    do nothing. A result, an error, a cancel and an expiry may all race for it.

    ``on_outcome`` is called in the thread that won and must not block. ``on_released`` tells a producer that it may
    bring its next request; it is called exactly once, at the latest with the outcome. If one thread releases while
    another delivers, the two callbacks run side by side.

    ``done`` tells whether the outcome is settled, so that further work on the request is in vain. ``request_id`` is
    the id of its call, for the log.

    Once settled, it holds on to neither. Callbacks usually lead back to the request: in such a cycle its tensors would
    stay until Python's garbage collector comes by, which it decides by counting objects and not bytes.
    """

    __slots__ = ("_on_outcome", "_on_released", "_released", "_taken", "done", "request_id")

    def __init__(
        self,
        on_outcome: Callable[[Outcome], None],
        on_released: Callable[[], None] | None = None,
        request_id: str = "",
    ) -> None:
        self.request_id = request_id
        self._on_outcome = on_outcome
        self._on_released = on_released
        # Locks that are taken once and never given back: the cheapest atomic test-and-set that Python has.
        self._taken = threading.Lock()
        self._released = threading.Lock()
        # The lock's own method: each request is looked at several times.
        self.done = self._taken.locked

    @property
    def has_producer(self) -> bool:
        """Whether somebody is to be told that the next request may come."""
        return self._on_released is not None

    def release(self) -> None:
        """Let the producer go on, if it was not told so before."""
        if self._on_released is not None and self._released.acquire(blocking=False):
            on_released, self._on_released = self._on_released, None
            on_released()

    def deliver(self, outcome: Outcome) -> bool:
        """Answer the request. Returns False if it was answered or withdrawn before."""
        if not self._taken.acquire(False):
            return False
        on_outcome, self._on_outcome = self._on_outcome, _ignore
        try:
            if self._on_released is not None:
                self.release()
        finally:
            on_outcome(outcome)
        return True

    def withdraw(self) -> bool:
        """Give up on an answer: nobody waits for it any more. Returns False if it was settled before."""
        if not self._taken.acquire(blocking=False):
            return False
        self._on_outcome = _ignore
        self.release()
        return True


@dataclass(slots=True, eq=False)
class InferenceRequest:
    """One request to one model version, checked against its signature.

    ``inputs`` are read-only; they may be views into the message they came in. ``deadline`` is on the monotonic clock,
    ``math.inf`` for none. ``priority`` 1 is served first. ``received_at`` is when the server had the whole request,
    ``offered_at`` when it had been decoded and reached the queue, and ``enqueued_at`` when the queue admitted it.
    Identity is what tells requests apart.
    """

    inputs: Tensors
    outputs: tuple[str, ...]
    rows: int
    nbytes: int
    stack_key: Hashable
    reply: Reply
    received_at: float
    deadline: float = math.inf
    priority: int = 1
    offered_at: float = 0.0
    enqueued_at: float = 0.0


@dataclass(kw_only=True, slots=True, eq=False)
class Batch:
    """Requests that run together. ``outside_queue`` if one ran at once because the queue had no room for it.

    ``answering`` is set by the thread that runs the batch when it begins to answer: from then on its callers may be
    back with their next requests. ``run_s`` and ``cpu_s`` are set by it too: how long the model itself took, and how
    much processor time of that thread, unless that says nothing; and ``cut_off`` if a run was ended early.
    ``given_up`` is set by another thread, when the one that runs it is stuck; the rest is a batch that ``ran_before``.
    """

    requests: list[InferenceRequest]
    rows: int
    started_at: float
    outside_queue: bool = False
    answering: bool = False
    run_s: float | None = None
    cpu_s: float | None = None
    cut_off: bool = False
    given_up: bool = False
    ran_before: bool = False
