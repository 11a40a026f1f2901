"""Several models that share the processors."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.simulation.calls import Clients, Traffic
from benchmarks.simulation.costs import Cost
from benchmarks.simulation.figures import percentile
from benchmarks.simulation.loop import Cores, Loop
from benchmarks.simulation.model import Model

_WARM_S = 1.0
_CORES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One model and how many times its own capacity is asked of it."""

    name: str
    cost: Cost
    max_rows: int
    demand: float
    deadline_s: float = 1.0
    rows: tuple[int, int] = (1, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Got:
    """What a model got: its share of the processor time, of its capacity, and how its callers fared."""

    of_time: float
    goodput: float
    success: float
    p50_ms: float
    p99_ms: float


def together(asked: Sequence[Asked], *, seconds: float = 6.0, seed: int = 0) -> dict[str, Got]:
    """Ask all models at once, each of whose runs wants all the processors."""
    loop = Loop()
    cores = Cores(loop, _CORES)
    begin = loop.now + _WARM_S
    ran: dict[str, tuple[Model, Clients]] = {}
    for number, one in enumerate(asked):
        model = Model(loop, one.cost, max_rows=one.max_rows, cores=cores, threads=_CORES, name=one.name, seed=seed)
        clients = Clients(loop, model, seed + 1000 * number)
        rate = one.demand * model.capacity
        steps = [(_WARM_S, min(rate, 0.3 * model.capacity)), (seconds, rate)]
        clients.play([Traffic(steps=steps, rows=one.rows, deadline_s=(one.deadline_s, one.deadline_s))])
        ran[one.name] = model, clients
    loop.run(_WARM_S + seconds)
    used = {
        name: sum(batch.work_s for batch in model.batches if batch.started_at >= begin + seconds / 6)
        for name, (model, _) in ran.items()
    }
    total = sum(used.values())
    return {name: _got(model, clients, begin, loop.now, used[name] / total) for name, (model, clients) in ran.items()}


def _got(model: Model, clients: Clients, begin: float, end: float, of_time: float) -> Got:
    calls = [call for call in clients.calls if call.sent_at >= begin and call.ended_at <= end]
    in_time = [call for call in calls if call.in_time]
    took_s = [call.took_s for call in in_time]
    return Got(
        of_time=of_time,
        goodput=sum(call.rows for call in in_time) / (model.capacity * (end - begin)),
        success=len(in_time) / max(len(calls), 1),
        p50_ms=percentile(took_s, 50) * 1000,
        p99_ms=percentile(took_s, 99) * 1000,
    )
