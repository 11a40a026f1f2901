"""Plans the next batch from the waiting requests. Pure."""

import math
import sys
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace

from inferd.batching.idle_cores import CoreShare
from inferd.batching.request import InferenceRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchRules:
    """Limits for batches. A request with more than ``max_rows`` rows runs alone; 1 runs every request alone.

    ``preferred`` are numbers of rows that batches should have, as far as they need not wait for more requests.
    """

    max_rows: int
    max_wait_s: float = 0.0
    preferred: frozenset[int] = frozenset()


#: Share of a full batch that may wait online while scavengers run once: such a batch would be held for more requests,
#: and requests that arrive during that run still fit into it.
_ROWS_BESIDE_SCAVENGERS = 0.45
#: Share of a full batch that a run of scavengers has at most while others wait for it, and while other models are busy,
#: whose runs may begin beside it and then take twice as long.
_SCAVENGERS_BESIDE_OTHERS = 7 / 8
_SCAVENGERS_BESIDE_MODELS = 1 / 2


def rules_for_scavengers(rules: BatchRules, *, others_wait: bool, others_ran: bool) -> BatchRules:
    """Return the rules for a batch of scavengers.

    ``others_wait`` if other requests to the model wait meanwhile, ``others_ran`` if other models have just run some.
    """
    if not others_wait and not others_ran:
        return rules
    share = _SCAVENGERS_BESIDE_MODELS if others_ran else _SCAVENGERS_BESIDE_OTHERS
    return replace(rules, max_rows=max(1, int(rules.max_rows * share)))


class ScavengerTurns:
    """Decides whether the next batch consists of scavengers, and how large it is.

    Scavengers run after all other requests, or once between their batches. ``cores`` knows the runs of other models.
    """

    def __init__(self, cores: CoreShare) -> None:
        self._cores = cores
        #: Whether the last batch was one of scavengers, which has kept others waiting long enough.
        self.was_last = False

    def is_next(self, online_rows: int, rules: BatchRules, *, closed: bool) -> bool:
        """Return whether scavengers run next while ``online_rows`` of other requests wait.

        They wait for runs of other models, and are woken after these, unless the queue is ``closed``.
        """
        may_run = online_rows == 0 or (not self.was_last and online_rows <= rules.max_rows * _ROWS_BESIDE_SCAVENGERS)
        return may_run and (closed or self._cores.may_scavenge())

    def rules(self, online_rows: int, rules: BatchRules) -> BatchRules:
        """Return the rules for a batch of scavengers."""
        return rules_for_scavengers(rules, others_wait=online_rows > 0, others_ran=self._cores.others_ran())


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Run these requests together now; ``rows`` is their sum."""

    requests: list[InferenceRequest]
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitUntil:
    """No batch is ready before ``time``, unless this many further ``requests`` or ``rows`` arrive first."""

    time: float
    requests: int
    rows: int


@dataclass(slots=True)
class WakeThreshold:
    """Requests or rows that must still arrive before a worker that waits plans again; 0 or less of either wakes it."""

    requests: int = 0
    rows: int = 0


Plan = Dispatch | WaitUntil

#: The plan while no request waits.
NOTHING_WAITS = WaitUntil(time=math.inf, requests=1, rows=1)


def wait_for_run(missing_rows: int) -> WaitUntil:
    """Return the plan while a running batch has to end first, whose worker then takes the next one.

    ``missing_rows`` are those to a full batch, which might run on one core beside others.
    """
    missing = missing_rows if missing_rows > 0 else sys.maxsize
    return WaitUntil(time=math.inf, requests=missing, rows=missing)


@dataclass(slots=True)
class _Group:
    """Requests that can be stacked, in order of service, as far as they fit into one batch."""

    max_rows: int
    requests: list[InferenceRequest] = field(default_factory=list)
    rows: int = 0
    complete: bool = False

    def add(self, request: InferenceRequest) -> None:
        """Add ``request``, or leave it for the next batch; then there is no point in holding this one."""
        if self.requests and self.rows + request.rows > self.max_rows:
            self.complete = True
            return
        self.requests.append(request)
        self.rows += request.rows
        if self.rows >= self.max_rows:
            self.complete = True

    @property
    def oldest(self) -> float:
        return min(request.enqueued_at for request in self.requests)


def plan_in_time(pending: Iterable[InferenceRequest], rules: BatchRules, end_of: Callable[[int], float]) -> Plan:
    """Choose the next batch from ``pending`` so that it ends before the deadline of each of its requests.

    ``end_of`` predicts when a batch of this many rows ends if it is dispatched now. A head that is late even alone does
    not limit the others.
    """
    requests: list[InferenceRequest] = []
    rows, until, key = 0, math.inf, None
    for request in pending:
        if requests and (request.stack_key != key or rows + request.rows > rules.max_rows):
            continue
        end = end_of(rows + request.rows)
        if requests and end > until:
            break
        if requests and end > request.deadline:
            continue
        if end <= request.deadline:
            until = min(until, request.deadline)
        key = request.stack_key
        requests.append(request)
        rows += request.rows
        if rows >= rules.max_rows:
            break
    return Dispatch(requests, rows) if requests else NOTHING_WAITS


def plan(
    pending: Iterable[InferenceRequest], now: float, rules: BatchRules, *, further: int = 0, idle_since: float = 0.0
) -> Plan:
    """Choose the next batch from ``pending``, which is in order of service.

    ``further`` is how many requests are expected to arrive. If none are, or no wait is allowed, the head of ``pending``
    runs immediately, with as many of the others that can be stacked with it as fit. Otherwise an incomplete batch is
    held for at most ``max_wait_s`` from when it could have run: when its oldest request had arrived and the worker was
    idle. The first batch that need not be held is dispatched. One that has not been held is cut to the largest
    preferred size that its first requests add up to, if there is one.
    """
    if further == 0 or rules.max_wait_s == 0:
        planned = _plan_at_once(pending, rules.max_rows)
        if rules.preferred and isinstance(planned, Dispatch):
            return _of_preferred_size(planned.requests, rules.preferred) or planned
        return planned
    return _plan_held(pending, now, rules, further, idle_since)


def _of_preferred_size(requests: list[InferenceRequest], preferred: frozenset[int]) -> Dispatch | None:
    """Return the first of ``requests`` that add up to the largest preferred size; None if they add up to none."""
    count = rows = rows_so_far = 0
    for number, request in enumerate(requests, start=1):
        rows_so_far += request.rows
        if rows_so_far in preferred:
            count, rows = number, rows_so_far
    return Dispatch(requests[:count], rows) if count else None


def _plan_at_once(pending: Iterable[InferenceRequest], max_rows: int) -> Plan:
    # Without `_Group`, because this runs for each request of each batch.
    requests: list[InferenceRequest] = []
    rows = 0
    key: Hashable = None
    for request in pending:
        if not requests:
            key = request.stack_key
        elif request.stack_key != key or rows + request.rows > max_rows:
            continue
        requests.append(request)
        rows += request.rows
        if rows >= max_rows:
            break
    return Dispatch(requests, rows) if requests else NOTHING_WAITS


def _plan_held(
    pending: Iterable[InferenceRequest], now: float, rules: BatchRules, further: int, idle_since: float
) -> Plan:
    groups: dict[Hashable, _Group] = {}
    for request in pending:
        group = groups.get(request.stack_key)
        if group is None:
            group = groups[request.stack_key] = _Group(rules.max_rows)
        group.add(request)
        if group.rows >= rules.max_rows:
            break
    for group in groups.values():
        is_due = max(group.oldest, idle_since) + rules.max_wait_s <= now
        if rules.preferred and not is_due and (batch := _of_preferred_size(group.requests, rules.preferred)):
            return batch
        if group.complete or is_due:
            return Dispatch(group.requests, group.rows)
    if not groups:
        return NOTHING_WAITS
    return WaitUntil(
        time=max(min(group.oldest for group in groups.values()), idle_since) + rules.max_wait_s,
        requests=further,
        rows=min(_rows_to_come(group.rows, rules) for group in groups.values()),
    )


def _rows_to_come(rows: int, rules: BatchRules) -> int:
    """Return how many rows are missing for the next larger batch that would run at once."""
    larger = [size for size in rules.preferred if size > rows] if rules.preferred else []
    return min([rules.max_rows, *larger]) - rows
