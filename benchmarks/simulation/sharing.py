"""Priorities, principals and scavengers that share one model."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.simulation.calls import Call, Clients, End, Retries, Traffic
from benchmarks.simulation.costs import Cost, affine
from benchmarks.simulation.figures import percentile
from benchmarks.simulation.loop import Cores, Loop
from benchmarks.simulation.model import Model
from inferd.batching.idle_cores import IdleCores
from inferd.config.settings import QueueSettings

_COST = Cost(exact=affine(0.005, 0.0005))
_MAX_ROWS = 32
RUN_S = _COST.exact(_MAX_ROWS)
CAPACITY = _COST.capacity(_MAX_ROWS)
_WARM_S = 1.0
_HIGH, _LOW = 1, 3
SCAVENGER = QueueSettings().priority_levels + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What one kind of traffic got: the share of its calls that were answered in time, and of the capacity."""

    success: float
    p99_ms: float
    of_capacity: float
    longest_gap_s: float


def _play(traffic: Sequence[Traffic], seconds: float, seed: int) -> tuple[Model, Clients, float]:
    loop = Loop()
    model = Model(loop, _COST, max_rows=_MAX_ROWS, seed=seed)
    clients = Clients(loop, model, seed)
    # Half the capacity first, so that the costs are known.
    warm = Traffic(steps=[(_WARM_S, 0.5 * CAPACITY)])
    clients.play([warm, *(replace(one, steps=[(_WARM_S, 0.0), *one.steps]) for one in traffic)])
    loop.run(_WARM_S + seconds)
    return model, clients, loop.now - seconds


def _share(calls: Sequence[Call], begin: float, seconds: float) -> Share:
    calls = [call for call in calls if call.sent_at >= begin and call.end is not End.OPEN]
    answered = sorted(call.ended_at for call in calls if call.in_time)
    moments = [begin, *answered, begin + seconds]
    return Share(
        success=len(answered) / max(len(calls), 1),
        p99_ms=percentile([call.took_s for call in calls if call.in_time], 99) * 1000,
        of_capacity=sum(call.rows for call in calls if call.in_time) / (CAPACITY * seconds),
        longest_gap_s=max(after - before for before, after in itertools.pairwise(moments)),
    )


def priorities(
    high: float, low: float, *, deadline_s: float = 1.0, seconds: float = 5.0, seed: int = 0
) -> dict[str, Share]:
    """Offer ``high`` and ``low`` times the capacity with a high and a low priority."""
    steps = {_HIGH: high, _LOW: low}
    traffic = [
        Traffic(steps=[(seconds, factor * CAPACITY)], priority=level, deadline_s=(deadline_s, deadline_s))
        for level, factor in steps.items()
        if factor
    ]
    _, clients, begin = _play(traffic, seconds, seed)
    by_level = {name: [c for c in clients.calls if c.priority == level] for name, level in (("high", 1), ("low", 3))}
    return {name: _share(calls, begin, seconds) for name, calls in by_level.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """A caller: how many times the capacity it asks for, in requests of how many rows."""

    name: str
    demand: float
    rows: tuple[int, int] = (1, 1)
    weight: float = 1.0
    priority: int = 2


def principals(
    callers: Sequence[Principal],
    *,
    deadline_s: tuple[float, float] = (1.0, 1.0),
    seconds: float = 10.0,
    seed: int = 0,
) -> tuple[dict[str, float], dict[str, Share]]:
    """Return each principal's share of the processor time in proportion to rows, and what it got for it."""
    traffic = [
        Traffic(
            steps=[(seconds, one.demand * CAPACITY)],
            rows=one.rows,
            principal=one.name,
            weight=one.weight,
            priority=one.priority,
            deadline_s=deadline_s,
        )
        for one in callers
    ]
    model, clients, begin = _play(traffic, seconds, seed)
    settled = begin + seconds / 5
    used = {one.name: 0.0 for one in callers}
    for batch in model.batches:
        if batch.started_at >= settled:
            for call in batch.calls:
                used[call.principal] += batch.work_s * call.rows / batch.rows
    total = sum(used.values())
    shares = {
        one.name: _share([call for call in clients.calls if call.principal == one.name], begin, seconds)
        for one in callers
    }
    return {name: work_s / total for name, work_s in used.items()}, shares


@dataclass(frozen=True, kw_only=True, slots=True)
class Scavenged:
    """Online load beside a scavenger that always has work: latencies without and with it.

    ``scavenged`` is what the scavenger got, as a share of the capacity; ``of_left`` is its share of what full batches
    could do in the time that is idle without it.
    """

    load: float
    alone_p99_ms: float
    beside_p99_ms: float
    online_success: float
    scavenged: float
    of_left: float


def scavenging(
    load: float, *, rows: tuple[int, int] = (1, 1), seconds: float = 10.0, seed: int = 0, apart: bool = False
) -> Scavenged:
    """Offer ``load`` times the capacity online, without and with a scavenger that keeps many calls open.

    With ``apart``, the scavenger has a model of its own, and the same cores.
    """
    online = Traffic(steps=[(seconds, load * CAPACITY)], rows=rows, deadline_s=(1.0, 1.0))
    model, clients, begin = _play([online], seconds, seed)
    alone = _share(clients.calls, begin, seconds)
    busy_s = sum(batch.work_s for batch in model.batches if batch.started_at >= begin)
    loop = Loop()
    cores, idle = Cores(loop, 1), IdleCores()
    models = [
        Model(loop, _COST, max_rows=_MAX_ROWS, cores=cores, idle_cores=idle, name=f"m{number}", seed=seed)
        for number in range(1 + apart)
    ]
    callers = [Clients(loop, each, seed) for each in models]
    warm = Traffic(steps=[(_WARM_S, 0.5 * CAPACITY / len(models))])
    callers[0].play([warm, replace(online, steps=[(_WARM_S, 0.0), *online.steps])])
    if apart:
        callers[1].play([warm])
    loop.run(_WARM_S)
    backlog = _Backlog(callers[-1], rows=8, in_flight=16)
    loop.run(seconds)
    beside = _share(callers[0].calls, begin, seconds)
    return Scavenged(
        load=load,
        alone_p99_ms=alone.p99_ms,
        beside_p99_ms=beside.p99_ms,
        online_success=beside.success,
        scavenged=backlog.done_rows / (seconds * CAPACITY),
        of_left=backlog.done_rows / ((seconds - busy_s) * CAPACITY),
    )


class _Backlog:
    """A caller that keeps ``in_flight`` calls of the scavenger class open, and comes back when it is told to."""

    def __init__(self, clients: Clients, *, rows: int, in_flight: int) -> None:
        self.done_rows = 0
        self._clients = clients
        self._rows = rows
        self._chance = random.Random(f"{clients.seed} backlog")
        for _ in range(in_flight):
            self._send()

    def _send(self) -> None:
        call = Call(sent_at=self._clients.loop.now, rows=self._rows, priority=SCAVENGER, principal="scavenger")
        call.attempts = 1
        self._clients.server.submit(call, self._ended)

    def _ended(self, call: Call, end: End, hint_s: float | None) -> None:
        if end is End.OK:
            self.done_rows += call.rows
            self._clients.loop.after(0.0, self._send)
        else:
            self._clients.loop.after(Retries().delay_s(1, hint_s, self._chance), self._send)
