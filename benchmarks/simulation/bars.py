"""What the scenarios must show: each bar with the figure that was measured for it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean

from benchmarks.simulation import cost_model
from benchmarks.simulation.costs import Cost, affine
from benchmarks.simulation.figures import percentile
from benchmarks.simulation.instances import Machine, day, step
from benchmarks.simulation.models import Asked, together
from benchmarks.simulation.overload import MIXES, Overload, impossible, overload
from benchmarks.simulation.sharing import (
    RUN_S,
    Principal,
    principals,
    priorities,
    scavenging,
)
from benchmarks.simulation.spike import KINDS, Spike, spike

_GOODPUT = {1.0: 0.9, 2.0: 0.9, 4.0: 0.875, 10.0: 0.85}
_IN_TIME = 0.995
_EXPIRED_ROWS = 0.001
_REFUSED_S = 0.01
_NORMAL_S = 1.0
_EQUAL = 0.05
_MOST = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar: ``holds`` where ``figure`` meets it."""

    scenario: str
    measure: str
    figure: str
    bar: str
    holds: bool


def _at_least(scenario: str, measure: str, value: float, bar: float) -> Bar:
    return Bar(scenario=scenario, measure=measure, figure=f"{value:.2%}", bar=f"≥ {bar:.1%}", holds=value >= bar)


def _at_most(scenario: str, measure: str, value: float, bar: float) -> Bar:
    return Bar(scenario=scenario, measure=measure, figure=f"{value:.3%}", bar=f"≤ {bar:.1%}", holds=value <= bar)


def _seconds(scenario: str, measure: str, value_s: float, bar_s: float) -> Bar:
    figure, bar = f"{value_s * 1000:.1f} ms", f"≤ {bar_s * 1000:.1f} ms"
    return Bar(scenario=scenario, measure=measure, figure=figure, bar=bar, holds=value_s <= bar_s)


def overload_bars(measured: Sequence[Overload]) -> Iterator[Bar]:
    """Goodput, admitted requests in time, and rows that expired in runs."""
    for one in measured:
        scenario = f"{one.mix}, {one.factor:g}x"
        if one.factor in _GOODPUT:
            yield _at_least(scenario, "goodput of capacity", one.goodput, _GOODPUT[one.factor])
        yield _at_least(scenario, "admitted in time", one.admitted_in_time, _IN_TIME)
        yield _at_most(scenario, "rows that expired in runs", one.expired_rows, _EXPIRED_ROWS)


def measure_overload(server: str, factors: Sequence[float], *, seconds: float = 4.0) -> list[Overload]:
    """Overload ``server`` with every mix."""
    return [overload(mix, server, factor, seconds=seconds) for mix, factor in product(MIXES, factors)]


def impossible_bars() -> Iterator[Bar]:
    """How long it takes to refuse what cannot be done in time."""
    for factor in (0.5, 2.0):
        refused = impossible(factor)
        yield _seconds(f"impossible deadlines, {factor:g}x", "slowest refusal", refused.slowest_s, _REFUSED_S)


def spike_bars(measured: Sequence[Spike]) -> Iterator[Bar]:
    """How soon the queue delay settles, and when all is normal after the spike."""
    for kind in KINDS:
        own = [one for one in measured if one.kind is kind]
        if own:
            settled = max(one.settled_s for one in own)
            yield _seconds(f"spike, {kind.name}", "slowest settling", settled, max(10 * kind.run_s, 0.2))
            normal = max(one.normal_s for one in own)
            yield _seconds(
                f"spike, {kind.name}", f"slowest return of {len(own)}", normal, max(10 * kind.run_s, _NORMAL_S)
            )


def measure_spikes(seeds: int) -> list[Spike]:
    """Play every kind of spike with ``seeds`` seeds."""
    return [spike(kind, seed) for kind, seed in product(KINDS, range(seeds))]


def sharing_bars() -> Iterator[Bar]:
    """Priorities, principals and the scavenger."""
    alone = priorities(0.1, 0.0)["high"]
    flooded = priorities(0.1, 12.0)["high"]
    yield _at_least("high in 12x of low", "success", flooded.success, 0.999)
    yield _seconds("high in 12x of low", "p99", flooded.p99_ms / 1000, 1.5 * alone.p99_ms / 1000 + RUN_S)
    low = priorities(2.0, 0.3)["low"]
    yield _seconds("low in 2x of high", "longest time without an answer", low.longest_gap_s, 1.0)
    for name, callers in PRINCIPALS.items():
        used, _ = principals(callers)
        total = sum(caller.weight for caller in callers)
        worst = max(abs(used[caller.name] * total / caller.weight - 1) for caller in callers)
        yield _at_most(name, "worst share of cost, off by", worst, _EQUAL)
    _, shares = principals([Principal(name="a", demand=8.0), Principal(name="b", demand=0.1)])
    yield _at_least("10 % beside a flood of an equal", "success", shares["b"].success, 0.999)
    for load, apart in product((0.3, 0.5, 0.7), (False, True)):
        got = scavenging(load, apart=apart)
        limit_s = 1.1 * got.alone_p99_ms / 1000 + RUN_S
        scenario = f"scavenger beside {load:.0%}" + (" of another model" if apart else "")
        yield _seconds(scenario, "online p99", got.beside_p99_ms / 1000, limit_s)
        yield _at_least(scenario, "of what is left", got.of_left, 0.9)


def model_bars() -> Iterator[Bar]:
    """Models whose runs compete for the processors."""
    equal = Cost(exact=affine(0.005, 0.0005))
    for name, demands in {"2 equal models": (2.0, 10.0), "3 equal models": (1.0, 2.0, 6.0)}.items():
        asked = [Asked(name=f"m{number}", cost=equal, max_rows=32, demand=one) for number, one in enumerate(demands)]
        got = together(asked)
        worst = max(abs(one.of_time * len(asked) - 1) for one in got.values())
        yield _at_most(name, "worst share of time, off by", worst, _EQUAL)
    light, flood = (Asked(name=name, cost=equal, max_rows=32, demand=one) for name, one in (("a", 0.1), ("b", 5.0)))
    yield _at_least("10 % beside a flooded model", "success", together([light, flood])["a"].success, 0.999)


_DAY_CHANGES = 10
_DAY_S = 7200.0
_SLOWER_AFTER_STEP = 1.25


def instance_bars(seeds: int = 3) -> Iterator[Bar]:
    """Instances that follow the load."""
    for seed in range(seeds):
        counts = [change.count for _, change in day(Cost(exact=affine(0.4, 0.0)), seconds=_DAY_S, peak=2.6, seed=seed)]
        figure = f"{len(counts)} changes, up to {max(counts)}, {counts[-1]} at last"
        holds = len(counts) <= _DAY_CHANGES and max(counts) == _MOST and counts[-1] == 1
        bar = f"≤ {_DAY_CHANGES} changes, up to {_MOST}, 1 at last"
        yield Bar(scenario=f"a day, {seed}", measure="instances", figure=figure, bar=bar, holds=holds)
    models = {"unbatched": (Cost(exact=affine(0.05, 0.0)), 1), "batched": (Cost(exact=affine(0.005, 0.0005)), 32)}
    for (name, (cost, max_rows)), seed in product(models.items(), range(seeds)):
        following, fixed = (
            step(Machine(least=least, most=_MOST), cost, max_rows=max_rows, load=0.8, seed=seed) for least in (1, _MOST)
        )
        limit_s = _SLOWER_AFTER_STEP * fixed.p99(10, 40) * fixed.run_s
        yield _seconds(f"a step, {name}, {seed}", "p99 ten runs later", following.p99(10, 40) * fixed.run_s, limit_s)


PRINCIPALS = {
    "3 equal principals": (
        Principal(name="a", demand=6.0),
        Principal(name="b", demand=1.5, rows=(8, 8)),
        Principal(name="c", demand=1.0, rows=(1, 16)),
    ),
    "3 principals weighing 1, 2, 4": (
        Principal(name="a", demand=2.0),
        Principal(name="b", demand=2.0, weight=2.0),
        Principal(name="c", demand=2.0, weight=4.0),
    ),
}


def cost_bars(seeds: int = 20) -> Iterator[Bar]:
    """How far predictions are from costs."""
    for name, cost in cost_model.COSTS.items():
        measured = [cost_model.errors(cost, seed=seed) for seed in range(seeds)]
        found = [error for one in measured for error in one.relative]
        yield _at_most(f"cost model, {name}", "median error", percentile(found, 50), 0.1)
        yield _at_most(f"cost model, {name}", "95th percentile of errors", percentile(found, 95), 0.25)
        covered = fmean(one.covered for one in measured)
        yield _at_least(f"cost model, {name}", "runs within the 95th percentile", covered, 0.9)
