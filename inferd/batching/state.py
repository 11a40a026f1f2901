"""The state of a model's queue: every rule about which requests wait, are rejected, or run next. Pure.

`RequestQueue` guards it with a lock. Replies must not be sent, nor timers armed, while the lock is held, so each
transition collects these actions in `DispatchEffects`, and the queue carries them out afterwards.

    offer ──▶ rejected
      │  └──▶ blocked ──▶ waiting       in order of arrival, as room appears
      ├─────▶ waiting ──▶ running ──▶ retired
      └─────▶ running outside the queue ──▶ retired

A request is in at most one of these states. Blocked and waiting requests leave early if they are cancelled (`remove`),
expire, or are shed.
"""

import math
import random
import sys
from collections.abc import Callable, Iterator
from enum import Enum, auto
from itertools import chain

from inferd.batching.adaptive import AdaptiveRules
from inferd.batching.forecast import Forecast
from inferd.batching.idle_cores import CoreShare, IdleCores
from inferd.batching.instances import Instances
from inferd.batching.next_batch import NextBatch
from inferd.batching.one_core import Cores, OneCoreRuns
from inferd.batching.overflow import Overflow
from inferd.batching.planner import (
    BatchRules,
    Dispatch,
    Plan,
    WaitUntil,
    WakeThreshold,
    wait_for_run,
)
from inferd.batching.policies import Hold, Policy, Refuse, RunNow, Shed
from inferd.batching.ports import OneCoreSession
from inferd.batching.refusals import Refusals
from inferd.batching.request import Batch, DispatchEffects, InferenceRequest, RunningBatches
from inferd.batching.scaling import InstanceScaling
from inferd.batching.waiting import Deadlines, WaitingRequests, refusal
from inferd.config.settings import QueueSettings
from inferd.errors import DeadlineExceededError, ServingError


class Obstacle(Enum):
    """A reason why an open queue admits no requests."""

    #: Too many threads hang in runs.
    STUCK = auto()
    #: The session runs nothing at present.
    BROKEN = auto()


class QueueState:
    """The waiting, blocked and running requests of one model version.

    Invariants: the waiting requests are within their limits; every deadline is watched. Not thread-safe. ``now`` is
    monotonic. At most ``parallel_runs`` of the ``workers`` share waiting rows; ``instances`` may change their number.
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
        jitter: Callable[[], float] = random.random,
        cores: CoreShare | None = None,
        instances: Instances | None = None,
    ) -> None:
        self.rules = AdaptiveRules(rules, parallel_runs=min(parallel_runs, workers), runs_are_bounded=runs_are_bounded)
        self.forecast = Forecast(
            self.rules.run_cost,
            max_rows=rules.max_rows,
            workers=workers,
            max_delay_s=settings.max_delay_ms / 1000,
            jitter=jitter,
        )
        self.waiting: WaitingRequests[InferenceRequest] = WaitingRequests(
            max_rows=settings.max_rows,
            max_bytes=settings.max_bytes,
            priority_levels=settings.priority_levels,
            low_share=settings.low_priority_share,
            level_rows=self.forecast.least_rows,
            priority_rows={
                priority: own.max_rows for priority, own in settings.by_priority.items() if own.max_rows is not None
            },
        )
        self.refusals = Refusals(name, self.waiting, self.forecast)
        self.closed = False
        #: Why no request is admitted although the queue is open: what returns the errors.
        self.obstacles: dict[Obstacle, Callable[[], ServingError]] = {}
        cores = cores or IdleCores().register()
        self._running = RunningBatches(cores, scavenger_priority=settings.priority_levels + 1)
        self._overflow = Overflow(policy, self.waiting, self.refusals, lambda: self._running.outside_queue)
        self._deadlines = Deadlines()
        self._next = NextBatch(self.rules, self.forecast, self.waiting, self._running, self._overflow, self._deadlines)
        #: Changes the number of workers; None if it is fixed.
        self.scaling = (
            None
            if instances is None
            else InstanceScaling(instances, self.rules, self.forecast, self.waiting, parallel_runs)
        )
        #: Chooses whether batches run on one core each; None if they always run on all.
        self.one_core: OneCoreRuns | None = None
        self._wake_threshold = WakeThreshold()

    @property
    def cores(self) -> CoreShare:
        """What other models see of the runs."""
        return self._running.cores

    @property
    def running_rows(self) -> int:
        """Rows in batches that have been dispatched and not retired."""
        return self._running.rows

    @property
    def present(self) -> int:
        """Requests that are waiting, blocked or running."""
        return self.waiting.count + self._overflow.blocked.count + sum(1 for _ in self._running.requests)

    @property
    def exhausted(self) -> bool:
        """True if there will never be another batch."""
        return self.closed and not self._overflow.blocked.count and self.waiting.count == 0

    @property
    def drained(self) -> bool:
        """True if the queue is closed and every request has been answered."""
        return self.closed and self.exhausted and not self._running

    def offer(self, request: InferenceRequest, now: float, effects: DispatchEffects) -> Batch | None:
        """Admit, block or reject ``request``. Returns a batch to run immediately outside the queue, if any."""
        # Cancelled before it arrived: `remove` has already been called, so nothing would take it out again.
        if request.reply.done():
            return None
        request.offered_at = now
        error = self._unavailable() if self.closed or self.obstacles else refusal(request, now, self.waiting)
        if error is not None:
            effects.failed.append((request, error))
            return None
        # Far deadlines are the rule, and the calls take time.
        if request.deadline - now <= self.forecast.ample_s or request.rows > self.rules.rules.max_rows:
            self._drop_expired(now, effects)
            if self.forecast.comes_too_late(request, self.waiting, self._running, now):
                in_vain = self.forecast.cannot_finish(request, 0, now)
                effects.failed.append((request, self.refusals.too_late(in_vain=in_vain)))
                return None
        if self.waiting.priority_rows and self._priority_is_full(request, now, effects):
            effects.failed.append((request, self.refusals.priority_full(request.priority)))
            return None
        blocked = self._overflow.blocked
        if (blocked.count and not blocked.lets_pass(request)) or not self.waiting.fits(request):
            self._drop_expired(now, effects)
            if not (blocked.lets_pass(request) and self._overflow.make_room(request, effects)):
                return self._apply_policy(request, now, effects)
        self._deadlines.watch(request.deadline, effects)
        self._admit(request, now, effects)
        if blocked.count:
            # Evicting scavengers may have made more room than this request takes.
            self._admit_blocked(now, effects)
        return None

    def _priority_is_full(self, request: InferenceRequest, now: float, effects: DispatchEffects) -> bool:
        if self.waiting.fits_priority(request):
            return False
        self._drop_expired(now, effects)
        return not self.waiting.fits_priority(request)

    def _unavailable(self) -> ServingError:
        return self.refusals.closed() if self.closed else next(iter(self.obstacles.values()))()

    def rejects_when_full(self, now: float) -> bool:
        """Return whether a request that does not fit at ``now`` is certainly rejected for that reason."""
        return (
            self._overflow.always_rejects
            and not (self.closed or self.obstacles)
            # An expired request is about to make room.
            and self._deadlines.earliest > now
        )

    def _admit(self, request: InferenceRequest, now: float, effects: DispatchEffects) -> None:
        request.enqueued_at = now
        self.waiting.add(request)
        if request.reply.has_producer:
            effects.admitted.append(request)
        if self.rules.rules.max_wait_s > 0 and request.priority <= self.waiting.priority_levels:
            unanswered, is_answering = self._running.count_unanswered()
            if is_answering:
                self.rules.arrivals.answering(now)
            present = self.waiting.count + self._overflow.blocked.count + unanswered
            self.rules.arrivals.arrived(now, present)
        self._wake_threshold.requests -= 1
        self._wake_threshold.rows -= request.rows
        if self._wake_threshold.requests <= 0 or self._wake_threshold.rows <= 0:
            effects.wake_worker = True

    def _apply_policy(self, request: InferenceRequest, now: float, effects: DispatchEffects) -> Batch | None:
        decision = self._overflow.decide(request)
        if isinstance(decision, Refuse):
            effects.failed.append((request, self.refusals.overloaded(decision.reason, decision.detail)))
            return None
        self._deadlines.watch(request.deadline, effects)
        match decision:
            case Hold():
                self._overflow.blocked.add(request)
            case Shed(victims):
                self._overflow.evict(victims, effects)
                self._admit(request, now, effects)
            case RunNow():
                request.enqueued_at = now
                return self._running.start([request], request.rows, now, outside_queue=True)
        return None

    def next_batch(
        self, now: float, idle_since: float, effects: DispatchEffects, *, only_short: bool = False
    ) -> Batch | WaitUntil:
        """Dispatch the next batch to a worker that has been idle since ``idle_since``, or say when to ask again.

        With ``only_short``, leave the requests waiting unless their run is known to be short.
        """
        if self._deadlines.earliest <= now:
            self._drop_expired(now, effects)
        if self.scaling is not None:
            self.scaling.evaluate(now, effects)
        cores = None if self.one_core is None else self.one_core.choose(now, is_closed=self.closed)
        if cores is Cores.NONE:
            decision: Plan = wait_for_run(self.rules.rules.max_rows - self.waiting.rows)
        else:
            decision = self._next.plan(now, idle_since, effects, closed=self.closed)
            if self._overflow.blocked.count:
                self._admit_blocked(now, effects)
        if isinstance(decision, WaitUntil):
            self._wake_threshold.requests, self._wake_threshold.rows = decision.requests, decision.rows
            return decision if self.scaling is None else self.scaling.until(decision)
        if only_short and not self.rules.run_cost.is_short_of(decision.rows):
            return WaitUntil(time=now, requests=0, rows=0)
        return self._dispatch(decision, cores, now, idle_since, effects)

    def _dispatch(
        self, decision: Dispatch, cores: Cores | None, now: float, idle_since: float, effects: DispatchEffects
    ) -> Batch:
        self.waiting.take(decision.requests, decision.rows, self.rules.run_cost.row_processor_s(decision.rows))
        batch = self._running.start(decision.requests, decision.rows, now)
        if self.scaling is not None:
            self.scaling.dispatched(batch, now, idle_since, effects)
        if self.one_core is not None:
            effects.opens_one_core = self.one_core.dispatched(batch, cores, now)
        self.forecast.dispatched(batch, now, self.waiting, self._running)
        if self._overflow.blocked.count:
            self._admit_blocked(now, effects)
        if cores is Cores.ALL:
            # Nothing may run beside it.
            self._wake_threshold.requests = self._wake_threshold.rows = sys.maxsize
            return batch
        # Workers that hold a batch planned with requests that are gone now: have them plan again.
        self._wake_threshold.requests = self._wake_threshold.rows = 0
        effects.wake_worker = self.waiting.count > 0
        return batch

    def retire(self, batch: Batch, now: float) -> None:
        """Remove ``batch``, which has been answered, and learn from its run."""
        self._running.remove(batch)
        if self.scaling is not None:
            self.scaling.instances.ended(batch, now)
        # The worker keeps the batch while it waits for the next one; release its tensors now.
        batch.requests.clear()
        self.rules.arrivals.answering(now)
        if batch.cut_off:
            self.forecast.drain.interrupted()
        elif not batch.outside_queue:
            run_s = now - batch.started_at if batch.run_s is None else batch.run_s
            if batch.on_one_core and self.one_core is not None:
                self.one_core.ran(batch, run_s, now)
            else:
                self.rules.ran(batch.rows, run_s, batch.cpu_s, now)
            self.forecast.ran(batch, run_s, now)

    def hand_over(self, batch: Batch, now: float, effects: DispatchEffects) -> Batch | None:
        """Give up ``batch``, whose thread hangs. Returns a batch of its unanswered requests, if these may run again."""
        self._running.remove(batch)
        if self.scaling is not None:
            self.scaling.instances.ended(batch, now)
        self.forecast.drain.interrupted()
        left = [request for request in batch.requests if not request.reply.done()]
        batch.requests.clear()
        if self.obstacles:
            effects.failed.extend((request, self._unavailable()) for request in left)
        if self.obstacles or not left:
            return None
        rows = sum(request.rows for request in left)
        rest = self._running.start(left, rows, now, outside_queue=batch.outside_queue)
        rest.ran_before = True
        return rest

    def remove(self, request: InferenceRequest, now: float, effects: DispatchEffects) -> None:
        """Remove a cancelled ``request`` if it waits; otherwise it may be running."""
        effects.fails_running = not self._take_out(request)
        self._admit_blocked(now, effects)

    def expire(self, now: float, effects: DispatchEffects) -> None:
        """Fail expired requests when a timer has fired, and arm the next one."""
        self._drop_expired(now, effects)
        self._deadlines.fired(now, effects)

    def set_obstacle(
        self, obstacle: Obstacle, error: Callable[[], ServingError] | None, effects: DispatchEffects
    ) -> None:
        """Stop admitting requests and fail those that wait, with what ``error`` returns; with None admit them again."""
        if error is None:
            self.obstacles.pop(obstacle, None)
            return
        self.obstacles[obstacle] = error
        self.fail_waiting(error(), effects)

    def limit_rows(self, max_rows: int) -> None:
        """Have at most ``max_rows`` in a batch from now on."""
        self.rules.limit_rows(max_rows)
        self.forecast.limit_rows(self.rules.rules.max_rows)
        self.waiting.level_rows = self.forecast.least_rows

    def run_on_one_core(
        self, session: OneCoreSession, opener: Callable[[], None], late_at: Callable[[], float]
    ) -> None:
        """Let batches run on one core each, by ``session``, which ``opener`` opens. As `OneCoreRuns`."""
        self.one_core = OneCoreRuns(
            self.rules, self.forecast, self.waiting, self._running, session=session, opener=opener, late_at=late_at
        )

    def close(self) -> None:
        """Stop admitting requests. Incomplete batches run at once, since no more requests will arrive."""
        self.closed = True

    def fail_waiting(self, error: ServingError, effects: DispatchEffects) -> None:
        """Fail all waiting and blocked requests."""
        for request in [*self.waiting, *self._overflow.blocked]:
            effects.failed.append((request, error))
            self._take_out(request)

    def fail_running(self, error: ServingError, effects: DispatchEffects) -> None:
        """Fail all running requests; their results are discarded."""
        effects.fails_running = True
        effects.failed.extend((request, error) for request in self._running.requests)

    def _drop_expired(self, now: float, effects: DispatchEffects) -> None:
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
        self._deadlines.expired_removed(earliest)
        self._admit_blocked(now, effects)

    def _unanswered(self) -> Iterator[InferenceRequest]:
        return chain(self.waiting, self._overflow.blocked, self._running.requests)

    def _take_out(self, request: InferenceRequest) -> bool:
        """Remove ``request`` from the waiting or blocked requests; False if it is in neither."""
        return self.waiting.remove(request) or self._overflow.blocked.remove(request)

    def _admit_blocked(self, now: float, effects: DispatchEffects) -> None:
        for request in self._overflow.unblocked(effects):
            self._admit(request, now, effects)
