"""Goodput, priorities and shares under overload, on a virtual clock with runs of exact cost."""

from statistics import fmean

import pytest

from benchmarks.simulation import cost_model
from benchmarks.simulation.costs import Cost, affine
from benchmarks.simulation.figures import percentile
from benchmarks.simulation.models import Asked, together
from benchmarks.simulation.overload import MIXES, SERVERS, impossible, overload
from benchmarks.simulation.sharing import RUN_S, Principal, principals, priorities, scavenging
from benchmarks.simulation.spike import KINDS, spike

_EXACT = [mix for mix in MIXES if not mix.cost.noise]


@pytest.mark.parametrize("mix", _EXACT, ids=lambda mix: mix.name)
@pytest.mark.parametrize(("factor", "goodput"), [(0.5, 0.4), (2.0, 0.9), (10.0, 0.85)])
def test_goodput_is_near_capacity_and_admitted_requests_are_in_time(mix, factor, goodput):
    """Whatever the deadlines, at ten times the capacity."""
    # A few dozen runs, and about as many requests of each model.
    seconds = max(20 * mix.cost.exact(mix.max_rows), 1500 / mix.cost.capacity(mix.max_rows))
    measured = overload(mix, "inferd", factor, seconds=seconds)
    assert measured.goodput >= goodput
    assert measured.admitted_in_time >= 0.995
    assert measured.expired_rows <= 0.001


def test_fifo_queue_fails_under_the_same_overload():
    """So the scenario shows the effect of the scheduling."""
    for server in SERVERS[1:]:
        assert overload(_EXACT[0], server, 2.0, seconds=1.0).goodput < 0.5


def test_noisy_run_times_cost_little_goodput():
    """With a tenth of noise and one run in a hundred that takes four times as long."""
    noisy = next(mix for mix in MIXES if mix.cost.noise)
    measured = overload(noisy, "inferd", 2.0, seconds=3.0)
    assert measured.goodput >= 0.85
    assert measured.admitted_in_time >= 0.95


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_rejects_late_requests_at_once(factor):
    """Not only when their deadline has passed."""
    assert impossible(factor, seconds=1.0).slowest_s <= 0.01


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_recovers_from_a_spike(kind):
    """The queue delay settles at once, and soon no request is rejected or slow, though clients retry."""
    measured = spike(kind, seed=1)
    assert measured.settles
    assert measured.normal_s <= max(1.0, 10 * kind.run_s)


def test_flood_of_low_priority_does_not_affect_a_high_one():
    """All succeed, and take little longer than on an empty server."""
    alone = priorities(0.1, 0.0, seconds=2.0)["high"]
    flooded = priorities(0.1, 12.0, seconds=2.0)["high"]
    assert flooded.success >= 0.999
    assert flooded.p99_ms <= 1.5 * alone.p99_ms + RUN_S * 1000


def test_low_priority_is_slowed_but_not_starved():
    """It is served throughout an overload of a higher one."""
    shares = priorities(2.0, 0.3, seconds=3.0)
    assert shares["low"].longest_gap_s <= 1.0
    assert 0.01 <= shares["low"].of_capacity <= 0.2
    assert shares["high"].of_capacity >= 0.75


@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 2, 4)])
def test_principals_get_cost_by_weight(weights):
    """Whatever the number of their requests and the rows of each."""
    asked = ((6.0, (1, 1)), (2.0, (8, 8)), (2.0, (1, 16)))
    callers = [
        Principal(name=f"p{number}", demand=demand, rows=rows, weight=weight)
        for number, ((demand, rows), weight) in enumerate(zip(asked, weights, strict=True))
    ]
    used, _ = principals(callers, seconds=3.0)
    for caller in callers:
        assert used[caller.name] * sum(weights) / caller.weight == pytest.approx(1.0, abs=0.05)


def test_principal_below_its_share_is_fully_served():
    """Beside the flood of another one."""
    _, shares = principals([Principal(name="flood", demand=8.0), Principal(name="light", demand=0.1)], seconds=2.0)
    assert shares["light"].success >= 0.999


@pytest.mark.parametrize("apart", [False, True], ids=["one model", "two models"])
@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_scavengers_take_only_idle_time(load, apart):
    """Regular requests wait for one scavenger run at most, on the same model or one that shares its cores."""
    got = scavenging(load, seconds=4.0, apart=apart)
    assert got.online_success >= 0.999
    assert got.beside_p99_ms <= 1.1 * got.alone_p99_ms + RUN_S * 1000
    assert got.of_left >= 0.9


def test_equal_models_get_equal_time():
    """However unequal their load."""
    cost = Cost(exact=affine(0.005, 0.0005))
    asked = [Asked(name=name, cost=cost, max_rows=32, demand=demand) for name, demand in (("a", 2.0), ("b", 8.0))]
    got = together(asked, seconds=2.0)
    for one in got.values():
        assert one.of_time == pytest.approx(0.5, abs=0.025)
        assert one.goodput >= 0.45


@pytest.mark.parametrize("cost", cost_model.COSTS.values(), ids=cost_model.COSTS.keys())
def test_predicts_run_times_after_fifty_batches(cost):
    """Also with steps, noise or occasional stalls."""
    measured = [cost_model.errors(cost, seed=seed) for seed in range(10)]
    found = [error for one in measured for error in one.relative]
    assert percentile(found, 50) <= 0.1
    assert percentile(found, 95) <= 0.25
    assert fmean(one.covered for one in measured) >= 0.9
