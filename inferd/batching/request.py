"""Requests, batches, the handle through which a request is answered exactly once, and the counting of outcomes."""

import logging
import math
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from inferd.batching.idle_cores import CoreShare
from inferd.batching.ports import Clock
from inferd.batching.queued import Principal, QueueEffects
from inferd.errors import InferenceFailedError, OutOfMemoryError, OverloadedError, RunTooLongError, ServingError
from inferd.observability.metrics.models import BatchReport, ModelStats
from inferd.runtime.signature import Tensors

_logger = logging.getLogger("inferd.batching")

_STATS_FAILED = "counting failed"
_RECEIVER_FAILED = "the receiver of an outcome failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchTiming:
    """Timing of a batch, shared by its requests: ``started_at`` on the monotonic clock, durations in seconds."""

    started_at: float
    stack_s: float
    run_s: float
    rows: int


@dataclass(slots=True)
class InferenceResult:
    """The answer to one request: its own rows of the outputs it asked for, by name, in the order it asked.

    The arrays have the shapes and types of the model's signature. ``queue_s`` is the time from admission to dispatch.
    Do not modify. (Not frozen, because creating a frozen dataclass takes twice as long.)
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

    __slots__ = ("_on_outcome", "_on_released", "_released", "_taken", "done", "has_producer", "request_id")

    def __init__(
        self,
        on_outcome: Callable[[Outcome], None],
        on_released: Callable[[], None] | None = None,
        request_id: str = "",
    ) -> None:
        self.request_id = request_id
        self._on_outcome = on_outcome
        self._on_released = on_released
        #: Whether there is a producer that waits to send its next request.
        self.has_producer = on_released is not None
        # A lock is the cheapest atomic test-and-set that Python has.
        self._taken = threading.Lock()
        self._released = threading.Lock()
        # The lock's own method, because each request is checked several times.
        self.done = self._taken.locked

    def observe(self, observer: Callable[[Outcome], None]) -> None:
        """Call ``observer`` with the outcome after its receiver. Before the request is submitted."""
        on_outcome = self._on_outcome

        def observed(outcome: Outcome) -> None:
            on_outcome(outcome)
            observer(outcome)

        self._on_outcome = observed

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
        """Cancel the request, whose caller no longer waits. Returns False if it was settled before."""
        if not self._taken.acquire(blocking=False):
            return False
        self._on_outcome = _ignore
        self.release()
        return True


_ANONYMOUS = Principal()


@dataclass(slots=True, eq=False)
class InferenceRequest:
    """One request to one model version, checked against its signature.

    ``inputs`` are arrays by name, with ``rows`` rows and ``nbytes`` bytes in all. They are read-only, and may be views
    into the message they came in. Times are in seconds on the monotonic clock: ``deadline``, ``math.inf`` for none;
    ``received_at``, when the server had the whole request; ``offered_at``, when it had been decoded and reached the
    queue; ``enqueued_at``, when the queue admitted it. ``priority`` 1 is served first.

    ``edf_key`` is set by the queue: when the request is due, and its number. By it those of a principal are ordered,
    earliest deadline first. Identity is what tells requests apart.
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
    principal: Principal = _ANONYMOUS
    offered_at: float = 0.0
    enqueued_at: float = 0.0
    edf_key: tuple[float, int] = (0.0, 0)


@dataclass(kw_only=True, slots=True, eq=False)
class Batch:
    """Requests that run together; ``outside_queue`` for a request that caller_runs runs immediately.

    Set by the thread that runs the batch: ``answering`` when it begins to answer, so that callers may send their next
    requests; ``run_s``, the model's run time; ``cpu_s``, that thread's processor time during the run, None where it
    says nothing; ``cut_off`` if a run was ended early. Set by another thread: ``given_up`` when the thread that runs
    the batch hangs. The unanswered rest then forms a batch that ``ran_before``. ``is_online`` unless its requests are
    scavengers. ``on_one_core`` if it is to run on one core, beside others.
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
    is_online: bool = True
    on_one_core: bool = False


class RunningBatches:
    """Batches between dispatch and retirement, in order of dispatch.

    A batch that is *answering* has run; its callers may send their next requests, and its worker is about to come back.
    ``cores`` counts the batches whose requests do not have ``scavenger_priority``.
    """

    def __init__(self, cores: CoreShare, *, scavenger_priority: int) -> None:
        self.cores = cores
        self._scavenger_priority = scavenger_priority
        self._batches: list[Batch] = []

    def __bool__(self) -> bool:
        return bool(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def start(self, requests: list[InferenceRequest], rows: int, now: float, *, outside_queue: bool = False) -> Batch:
        """Add a batch of ``requests`` that is dispatched at ``now``."""
        batch = Batch(requests=requests, rows=rows, started_at=now, outside_queue=outside_queue)
        batch.is_online = requests[0].priority < self._scavenger_priority
        self.cores.begun += batch.is_online
        self._batches.append(batch)
        return batch

    def remove(self, batch: Batch) -> None:
        """Remove ``batch``."""
        self._batches.remove(batch)
        self.cores.ended += batch.is_online

    @property
    def requests(self) -> Iterator[InferenceRequest]:
        """All requests, also those that have been answered."""
        return chain.from_iterable(batch.requests for batch in self._batches)

    @property
    def rows(self) -> int:
        """Rows of all batches."""
        return sum(batch.rows for batch in self._batches)

    @property
    def outside_queue(self) -> int:
        """Batches outside the queue that are not answering."""
        return sum(batch.outside_queue and not batch.answering for batch in self._batches)

    @property
    def computing(self) -> int:
        """Batches whose runs have not ended."""
        computing = 0
        for batch in self._batches:
            computing += not batch.answering
        return computing

    def count_unanswered(self) -> tuple[int, bool]:
        """Return the requests in batches whose runs have not ended, and whether a batch is answering."""
        unanswered, is_answering = 0, False
        for batch in self._batches:
            if batch.answering:
                is_answering = True
            else:
                unanswered += len(batch.requests)
        return unanswered, is_answering


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceChange:
    """A change of the number of instances, and its reason.

    ``factor`` times as many rows a second are expected. With ``starts_thread`` another worker thread is needed.
    """

    count: int
    reason: str
    factor: float
    starts_thread: bool = False


class DispatchEffects(QueueEffects[InferenceRequest]):
    """Actions to carry out after a transition, without the lock.

    With ``fails_running``, some of the ``failed`` requests may be in a run. ``admitted``: requests whose producers may
    send the next one. ``wake_worker``: a batch may be ready. ``wakes_others``: a run has ended that scavengers of other
    models waited for. ``instances``: their number has changed. ``opens_one_core``: the session for runs on one core is
    to be opened.
    """

    __slots__ = ("admitted", "fails_running", "instances", "opens_one_core", "wake_worker", "wakes_others")

    def __init__(self) -> None:
        # As the base does, with a call less for each request.
        self.failed: list[tuple[InferenceRequest, ServingError]] = []
        self.timers_at: list[float] = []
        self.admitted: list[InferenceRequest] = []
        self.wake_worker = False
        self.fails_running = False
        self.wakes_others = False
        self.instances: InstanceChange | None = None
        self.opens_one_core = False


class ReplyDispatcher:
    """Delivers outcomes to replies and counts them.

    Any thread may call, with no lock held. Exceptions of ``stats`` and of receivers are logged and go no further. A
    request that already has its outcome is skipped.
    """

    def __init__(self, *, clock: Clock, stats: ModelStats) -> None:
        self._clock = clock
        self._stats = stats

    def offered(self, requests: Sequence[InferenceRequest]) -> None:
        """Count ``requests`` before they are admitted or rejected."""
        # Not through `_count`: this runs for each request.
        try:
            for request in requests:
                self._stats.offered(request.rows)
        except Exception:  # see there
            _logger.exception(_STATS_FAILED)

    def caller_ran(self) -> None:
        """Count a request that runs outside the queue."""
        self._count(self._stats.caller_ran)

    def batch_done(self, report: BatchReport) -> None:
        """Report a run, before its requests are answered."""
        # Not through `_count`: this runs for each batch.
        try:
            self._stats.batch_done(report)
        except Exception:  # see there
            _logger.exception(_STATS_FAILED)

    def run_ended(self, reason: str) -> None:
        """Report a run that is terminated early."""
        self._count(self._stats.run_ended, reason)

    def out_of_memory(self) -> None:
        """Report a run that was out of memory."""
        self._count(self._stats.out_of_memory)

    def checked(self, run_s: float, *, mismatch: bool) -> None:
        """Report that one request of a batch ran again alone."""
        self._count(partial(self._stats.checked, run_s, mismatch=mismatch))

    def answered(self, encode_s: float) -> None:
        """Report how long answering the requests of a run took."""
        try:
            self._stats.answered(encode_s)
        except Exception:  # as in `_count`
            _logger.exception(_STATS_FAILED)

    def fail(self, request: InferenceRequest, error: ServingError) -> None:
        """Answer ``request`` with ``error``."""
        if request.reply.done():
            return
        reason = error.reason if isinstance(error, OverloadedError) else ""
        by_model = isinstance(error, InferenceFailedError | RunTooLongError | OutOfMemoryError)
        self._count(partial(self._stats.failed, self._clock() - request.received_at, reason, by_model=by_model))
        self._deliver(request, error)

    def succeed(self, request: InferenceRequest, result: InferenceResult) -> None:
        """Answer ``request`` with ``result``."""
        # Not through `_deliver`: this runs for each request.
        try:
            request.reply.deliver(result)
        except Exception:  # see there
            _logger.exception(_RECEIVER_FAILED)

    def admitted(self, request: InferenceRequest) -> None:
        """Let the producer of ``request`` send its next one."""
        try:
            request.reply.release()
        except Exception:  # one broken producer must not hurt the requests of others
            _logger.exception("the producer of a request failed")

    def _count(self, count: Callable[..., None], *values: object) -> None:
        try:
            count(*values)
        except Exception:  # requests must be answered whatever happens to their counts
            _logger.exception(_STATS_FAILED)

    def _deliver(self, request: InferenceRequest, outcome: ServingError) -> None:
        try:
            request.reply.deliver(outcome)
        except Exception:  # one broken receiver must not hurt the requests of others
            _logger.exception(_RECEIVER_FAILED)
