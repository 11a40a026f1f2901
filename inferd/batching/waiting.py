"""The waiting requests of a queue: order of service, limits, order of eviction. Pure.

**Order of service.** Priorities come first, 1 before 2. Within a priority principals take turns (fair_queue.py), and
the earliest deadline of a principal comes first. A deadline counts as at most one second after the arrival, so that
requests with a far deadline are not overtaken forever.

**Ageing.** While higher priorities are served, each lower one that waits collects a share of the rows served as credit.
Once the credit covers the request at its head, that request goes first. So low priorities are slowed, never starved,
and how much that costs the higher ones is known, however fast the model is.

**Scavengers** have the priority after the lowest one. They are served while nothing else waits, in batches of their
own, count for no limit but those of the whole queue, and are evicted as soon as another request needs their place.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from types import MappingProxyType
from typing import Any, Generic

from inferd.batching.fair_queue import Level
from inferd.batching.queued import Queued, QueuedRequest, QueueEffects
from inferd.errors import DeadlineExceededError, InvalidInputError, ServingError

#: How far ahead of its arrival a deadline counts in the order of service.
_HORIZON_S = 1.0

#: Number requests in the order of their admission, those of all queues together.
_numbers = count()

#: How late a check for expired requests may be. A check walks the whole queue, so checks are at least this far apart.
SLACK_S = 0.005


class WaitingRequests(Generic[Queued]):
    """The waiting requests of a queue, in the order described above.

    Invariant: ``count`` is the number of requests; ``rows`` and ``nbytes`` are the sums over them, never above
    ``max_rows`` and ``max_bytes``. ``row_limit`` is how many rows may wait before the end of a request, its own
    included; ``level_rows`` may wait at each priority in any case. ``priority_rows`` has limits of single priorities.
    A request always fits into an empty queue. Not thread-safe: guarded by the lock of the `RequestQueue`.
    """

    def __init__(
        self,
        *,
        max_rows: int,
        max_bytes: int,
        priority_levels: int,
        low_share: float = 0.0,
        level_rows: int = 0,
        priority_rows: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self.max_rows = max_rows
        self.row_limit = max_rows
        self.max_bytes = max_bytes
        self.priority_levels = priority_levels
        self.priority_rows = priority_rows
        self.count = 0
        self.rows = 0
        self.nbytes = 0
        self._low_share = low_share
        #: Rows that may wait at each priority, however many go first.
        self.level_rows = level_rows
        # By priority, the scavengers last; there is no priority 0.
        self._levels: list[Level[Queued]] = [Level() for _ in range(priority_levels + 2)]
        self.scavengers = self._levels[-1]
        # The cost of a row in the last batch, for the order of flows.
        self._row_s = 1.0

    def is_scavenger(self, request: Queued) -> bool:
        """Return whether ``request`` has the priority of scavengers."""
        return request.priority > self.priority_levels

    def in_order(self) -> Iterator[Queued]:
        """Iterate in order of service; not over scavengers."""
        waiting = []
        for level in self._levels[1:-1]:
            if level.rows:
                waiting.append(level)  # noqa: PERF401  (a comprehension takes a call more)
        return waiting[0].in_order(self._row_s) if len(waiting) == 1 else self._by_priority(waiting)

    def only(self) -> Queued:
        """Return the request while exactly one waits."""
        for level in self._levels:
            if level.rows:
                break
        return next(iter(level.flows.values())).first()

    def scavengers_in_order(self) -> Iterator[Queued]:
        """Iterate over the scavengers in order of service."""
        return self.scavengers.in_order(self._row_s)

    def _by_priority(self, waiting: Sequence[Level[Queued]]) -> Iterator[Queued]:
        aged: dict[Queued, None] = {}
        for level in waiting[1:]:
            credit = level.credit
            for request in level.in_order(self._row_s):
                credit -= request.rows
                if credit < 0:
                    break
                aged[request] = None
        yield from aged
        for request in chain.from_iterable(level.in_order(self._row_s) for level in waiting):
            if request not in aged:
                yield request

    def __iter__(self) -> Iterator[Queued]:
        """Iterate over all requests, scavengers last."""
        return chain.from_iterable(level.in_order(1.0) for level in self._levels if level.rows)

    def victims(self, priority: int | None = None) -> Iterator[Queued]:
        """Iterate in order of eviction: scavengers, then the lowest priority, within it what is due first.

        With ``priority``, only over the requests of that priority.
        """
        levels = reversed(self._levels) if priority is None else (self._levels[priority],)
        return chain.from_iterable(level.victims() for level in levels if level.rows)

    def scavengers_for(self, request: Queued) -> list[Queued]:
        """Return the scavengers to evict so that ``request`` fits; none if it would not fit all the same."""
        evicted: list[Queued] = []
        if self.is_scavenger(request) or not self._in_turn(request):
            return evicted
        excess = self.excess(request)
        for scavenger in self.scavengers.victims():
            if not excess.remains():
                break
            evicted.append(scavenger)
            excess.evict(scavenger)
        return [] if excess.remains() else evicted

    def excess(self, request: Queued) -> "Excess":
        """Return by how much ``request`` would exceed the limits of the whole queue."""
        return Excess(
            rows=self.rows + request.rows - self.max_rows,
            nbytes=self.nbytes + request.nbytes - self.max_bytes,
        )

    def rows_too_many(self, request: Queued) -> int:
        """Return by how much ``request`` would exceed the row limit, or negative."""
        if self.is_scavenger(request):
            return 0
        ahead = self._ahead(request.rows, request.priority, *request.principal, math.inf)
        return ahead + request.rows - max(self.row_limit, request.rows)

    def fits(self, request: Queued) -> bool:
        """Return whether there is room for ``request`` now."""
        rows = self.rows + request.rows
        if self.nbytes + request.nbytes > self.max_bytes:
            return False
        return rows <= self.row_limit or (rows <= self.max_rows and self._in_turn(request))

    def _in_turn(self, request: Queued) -> bool:
        return self.fits_in_turn(request.rows, request.priority, *request.principal)

    def rows_of(self, priority: int) -> int:
        """Return the waiting rows of ``priority``."""
        return self._levels[priority].rows

    def fits_priority(self, request: Queued) -> bool:
        """Return whether ``request`` is within the limit of its priority, as any is if none of that waits."""
        limit, rows = self.priority_rows.get(request.priority), self.rows_of(request.priority)
        return limit is None or rows == 0 or rows + request.rows <= limit

    def fits_in_turn(self, rows: int, priority: int, principal: str, weight: float) -> bool:
        """Return whether a request of ``rows`` would be served soon enough, after those that go first.

        Whatever its deadline: one that overtakes others must not make them wait longer than the limit.
        """
        if priority > self.priority_levels or self._levels[priority].rows + rows <= self.level_rows:
            return True
        # A request that is larger than the limit fits if nothing goes first.
        return self._ahead(rows, priority, principal, weight, math.inf) + rows <= max(self.row_limit, rows)

    def add(self, request: Queued) -> None:
        """Add ``request``, which has its ``enqueued_at``; the caller has checked that it fits."""
        request.edf_key = min(request.deadline, request.enqueued_at + _HORIZON_S), next(_numbers)
        self._levels[request.priority].add(request)
        self.count += 1
        self.rows += request.rows
        self.nbytes += request.nbytes

    def remove(self, request: Queued, cost_s: float = 0.0) -> bool:
        """Remove ``request`` and charge its principal ``cost_s``; False if it does not wait here."""
        if not 1 <= request.priority < len(self._levels) or not self._levels[request.priority].remove(request, cost_s):
            return False
        self.count -= 1
        self.rows -= request.rows
        self.nbytes -= request.nbytes
        return True

    def take(self, requests: Sequence[Queued], rows: int, row_s: float) -> None:
        """Remove ``requests`` of ``rows`` in all, which are dispatched together, at a cost of ``row_s`` a row."""
        self._row_s = row_s or 1.0
        # Mostly they are the first ones of a single flow.
        level = self._levels[requests[0].priority]
        if level.take_first(requests, rows, rows * row_s):
            self.count -= len(requests)
            self.rows -= rows
            for request in requests:
                self.nbytes -= request.nbytes
        else:
            for request in requests:
                self.remove(request, request.rows * row_s)
        if self._low_share and self.rows != level.rows:
            self._age(requests)

    def _age(self, requests: Sequence[Queued]) -> None:
        """Give credit to the priorities that wait while ``requests`` of higher ones are served."""
        higher = 0
        served = {request.priority: 0 for request in requests}
        for request in requests:
            served[request.priority] += request.rows
        for priority, level in enumerate(self._levels[:-1]):
            own = served.get(priority, 0)
            if level.rows:
                level.credit = max(0.0, level.credit + self._low_share * higher - own)
            higher += own

    def rows_ahead(self, request: Queued) -> int:
        """Estimate how many waiting rows would be served before the end of ``request``, which does not wait yet."""
        return self._ahead(request.rows, request.priority, *request.principal, request.deadline)

    def _ahead(self, rows: int, priority: int, principal: str, weight: float, deadline: float) -> int:
        ahead = sum(level.rows for level in self._levels[:priority])
        level = self._levels[priority]
        return ahead + level.rows_ahead(principal, weight, deadline, rows) if level.rows else ahead

    def behind(self, request: Queued, most: int) -> Iterator[tuple[int, Queued]]:
        """Yield up to ``most`` requests of the same flow that ``request`` would delay, with the rows up to each."""
        flow = self._levels[request.priority].flows.get(request.principal.name)
        return flow.behind(request.deadline, most) if flow is not None else iter(())

    def describe(self) -> str:
        """Say how full it is, for a message."""
        return f"{self.rows} of {self.row_limit} rows and {self.nbytes} of {self.max_bytes} bytes wait"


@dataclass(slots=True)
class Excess:
    """By how much a request would exceed the limits of the whole queue; negative for what is left."""

    rows: int
    nbytes: int
    requests: int = 0

    def remains(self) -> bool:
        """Return whether the request still does not fit."""
        return self.requests > 0 or self.rows > 0 or self.nbytes > 0

    def evict(self, victim: QueuedRequest) -> None:
        """Count ``victim`` as evicted."""
        self.requests -= 1
        self.rows -= victim.rows
        self.nbytes -= victim.nbytes


class Deadlines:
    """Keeps a timer armed for the earliest deadline without arming one for every request.

    Invariants: no watched request has a deadline before ``earliest``; a timer is armed for at most ``SLACK_S`` after
    ``earliest``, unless that is infinite. Every timer is armed for an earlier time than those before it, so the one
    that fires is always the last. Not thread-safe: guarded by the lock of the `RequestQueue`.
    """

    def __init__(self) -> None:
        self.earliest = math.inf
        self._armed = [math.inf]

    def watch(self, deadline: float, effects: QueueEffects[Any]) -> None:
        """Watch ``deadline``; arm a timer if one is needed."""
        self.earliest = min(self.earliest, deadline)
        if deadline + SLACK_S < self._armed[-1]:
            self._arm(deadline, effects)

    def expired_removed(self, earliest: float) -> None:
        """Record that expired requests were removed; ``earliest`` is the earliest deadline of the others.

        The timer for the expired ones has yet to fire; `fired` then arms the next one.
        """
        self.earliest = earliest

    def fired(self, now: float, effects: QueueEffects[Any]) -> None:
        """Record that a timer fired and expired requests were removed; arm the next one."""
        self._armed.pop()
        when = max(self.earliest, now + SLACK_S)
        if when < self._armed[-1]:
            self._arm(when, effects)

    def _arm(self, when: float, effects: QueueEffects[Any]) -> None:
        self._armed.append(when)
        effects.timers_at.append(when)


def refusal(request: QueuedRequest, now: float, waiting: WaitingRequests[Any]) -> ServingError | None:
    """Return why ``request`` can never be admitted to a queue with the limits of ``waiting``; None if it can."""
    if request.deadline <= now:
        return DeadlineExceededError("the deadline passed before the request reached the queue")
    if request.rows > waiting.max_rows:
        return _too_large(request.rows, waiting.max_rows, "rows")
    if request.nbytes > waiting.max_bytes:
        return _too_large(request.nbytes, waiting.max_bytes, "bytes")
    levels = waiting.priority_levels
    if not 1 <= request.priority <= levels + 1:
        text = f"priority: expected 1 to {levels}, or {levels + 1} for a scavenger, got {request.priority}"
        return InvalidInputError(text)
    return None


def _too_large(given: int, bound: int, unit: str) -> InvalidInputError:
    return InvalidInputError(
        f"request: expected at most {bound} {unit}, the bound of the whole queue, got {given}", field="inputs"
    )
