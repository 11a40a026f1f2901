"""Requests that come at random moments, more of them than can be done, each with a deadline."""

from dataclasses import dataclass, field

from benchmarks.simulation.calls import Clients, End, Server, Traffic
from benchmarks.simulation.costs import Cost, affine
from benchmarks.simulation.fifo import Fifo
from benchmarks.simulation.figures import percentile
from benchmarks.simulation.loop import Loop
from benchmarks.simulation.model import Model

FACTORS = (0.5, 0.8, 1.0, 1.5, 2.0, 4.0, 10.0)
SERVERS = ("inferd", "FIFO, bounded, drops expired", "FIFO, bounded", "FIFO")
_WARM_S = 1.0
_RAMP_S = 0.5
#: The bounded queue holds what is done in this time.
_BOUND_S = 0.25
_EXACT = Cost(exact=affine(0.005, 0.0005))


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """What is asked of which model."""

    name: str
    deadline_s: tuple[float, float]
    rows: tuple[int, int] = (1, 1)
    cost: Cost = field(default_factory=lambda: _EXACT)
    max_rows: int = 32
    cancel_share: float = 0.0


MIXES = (
    Mix(name="all 250 ms", deadline_s=(0.25, 0.25)),
    Mix(name="50 to 500 ms", deadline_s=(0.05, 0.5)),
    Mix(name="50 to 500 ms, 1 to 16 rows", deadline_s=(0.05, 0.5), rows=(1, 16)),
    Mix(
        name="50 to 500 ms, noisy runs",
        deadline_s=(0.05, 0.5),
        cost=Cost(exact=affine(0.005, 0.0005), noise=0.1, stall_share=0.01),
    ),
    Mix(name="0.5 to 2 s, runs of 210 ms", deadline_s=(0.5, 2.0), cost=Cost(exact=affine(0.05, 0.02)), max_rows=8),
    Mix(name="20 to 100 ms, runs of 1 ms", deadline_s=(0.02, 0.1), cost=Cost(exact=affine(0.0004, 0.0001)), max_rows=8),
    Mix(name="50 to 500 ms, a tenth cancelled", deadline_s=(0.05, 0.5), cancel_share=0.1),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Overload:
    """What became of an overload. ``goodput`` is the rows answered in time, as a share of the capacity.

    ``admitted_in_time`` is of the requests that were admitted and not withdrawn; ``expired_rows`` the share of the
    rows that ran and expired meanwhile.
    """

    mix: str
    server: str
    factor: float
    goodput: float
    admitted_in_time: float
    expired_rows: float
    p50_ms: float
    p99_ms: float
    ends: dict[str, int]


def overload(mix: Mix, server: str, factor: float, *, seconds: float = 4.0, seed: int = 0) -> Overload:
    """Offer ``factor`` times the capacity for ``seconds``, after a second of half of it."""
    loop = Loop()
    capacity = mix.cost.capacity(mix.max_rows)
    served = _server(mix, server, loop, seed)
    clients = Clients(loop, served, seed)
    steps = [(_WARM_S, 0.5 * capacity), (_RAMP_S + seconds, factor * capacity)]
    traffic = Traffic(steps=steps, rows=mix.rows, deadline_s=mix.deadline_s, cancel_share=mix.cancel_share)
    begin = loop.now + _WARM_S + _RAMP_S
    clients.play([traffic])
    loop.run(_WARM_S + _RAMP_S + seconds)
    end = loop.now
    loop.run()
    return _result(mix, server, factor, clients, served, capacity, begin, end)


def _server(mix: Mix, server: str, loop: Loop, seed: int) -> Server:
    if server == "inferd":
        return Model(loop, mix.cost, max_rows=mix.max_rows, seed=seed)
    bound = None if server == "FIFO" else max(2 * mix.max_rows, int(_BOUND_S * mix.cost.capacity(mix.max_rows)))
    drops = server.endswith("drops expired")
    return Fifo(loop, mix.cost, max_rows=mix.max_rows, bound_rows=bound, drops_expired=drops, seed=seed)


def _result(
    mix: Mix, server: str, factor: float, clients: Clients, served: Server, capacity: float, begin: float, end: float
) -> Overload:
    calls = [call for call in clients.calls if begin <= call.sent_at < end]
    good_rows = sum(call.rows for call in clients.calls if call.in_time and begin <= call.ended_at < end)
    admitted = [call for call in calls if call.admitted_at < call.deadline and call.end is not End.CANCELLED]
    in_time = [call.took_s for call in calls if call.in_time]
    ends: dict[str, int] = {}
    for call in calls:
        name = "late" if call.end is End.OK and not call.in_time else str(call.end)
        ends[name] = ends.get(name, 0) + 1
    return Overload(
        mix=mix.name,
        server=server,
        factor=factor,
        goodput=good_rows / (capacity * (end - begin)),
        admitted_in_time=sum(call.in_time for call in admitted) / max(len(admitted), 1),
        expired_rows=_expired_rows(served, begin, end),
        p50_ms=percentile(in_time, 50) * 1000,
        p99_ms=percentile(in_time, 99) * 1000,
        ends=ends,
    )


def _expired_rows(served: Server, begin: float, end: float) -> float:
    if not isinstance(served, Model):
        return 0.0
    ran = [batch for batch in served.batches if begin <= batch.started_at < end]
    return sum(batch.expired_rows for batch in ran) / max(sum(batch.rows for batch in ran), 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Impossible:
    """Requests that no run can answer in time: how many there were, and how late the last was refused."""

    requests: int
    slowest_s: float


def impossible(factor: float, *, seconds: float = 4.0, seed: int = 0) -> Impossible:
    """Offer ``factor`` times the capacity, and beside it requests whose deadline is shorter than any run."""
    loop = Loop()
    model = Model(loop, _EXACT, max_rows=32, seed=seed)
    clients = Clients(loop, model, seed)
    usual = Traffic(steps=[(_WARM_S, 0.5 * model.capacity), (seconds, factor * model.capacity)], deadline_s=(0.05, 0.5))
    hopeless_s = 0.9 * _EXACT.exact(16)
    hopeless = Traffic(
        steps=[(_WARM_S, 0.0), (seconds, 0.1 * model.capacity)],
        rows=(16, 16),
        deadline_s=(hopeless_s, hopeless_s),
        principal="hopeless",
    )
    clients.play([usual, hopeless])
    loop.run()
    took_s = [call.took_s for call in clients.calls if call.principal == "hopeless"]
    return Impossible(requests=len(took_s), slowest_s=max(took_s))
