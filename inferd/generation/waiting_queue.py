"""The waiting queue of a language model: which requests are admitted, blocked or rejected, and which starts next. Pure.

It has the rules of ordinary models, with tokens in place of rows: order of service, ageing, shares of principals,
scavengers and backpressure policies are the same. A request counts the tokens that it reserves in the cache.

    offer ──▶ rejected
      │  └──▶ blocked ──▶ waiting       in order of arrival, as room appears
      └─────▶ waiting ──▶ started

Blocked and waiting requests leave early if they are cancelled, expire, or are shed.
"""

import math
from collections.abc import Callable
from itertools import chain

from inferd.batching.overflow import Overflow
from inferd.batching.policies import Hold, Policy, Refuse, RunNow, Shed
from inferd.batching.queued import QueueEffects
from inferd.batching.refusals import Refusals
from inferd.batching.waiting import Deadlines, Excess, WaitingRequests, refusal
from inferd.config.generation import GenerationSettings
from inferd.config.settings import Backpressure, QueueSettings
from inferd.errors import DeadlineExceededError, InvalidInputError, ServingError
from inferd.generation.forecast import CacheLoad, GenerationForecast
from inferd.generation.request import GenerationRequest

Effects = QueueEffects[GenerationRequest]


class WaitingGenerationRequests(WaitingRequests[GenerationRequest]):
    """The waiting requests of a language model: with tokens in place of rows, and bounded in number as well."""

    def __init__(self, queue: QueueSettings, generation: GenerationSettings, max_request_tokens: int) -> None:
        super().__init__(
            max_rows=max(generation.max_waiting_tokens, max_request_tokens),
            max_bytes=queue.max_bytes,
            priority_levels=queue.priority_levels,
            low_share=queue.low_priority_share,
            priority_rows={
                priority: own.max_rows for priority, own in queue.by_priority.items() if own.max_rows is not None
            },
        )
        self.max_requests = generation.max_waiting_requests

    def fits(self, request: GenerationRequest) -> bool:
        """Return whether there is room for ``request`` now."""
        return self.count < self.max_requests and super().fits(request)

    def excess(self, request: GenerationRequest) -> Excess:
        """Return by how much ``request`` would exceed the limits of the whole queue."""
        excess = super().excess(request)
        excess.requests = self.count + 1 - self.max_requests
        return excess

    def describe(self) -> str:
        """Return how full the queue is, for error messages."""
        return (
            f"{self.count} of {self.max_requests} requests with {self.rows} of {self.row_limit} tokens and "
            f"{self.nbytes} of {self.max_bytes} bytes wait"
        )


class WaitingQueue:
    """The waiting and blocked requests of one version of a language model.

    Invariants: the waiting requests are within their limits; a timer watches the earliest deadline. A request may
    reserve at most ``max_request_tokens``. Not thread-safe: guarded by the intake's lock. ``now`` is monotonic.
    """

    def __init__(
        self,
        *,
        name: str,
        queue: QueueSettings,
        generation: GenerationSettings,
        policy: Policy,
        forecast: GenerationForecast,
        max_request_tokens: int,
    ) -> None:
        self.waiting = WaitingGenerationRequests(queue, generation, max_request_tokens)
        self.refusals = Refusals(name, self.waiting, forecast)
        self.closed = False
        #: Returns the error that all requests are rejected with at present; None while they are admitted.
        self.unavailable: Callable[[], ServingError] | None = None
        self._forecast = forecast
        self._max_request_tokens = max_request_tokens
        self._max_blocked = queue.max_blocked if queue.policy is Backpressure.BLOCK else 0
        self._overflow: Overflow[GenerationRequest] = Overflow(policy, self.waiting, self.refusals)
        self._deadlines = Deadlines()

    @property
    def exhausted(self) -> bool:
        """True if nothing waits and nothing will come any more."""
        return self.closed and not self._overflow.blocked.count and self.waiting.count == 0

    @property
    def count(self) -> int:
        """The number of waiting and blocked requests."""
        return self.waiting.count + self._overflow.blocked.count

    def offer(self, request: GenerationRequest, load: CacheLoad, now: float, effects: Effects) -> None:
        """Admit, block or reject ``request``."""
        error = self._permanent_rejection(request, now)
        if error is None:
            self._drop_expired(now, effects)
            self.waiting.row_limit = self._forecast.row_limit(self.waiting.max_rows, load)
            error = self._temporary_rejection(request, load, now)
            error = error and (self._too_many_choices(request) or error)
        if error is not None:
            effects.failed.append((request, error))
            return
        blocked = self._overflow.blocked
        if (blocked.count and not blocked.lets_pass(request)) or not self._overflow.make_room(request, effects):
            self._apply_policy(request, now, effects)
            return
        self._deadlines.watch(request.deadline, effects)
        self._admit(request, now)

    def _permanent_rejection(self, request: GenerationRequest, now: float) -> ServingError | None:
        if self.closed:
            return self.refusals.closed()
        if self.unavailable is not None:
            return self.unavailable()
        if request.rows > self._max_request_tokens:
            return InvalidInputError(
                f"prompt and max_tokens: expected at most {self._max_request_tokens} tokens, what the cache holds, got "
                f"{len(request.prompt)} and {request.max_tokens}"
            )
        return refusal(request, now, self.waiting)

    def _too_many_choices(self, request: GenerationRequest) -> ServingError | None:
        """Return why the choices of a call can never be admitted together, not even to an idle model; None if they can.

        As many as possible start at once, the others wait or are blocked.
        """
        if request.choices == 1:
            return None
        forecast, waiting, rows = self._forecast, self.waiting, request.rows
        started, row_limit = forecast.started_alone(rows), waiting.max_rows
        if not waiting.is_scavenger(request):
            # Before they start, more may wait.
            before = forecast.row_limit_alone(row_limit, 0, rows) - started * rows
            row_limit = max(before, forecast.row_limit_alone(row_limit, started, rows))
        row_limit = min(row_limit, waiting.priority_rows.get(request.priority, row_limit))
        waits = min(row_limit // rows, waiting.max_requests, waiting.max_bytes // request.nbytes)
        # Into an empty queue any request fits.
        most = started + max(waits, 1) + self._max_blocked
        if request.choices <= most:
            return None
        text = (
            f"n: expected at most {most} choices of {rows} tokens each, with the prompt and max_tokens, which is what "
            f"the model and its queue hold while they are idle, got {request.choices}"
        )
        return InvalidInputError(text, at="choices")

    def _temporary_rejection(self, request: GenerationRequest, load: CacheLoad, now: float) -> ServingError | None:
        if self._forecast.would_miss_deadline(request, self.waiting.rows_ahead(request), load, now):
            needed_s = request.expected_s * self._forecast.error_factor
            needs = f"; the answer may take {needed_s:.3g} s, and the deadline is in {request.deadline - now:.3g} s"
            if self._forecast.is_too_long(request, now):
                return self.refusals.too_late(needs, in_vain=True)
            error = self.refusals.too_late(needs)
            error.retry_after_s = self._forecast.retry_in_time_s(request, self.waiting.rows, now)
            return error
        if self.waiting.priority_rows and not self.waiting.fits_priority(request):
            return self.refusals.priority_full(request.priority)
        return None

    def _admit(self, request: GenerationRequest, now: float) -> None:
        request.enqueued_at = now
        self.waiting.add(request)
        self._forecast.lengths.admitted(request)

    def _apply_policy(self, request: GenerationRequest, now: float, effects: Effects) -> None:
        error = self._too_many_choices(request)
        if error is not None:
            effects.failed.append((request, error))
            return
        decision = self._overflow.decide(request)
        match decision:
            case Hold():
                self._deadlines.watch(request.deadline, effects)
                self._overflow.blocked.add(request)
            case Shed(victims):
                self._deadlines.watch(request.deadline, effects)
                self._overflow.evict(victims, effects)
                self._admit(request, now)
            case Refuse(reason=reason, detail=detail):
                effects.failed.append((request, self.refusals.overloaded(reason, detail)))
            case RunNow():
                raise AssertionError("caller_runs is refused when a language model is loaded")

    def next_request(self, now: float, effects: Effects) -> GenerationRequest | None:
        """Return the request that starts next, if any; scavengers only while nothing else waits."""
        self._drop_expired(now, effects)
        order = chain(self.waiting.in_order(), self.waiting.scavengers_in_order())
        return next(order, None)

    def start(self, request: GenerationRequest, now: float, effects: Effects) -> None:
        """Remove ``request``, which starts, and charge its principal for the tokens that it reserves."""
        self.waiting.take([request], request.rows, 1.0)
        self._admit_blocked(now, effects)

    def update_load(self, load: CacheLoad, now: float, effects: Effects) -> None:
        """Adapt the limit to the load of the cache, and admit the blocked requests that fit now."""
        self.waiting.row_limit = self._forecast.row_limit(self.waiting.max_rows, load)
        self._admit_blocked(now, effects)

    def _admit_blocked(self, now: float, effects: Effects) -> None:
        for request in self._overflow.unblocked(effects):
            self._admit(request, now)

    def remove(self, request: GenerationRequest, now: float, effects: Effects) -> bool:
        """Remove a cancelled ``request``; return False if it neither waits nor is blocked."""
        removed = self._discard(request)
        self._admit_blocked(now, effects)
        return removed

    def _discard(self, request: GenerationRequest) -> bool:
        return self.waiting.remove(request) or self._overflow.blocked.remove(request)

    def expire(self, now: float, effects: Effects) -> None:
        """Fail expired requests when a timer has fired, and arm the next one."""
        self._drop_expired(now, effects)
        self._deadlines.fired(now, effects)

    def fail_all(self, error: ServingError, effects: Effects) -> None:
        """Fail all waiting and blocked requests."""
        for request in [*self.waiting, *self._overflow.blocked]:
            effects.failed.append((request, error))
            self._discard(request)

    def _drop_expired(self, now: float, effects: Effects) -> None:
        if self._deadlines.earliest > now:
            return
        error = DeadlineExceededError("the deadline passed before the first token")
        earliest = math.inf
        for request in [*self.waiting, *self._overflow.blocked]:
            if request.deadline > now:
                earliest = min(earliest, request.deadline)
            else:
                effects.failed.append((request, error))
                self._discard(request)
        self._deadlines.expired_removed(earliest)
        self._admit_blocked(now, effects)
