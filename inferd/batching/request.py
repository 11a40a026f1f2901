"""Requests and batches, and the handle through which a request is answered exactly once."""

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
    """Timing of a batch, shared by its requests: ``started_at`` on the monotonic clock, durations in seconds."""

    started_at: float
    stack_s: float
    run_s: float
    rows: int


@dataclass(slots=True)
class InferenceResult:
    """The answer to one request: its own rows of the outputs it asked for, in the order it asked.

    Do not modify. (Not frozen, because creating a frozen dataclass takes several times as long.)
    """

    outputs: dict[str, NDArray[np.generic]]
    timing: BatchTiming
    queue_s: float


class FailedRunError(InferenceFailedError):
    """The model ran this request alone and failed.

    ``timing`` is that of this run, ``queue_s`` as in `InferenceResult`.
    """

    def __init__(self, timing: BatchTiming, queue_s: float) -> None:
        super().__init__()
        self.timing = timing
        self.queue_s = queue_s


Outcome = InferenceResult | ServingError


def _ignore(_outcome: Outcome) -> None:
    pass


class Reply:
    """The handle through which a request gets exactly one outcome.

    A result, an error, a cancellation and an expiry may race in different threads. Exactly one `deliver` or `withdraw`
    takes effect; the others return False and do nothing. The test-and-set behind it is a lock that is acquired once
    and never released.

    ``on_outcome`` is called in the thread that won and must not block. ``on_released`` lets a producer send its next
    request; it is called exactly once, at the latest with the outcome. If one thread releases while another delivers,
    the two callbacks may run at the same time.

    ``done()`` says whether the outcome is settled, so that further work on the request is useless. ``request_id`` is
    the id of the call, for the log.

    A settled reply drops both callbacks: they usually refer back to the request, and its tensors would stay in that
    cycle until Python's garbage collector runs, which counts objects and not bytes.
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
        # A lock is the cheapest atomic test-and-set that Python has.
        self._taken = threading.Lock()
        self._released = threading.Lock()
        # The lock's own method, because each request is checked several times.
        self.done = self._taken.locked

    @property
    def has_producer(self) -> bool:
        """Whether a producer waits to send its next request."""
        return self._on_released is not None

    def release(self) -> None:
        """Let the producer send its next request, once."""
        if self._on_released is not None and self._released.acquire(blocking=False):
            on_released, self._on_released = self._on_released, None
            on_released()

    def deliver(self, outcome: Outcome) -> bool:
        """Answer the request. Returns False if it was settled before."""
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
        """Cancel the request: nobody waits for the answer. Returns False if it was settled before."""
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
    """Requests that run together; ``outside_queue`` for a request that caller_runs runs immediately.

    Set by the thread that runs the batch: ``answering`` when it begins to answer, so that callers may send their next
    requests; ``run_s``, the model's run time; ``cpu_s``, that thread's processor time during the run, None where it
    says nothing; ``cut_off`` if a run was ended early. Set by another thread: ``given_up`` when the thread that runs
    the batch hangs. The unanswered rest then forms a batch that ``ran_before``.
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
