"""The state of a model's queue: every rule about which requests wait, are rejected, or run next. Pure.

`RequestQueue` guards it with a lock. Replies must not be sent, nor timers armed, while the lock is held, so each
transition collects these actions in `Effects`, and the queue carries them out afterwards.

    offer ──▶ rejected
      │  └──▶ blocked ──▶ waiting       in order of arrival, as room appears
      ├─────▶ waiting ──▶ running ──▶ retired
      └─────▶ running outside the queue ──▶ retired

A request is in at most one of these states. Blocked and waiting requests leave early if they are cancelled (`remove`),
expire, or are shed.
"""

import math
from collections.abc import Iterator
from itertools import chain

from inferd.batching.adaptive import AdaptiveRules, ArrivalPredictor
from inferd.batching.planner import NOTHING_WAITS, BatchRules, Plan, WaitUntil, plan
from inferd.batching.policies import Hold, Policy, Refuse, Room, RunNow, Shed
from inferd.batching.request import Batch, InferenceRequest
from inferd.batching.waiting import Deadlines, DrainRate, WaitingRequests, refusal, retry_after_s
from inferd.config.settings import QueueSettings
from inferd.errors import DeadlineExceededError, ModelUnavailableError, OverloadedError, ServingError

#: Full batches per worker that may always wait, whatever the delay limit.
_BATCHES_THAT_MAY_WAIT = 2

#: Retry delay for a model whose runs hang: when they will end is unknown.
_STUCK_HINT_S = 5.0


class Effects:
    """Actions to carry out after a transition, without the lock.

    ``failed``: requests to answer with an error; with ``fails_running``, some of them may be in a run. ``admitted``:
    requests whose producers may send the next one. ``timers_at``: when to call `QueueState.expire`. ``wake_worker``: a
    batch may be ready.
    """

    __slots__ = ("admitted", "failed", "fails_running", "timers_at", "wake_worker")

    def __init__(self) -> None:
        self.failed: list[tuple[InferenceRequest, ServingError]] = []
        self.admitted: list[InferenceRequest] = []
        self.timers_at: list[float] = []
        self.wake_worker = False
        self.fails_running = False


class QueueState:
    """The waiting, blocked and running requests of one model version.

    Invariants: the waiting requests are within their limits; the first blocked request does not fit; every deadline is
    watched. Not thread-safe. ``now`` is monotonic. At most ``parallel_runs`` of the ``workers`` share waiting rows.
    """

    def __init__(
        self,
        *,
        name: str,
        settings: QueueSettings,
        policy: Policy,
        rules: BatchRules,
        workers: int,
        parallel_runs: int,
        runs_are_bounded: bool = True,
    ) -> None:
        self._max_delay_s = settings.max_delay_ms / 1000
        # There is always room for the next batch of each worker and the one gathered meanwhile, however slow the model.
        self._least_rows = _BATCHES_THAT_MAY_WAIT * rules.max_rows * workers
        self._name = name
        self._policy = policy
        self._workers = workers
        self.rules = AdaptiveRules(rules, parallel_runs=min(parallel_runs, workers), runs_are_bounded=runs_are_bounded)
        self.waiting = WaitingRequests(
            max_rows=settings.max_rows, max_bytes=settings.max_bytes, priority_levels=settings.priority_levels
        )
        self.closed = False
        #: Whether too many threads hang in runs, so that no request is admitted.
        self.is_stuck = False
        self._blocked: dict[InferenceRequest, None] = {}
        self._blocked_bytes = 0
        self._running: list[Batch] = []
        self._deadlines = Deadlines()
        self._drain = DrainRate()
        self._arrivals = ArrivalPredictor(max_wait_s=rules.max_wait_s)
        # The last plan need not be made again before this many further requests, or rows, have arrived.
        self._wanted_requests = 0
        self._wanted_rows = 0

    @property
    def running_rows(self) -> int:
        """Rows in batches that have been dispatched and not retired."""
        return sum(batch.rows for batch in self._running)

    @property
    def present(self) -> int:
        """Requests that are waiting, blocked or running."""
        return self.waiting.count + len(self._blocked) + sum(len(batch.requests) for batch in self._running)

    @property
    def _callers_present(self) -> int:
        """Requests without an answer, so that a caller that waits for it cannot have sent the next one."""
        present = self.waiting.count + len(self._blocked)
        for batch in self._running:
            if not batch.answering:
                present += len(batch.requests)
        return present

    @property
    def exhausted(self) -> bool:
        """Whether there will never be another batch."""
        return self.closed and not self._blocked and self.waiting.count == 0

    @property
    def drained(self) -> bool:
        """Whether the queue is closed and every request has been answered."""
        return self.closed and self.exhausted and not self._running

    @property
    def has_full_batch(self) -> bool:
        """Whether enough rows wait for a full batch."""
        return self.waiting.rows >= self.rules.rules.max_rows

    def offer(self, request: InferenceRequest, now: float, effects: Effects) -> Batch | None:
        """Admit, block or reject ``request``. Returns a batch to run immediately outside the queue, if any."""
        # Cancelled before it arrived: `remove` has already been called, so nothing would take it out again.
        if request.reply.done():
            return None
        request.offered_at = now
        error = self._closed() if self.closed or self.is_stuck else refusal(request, now, self.waiting)
        if error is not None:
            effects.failed.append((request, error))
            return None
        if not self._has_room(request):
            self._drop_expired(now, effects)
            if not self._has_room(request):
                return self._overflow(request, now, effects)
        if self._comes_too_late(request, now):
            effects.failed.append((request, self._overloaded("DEADLINE_TOO_CLOSE", ", more than its deadline allows")))
            return None
        self._watch(request, effects)
        self._admit(request, now, effects)
        return None

    def _watch(self, request: InferenceRequest, effects: Effects) -> None:
        when = self._deadlines.watch(request.deadline)
        if when is not None:
            effects.timers_at.append(when)

    def _has_room(self, request: InferenceRequest) -> bool:
        return not self._blocked and self.waiting.fits(request)

    def _comes_too_late(self, request: InferenceRequest, now: float) -> bool:
        """Whether ``request`` would expire while it waits, so that its place is better given to another one."""
        rate = self._drain.rows_per_s
        if rate is None or request.deadline == math.inf or self.waiting.rows < self._least_rows:
            return False
        return now + self.waiting.rows_before(request) / rate >= request.deadline

    def _closed(self) -> ServingError:
        if not self.closed:
            return self._stuck()
        return ModelUnavailableError(f'model "{self._name}" is being unloaded and takes no more requests')

    def _admit(self, request: InferenceRequest, now: float, effects: Effects) -> None:
        request.enqueued_at = now
        self.waiting.add(request)
        if request.reply.has_producer:
            effects.admitted.append(request)
        if self.rules.rules.max_wait_s > 0:
            for batch in self._running:
                if batch.answering:
                    self._arrivals.answering(now)
                    break
            self._arrivals.arrived(now, self._callers_present)
        self._wanted_requests -= 1
        self._wanted_rows -= request.rows
        if self._wanted_requests <= 0 or self._wanted_rows <= 0:
            effects.wake_worker = True

    def _overflow(self, request: InferenceRequest, now: float, effects: Effects) -> Batch | None:
        room = Room(
            waiting=self.waiting,
            blocked_requests=len(self._blocked),
            blocked_bytes=self._blocked_bytes,
            # A caller that is being answered may send its next request before the thread has retired the batch.
            caller_runs=sum(batch.outside_queue and not batch.answering for batch in self._running),
        )
        decision = self._policy.decide(request, room)
        if isinstance(decision, Refuse):
            effects.failed.append((request, self._overloaded(decision.reason, decision.detail)))
            return None
        self._watch(request, effects)
        match decision:
            case Hold():
                self._blocked[request] = None
                self._blocked_bytes += request.nbytes
            case Shed(victims):
                error = self._overloaded("SHED", ", and a newer request took the place")
                for victim in victims:
                    self.waiting.remove(victim)
                    effects.failed.append((victim, error))
                self._admit(request, now, effects)
            case RunNow():
                request.enqueued_at = now
                return self._started([request], request.rows, now, outside_queue=True)
        return None

    def _stuck(self) -> OverloadedError:
        return OverloadedError(
            f'model "{self._name}" takes no requests at present: too many of its runs have not ended in time',
            retry_after_s=_STUCK_HINT_S,
            reason="RUNS_STUCK",
        )

    def _overloaded(self, reason: str, detail: str) -> OverloadedError:
        return OverloadedError(
            f'the queue of model "{self._name}" is full: {self.waiting.describe()}{detail}',
            retry_after_s=retry_after_s(self.waiting.rows, self._drain.rows_per_s),
            reason=reason,
        )

    def next_batch(
        self, now: float, idle_since: float, effects: Effects, *, only_short: bool = False
    ) -> Batch | WaitUntil:
        """Dispatch the next batch to a worker that has been idle since ``idle_since``, or say when to ask again.

        With ``only_short``, leave the requests waiting unless their run is known to be short.
        """
        if self._deadlines.earliest <= now:
            self._drop_expired(now, effects)
        decision: Plan = NOTHING_WAITS
        if self.waiting.count:
            further = self._further(now)
            rules = self.rules.rules
            if self.rules.shares:
                rules = self.rules.for_next_batch(
                    self._computing, rows=self.waiting.rows, requests=self.waiting.count, further=further
                )
            decision = plan(self.waiting, now, rules, further=further, idle_since=idle_since)
        if isinstance(decision, WaitUntil):
            self._wanted_requests, self._wanted_rows = decision.requests, decision.rows
            return decision
        if only_short and not self.rules.run_cost.is_short_of(decision.rows):
            return WaitUntil(time=now, requests=0, rows=0)
        for request in decision.requests:
            self.waiting.remove(request)
        batch = self._started(decision.requests, decision.rows, now)
        self._drain.taken(batch.rows, now, left=0 if self._another_is_idle else self.waiting.rows)
        self._limit_rows()
        if self._blocked:
            self._admit_blocked(now, effects)
        # Workers that hold a batch planned with requests that are gone now: have them plan again.
        self._wanted_requests = self._wanted_rows = 0
        effects.wake_worker = self.waiting.count > 0
        return batch

    @property
    def _computing(self) -> int:
        """Number of batches whose runs have not ended."""
        computing = 0
        for batch in self._running:
            computing += not batch.answering
        return computing

    @property
    def _another_is_idle(self) -> bool:
        """Whether another worker takes the rest immediately, which says nothing about how fast the queue drains.

        Short runs are done one at a time, by the poll thread.
        """
        return self._workers > 1 and not self.rules.run_cost.is_short and self._computing < self._workers

    def _limit_rows(self) -> None:
        """Limit the waiting rows to those that are likely to be dispatched within the delay limit."""
        rate = self._drain.rows_per_s
        if self._max_delay_s > 0 and rate is not None:
            self.waiting.row_limit = min(self.waiting.max_rows, max(self._least_rows, int(rate * self._max_delay_s)))

    def _further(self, now: float) -> int:
        """Return how many requests are worth waiting for; none if waiting is not allowed."""
        if self.closed or self.rules.rules.max_wait_s == 0:
            return 0
        return self._arrivals.expected_arrivals(now, self._callers_present)

    def _started(
        self, requests: list[InferenceRequest], rows: int, now: float, *, outside_queue: bool = False
    ) -> Batch:
        batch = Batch(requests=requests, rows=rows, started_at=now, outside_queue=outside_queue)
        self._running.append(batch)
        return batch

    def retire(self, batch: Batch, now: float) -> None:
        """Remove ``batch``, which has been answered, and learn from its run."""
        self._running.remove(batch)
        # The worker keeps the batch while it waits for the next one; release its tensors now.
        batch.requests.clear()
        self._arrivals.answering(now)
        if batch.cut_off:
            self._drain.interrupted()
        elif not batch.outside_queue:
            run_s = now - batch.started_at if batch.run_s is None else batch.run_s
            self.rules.ran(batch.rows, run_s, batch.cpu_s)
            self._arrivals.max_wait_s = self.rules.rules.max_wait_s

    def hand_over(self, batch: Batch, now: float, effects: Effects) -> Batch | None:
        """Give up ``batch``, whose thread hangs. Returns a batch of its unanswered requests, if these may run again."""
        self._running.remove(batch)
        self._drain.interrupted()
        left = [request for request in batch.requests if not request.reply.done()]
        batch.requests.clear()
        if self.is_stuck:
            effects.failed.extend((request, self._stuck()) for request in left)
        if self.is_stuck or not left:
            return None
        rows = sum(request.rows for request in left)
        rest = self._started(left, rows, now, outside_queue=batch.outside_queue)
        rest.ran_before = True
        return rest

    def remove(self, request: InferenceRequest, now: float, effects: Effects) -> None:
        """Remove a cancelled ``request`` if it waits; otherwise it may be running."""
        effects.fails_running = not self._take_out(request)
        self._admit_blocked(now, effects)

    def expire(self, now: float, effects: Effects) -> None:
        """Fail expired requests when a timer has fired, and arm the next one."""
        self._drop_expired(now, effects)
        when = self._deadlines.fired(now)
        if when is not None:
            effects.timers_at.append(when)

    def stop_batching(self) -> None:
        """Run each request alone from now on."""
        self.rules.stop_batching()
        self._arrivals.max_wait_s = 0.0

    def set_stuck(self, is_stuck: bool, effects: Effects) -> None:
        """Stop admitting requests and fail those that wait, or admit requests again."""
        self.is_stuck = is_stuck
        if is_stuck:
            self.fail_waiting(self._stuck(), effects)

    def close(self) -> None:
        """Stop admitting requests. Incomplete batches run at once, since no more requests will arrive."""
        self.closed = True

    def fail_waiting(self, error: ServingError, effects: Effects) -> None:
        """Fail all waiting and blocked requests."""
        for request in [*self.waiting, *self._blocked]:
            effects.failed.append((request, error))
            self._take_out(request)

    def fail_running(self, error: ServingError, effects: Effects) -> None:
        """Fail all running requests; their results are discarded."""
        effects.fails_running = True
        effects.failed.extend((request, error) for batch in self._running for request in batch.requests)

    def _drop_expired(self, now: float, effects: Effects) -> None:
        if self._deadlines.earliest > now:
            return
        error = DeadlineExceededError("the deadline passed before there was an answer")
        earliest = math.inf
        expired = []
        for request in self._unanswered():
            if request.deadline > now:
                earliest = min(earliest, request.deadline)
            else:
                expired.append(request)
        for request in expired:
            effects.failed.append((request, error))
            effects.fails_running |= not self._take_out(request)
        self._deadlines.looked(earliest)
        self._admit_blocked(now, effects)

    def _unanswered(self) -> Iterator[InferenceRequest]:
        running = chain.from_iterable(batch.requests for batch in self._running)
        return chain(self.waiting, self._blocked, running)

    def _take_out(self, request: InferenceRequest) -> bool:
        """Remove ``request`` from the waiting or blocked requests; False if it is in neither."""
        return self.waiting.remove(request) or self._unblock(request)

    def _unblock(self, request: InferenceRequest) -> bool:
        if request not in self._blocked:
            return False
        del self._blocked[request]
        self._blocked_bytes -= request.nbytes
        return True

    def _admit_blocked(self, now: float, effects: Effects) -> None:
        while self._blocked:
            request = next(iter(self._blocked))
            if not self.waiting.fits(request):
                return
            self._unblock(request)
            self._admit(request, now, effects)
