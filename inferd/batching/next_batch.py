"""Plans the next batch of a queue: which requests run together, and which would be too late. Pure; not thread-safe."""

import math
from collections.abc import Iterator
from functools import partial
from itertools import takewhile

from inferd.batching.adaptive import AdaptiveRules
from inferd.batching.forecast import Forecast
from inferd.batching.overflow import Overflow
from inferd.batching.planner import NOTHING_WAITS, Dispatch, Plan, ScavengerTurns, WaitUntil, plan, plan_in_time
from inferd.batching.request import DispatchEffects, InferenceRequest, RunningBatches
from inferd.batching.waiting import Deadlines, WaitingRequests
from inferd.errors import DeadlineExceededError


class NextBatch:
    """Plans the next batch from the waiting requests, by `planner`, with the rules and the forecast of the moment.

    Guarded by the lock of the `RequestQueue`.
    """

    def __init__(
        self,
        rules: AdaptiveRules,
        forecast: Forecast,
        waiting: WaitingRequests[InferenceRequest],
        running: RunningBatches,
        overflow: Overflow[InferenceRequest],
        deadlines: Deadlines,
    ) -> None:
        self._rules = rules
        self._forecast = forecast
        self._waiting = waiting
        self._running = running
        self._overflow = overflow
        self._deadlines = deadlines
        self._scavenger_turns = ScavengerTurns(running.cores)

    def plan(self, now: float, idle_since: float, effects: DispatchEffects, *, closed: bool) -> Plan:
        """Plan a batch for a worker that has been idle since ``idle_since``, and fail requests that are too late.

        Blocked requests may fit afterwards. In a ``closed`` queue no batch waits for more requests.
        """
        if self._waiting.scavengers.rows:
            return self._plan_beside_scavengers(now, idle_since, effects, closed=closed)
        if self._waiting.count:
            return self._plan_online(now, idle_since, effects, closed=closed)
        return NOTHING_WAITS

    def _plan_beside_scavengers(self, now: float, idle_since: float, effects: DispatchEffects, *, closed: bool) -> Plan:
        turns, rules, waiting = self._scavenger_turns, self._rules.rules, self._waiting
        online_rows = waiting.rows - waiting.scavengers.rows
        if turns.is_next(online_rows, rules, closed=closed):
            turns.was_last = True
            if self._deadlines.earliest <= now + self._forecast.near_s:
                self._drop_too_late(waiting.scavengers_in_order(), now, effects)
            return plan(waiting.scavengers_in_order(), now, turns.rules(online_rows, rules))
        if online_rows == 0:
            return NOTHING_WAITS
        decision = self._plan_online(now, idle_since, effects, closed=closed)
        turns.was_last = isinstance(decision, WaitUntil)
        return decision

    def _plan_online(self, now: float, idle_since: float, effects: DispatchEffects, *, closed: bool) -> Plan:
        rules, waiting = self._rules.rules, self._waiting
        if self._deadlines.earliest <= now + rules.max_wait_s + self._forecast.near_s:
            self._drop_too_late(waiting.in_order(), now, effects)
            return plan_in_time(waiting.in_order(), rules, lambda rows: now + self._forecast.batch_s(rows))
        further = 0
        if rules.max_wait_s > 0 and not (closed or waiting.scavengers.rows):
            # A caller that waits for an answer cannot have sent its next request.
            unanswered = self._running.count_unanswered()[0]
            present = waiting.count + self._overflow.blocked.count + unanswered
            further = self._rules.arrivals.expected_arrivals(now, present)
        if further == 0 and waiting.count == 1:
            # The same as `plan` would choose.
            request = waiting.only()
            return Dispatch([request], request.rows)
        if self._rules.shares:
            rules = self._rules.for_next_batch(
                self._running.computing, rows=waiting.rows, requests=waiting.count, further=further
            )
        return plan(waiting.in_order(), now, rules, further=further, idle_since=idle_since)

    def _drop_too_late(self, order: Iterator[InferenceRequest], now: float, effects: DispatchEffects) -> None:
        """Fail requests at the head of ``order`` that would miss their deadline even if they ran at once."""
        late = list(takewhile(partial(self._is_too_late, now), order))
        error = DeadlineExceededError("the deadline would pass before there was an answer")
        for request in late:
            self._waiting.remove(request)
            effects.failed.append((request, error))

    def _is_too_late(self, now: float, request: InferenceRequest) -> bool:
        return request.deadline < math.inf and self._forecast.cannot_finish(request, self._waiting.rows, now)
