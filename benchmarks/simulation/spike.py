"""A spike of requests, from clients that try again when they are refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from benchmarks.simulation.calls import Call, Clients, End, Retries, Traffic
from benchmarks.simulation.costs import Cost, affine
from benchmarks.simulation.figures import percentile
from benchmarks.simulation.loop import Loop
from benchmarks.simulation.model import Model

_BEFORE_S, _SPIKE_S, _AFTER_S = 1.5, 1.5, 2.5
_NORMAL, _PEAK = 0.5, 3.0
_RETRIES = Retries(most=3)
_SMOOTHED = 3
#: The queue delay is settled while it is within this share of its median in the second half of the spike.
_BAND = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A model and the deadline of the calls to it."""

    name: str
    cost: Cost
    max_rows: int
    deadline_s: float

    @property
    def run_s(self) -> float:
        """The time of a full run."""
        return self.cost.exact(self.max_rows)


KINDS = (
    Kind(name="runs of 21 ms, 1 s", cost=Cost(exact=affine(0.005, 0.0005)), max_rows=32, deadline_s=1.0),
    Kind(name="runs of 21 ms, 30 s", cost=Cost(exact=affine(0.005, 0.0005)), max_rows=32, deadline_s=30.0),
    Kind(name="runs of 210 ms, 5 s", cost=Cost(exact=affine(0.05, 0.02)), max_rows=8, deadline_s=5.0),
    Kind(name="runs of 2 ms, 1 s", cost=Cost(exact=affine(0.0016, 0.0001)), max_rows=4, deadline_s=1.0),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spike:
    """``settled_s`` after the spike began, ``normal_s`` after it ended; ``delays`` are moments and queue delays."""

    kind: Kind
    seed: int
    steady_s: float
    settled_s: float
    normal_s: float
    goodput: float
    delays: Sequence[tuple[float, float]]
    #: How calls ended, and when.
    ends: Sequence[tuple[End, float]]
    spike_s: float = _SPIKE_S

    @property
    def settles(self) -> bool:
        """Whether the delay settled within ten batches, or 200 ms."""
        return self.settled_s <= max(10 * self.kind.run_s, 0.2)


def spike(kind: Kind, seed: int) -> Spike:
    """Play half the capacity, three times as much as there is, and half again."""
    loop = Loop()
    model = Model(loop, kind.cost, max_rows=kind.max_rows, seed=seed)
    clients = Clients(loop, model, seed, retries=_RETRIES)
    start = loop.now + _BEFORE_S
    end = start + _SPIKE_S
    capacity = model.capacity
    steps = [(_BEFORE_S, _NORMAL * capacity), (_SPIKE_S, _PEAK * capacity), (_AFTER_S, _NORMAL * capacity)]
    clients.play([Traffic(steps=steps, deadline_s=(kind.deadline_s, kind.deadline_s))])
    loop.run()
    # By what waits, not by who went first: a retry has less time left and overtakes others.
    delays = [(batch.started_at - start, batch.left_rows / capacity) for batch in model.batches]
    steady_s, settled_s = _settled([one for one in delays if 0 <= one[0] < _SPIKE_S], kind.run_s)
    good = sum(call.rows for call in clients.calls if call.in_time and start + _SPIKE_S / 2 <= call.ended_at < end)
    return Spike(
        kind=kind,
        seed=seed,
        steady_s=steady_s,
        settled_s=settled_s,
        normal_s=_normal(clients.calls, start, end, kind.run_s),
        goodput=good / (capacity * _SPIKE_S / 2),
        delays=delays,
        ends=[(call.end, call.ended_at - start) for call in clients.calls],
    )


def _settled(delays: Sequence[tuple[float, float]], run_s: float) -> tuple[float, float]:
    """Return the steady delay and when it was reached for good."""
    smooth = [
        (delays[index][0], fmean(delay for _, delay in delays[max(0, index + 1 - _SMOOTHED) : index + 1]))
        for index in range(len(delays))
    ]
    steady_s = median(delay for when, delay in smooth if when >= _SPIKE_S / 2)
    allowed_s = max(_BAND * steady_s, run_s)
    outside = [when for when, delay in smooth if abs(delay - steady_s) > allowed_s]
    return steady_s, max(outside, default=0.0)


def _normal(calls: Sequence[Call], start: float, end: float, run_s: float) -> float:
    """Return how long after ``end`` the last call was sent that was refused or slower than such calls normally are."""
    before = [call.took_s for call in calls if start - _BEFORE_S / 2 <= call.sent_at < start]
    slow_s = 1.5 * percentile(before, 99) + run_s
    odd = [call.sent_at - end for call in calls if call.sent_at >= end and (call.attempts > 1 or call.took_s > slow_s)]
    return max(odd, default=0.0)
