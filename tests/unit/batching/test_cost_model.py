"""Learned run costs by number of rows."""

import random

import pytest

from inferd.batching.cost_model import COST, CostModel


def _learn(cost, sizes, *, fixed_s, row_s, runs=64):
    for number in range(runs):
        rows = sizes[number % len(sizes)]
        cost.ran(rows, fixed_s + rows * row_s)


def test_one_size_determines_no_fixed_cost():
    """A line needs two points."""
    cost = CostModel()
    _learn(cost, [8], fixed_s=0.01, row_s=0.001)
    assert cost.fixed_s is None


@pytest.mark.parametrize("sizes", [[1, 64], [1, 3, 9, 40], [32, 64]])
def test_learns_the_fixed_cost(sizes):
    """From any sizes."""
    cost = CostModel()
    _learn(cost, sizes, fixed_s=0.01, row_s=0.001)
    assert cost.fixed_s == pytest.approx(0.01, rel=0.2)


def test_fixed_cost_is_not_negative():
    """A model whose cost per row rises saves nothing by batching."""
    cost = CostModel()
    for _ in range(64):
        cost.ran(1, 0.001)
        cost.ran(8, 0.1)
    assert cost.fixed_s == 0.0


def test_fixed_cost_follows_a_slower_model():
    """As on cores shared with others."""
    cost = CostModel()
    _learn(cost, [1, 64], fixed_s=0.001, row_s=0.0001)
    _learn(cost, [1, 64], fixed_s=0.1, row_s=0.0001, runs=128)
    assert cost.fixed_s == pytest.approx(0.1, rel=0.1)


def test_runs_are_short_after_several_short_runs_of_each_size():
    """With one slow size, none counts as short."""
    cost = CostModel()
    _learn(cost, [1, 64], fixed_s=0.0001, row_s=0.000001, runs=15)
    assert not cost.short.are_short
    _learn(cost, [1, 64], fixed_s=0.0001, row_s=0.000001, runs=17)
    assert cost.short.are_short
    _learn(cost, [64], fixed_s=0.0001, row_s=0.00001)
    assert not cost.short.are_short


def test_one_very_long_run_prevents_short_runs():
    """Some run times depend on input values, and the poll thread relies on short runs."""
    cost = CostModel()
    _learn(cost, [1], fixed_s=0.0001, row_s=0.0)
    cost.ran(1, 5.0)
    assert not cost.short.are_short
    _learn(cost, [1], fixed_s=0.0001, row_s=0.0, runs=9_000)
    assert not cost.short.are_short
    _learn(cost, [1], fixed_s=0.0001, row_s=0.0, runs=2_000)
    assert cost.short.are_short


@pytest.mark.parametrize(("rows", "seconds"), [(1, 0.012), (1, 0.002), (64, 0.002)])
@pytest.mark.parametrize("held_up", [True, False])
def test_ignores_runs_that_waited_for_the_cpu(rows, seconds, held_up):
    """Such as for the GIL. A single long run counts, also of a rare size."""
    cost = CostModel()
    _learn(cost, [1, 64], fixed_s=0.0001, row_s=0.0)
    cost.ran(rows, seconds, 0.0001 if held_up else seconds)
    # Runs of other sizes say nothing about this one.
    _learn(cost, [8], fixed_s=0.0001, row_s=0.0, runs=31)
    assert cost.short.are_short is held_up


def test_runs_that_always_wait_are_not_short():
    """Whatever they wait for, the poll thread must not."""
    cost = CostModel()
    for _ in range(64):
        cost.ran(1, 0.001, 0.00001)
    assert not cost.short.are_short


def test_peak_rate_is_that_of_the_cheapest_size():
    """Also after a period of small batches; unknown before the first run."""
    cost = CostModel()
    assert cost.most_rows_per_s == 0.0
    _learn(cost, [1, 64], fixed_s=0.064, row_s=0.001)
    assert cost.most_rows_per_s == pytest.approx(64 / 0.128)
    _learn(cost, [1, 2], fixed_s=0.064, row_s=0.001, runs=1_000)
    assert cost.most_rows_per_s == pytest.approx(64 / 0.128)
    _learn(cost, [64], fixed_s=0.128, row_s=0.002, runs=128)
    assert cost.most_rows_per_s == pytest.approx(64 / 0.256, rel=0.01), "the cost per row has risen"


def test_unbounded_runs_are_never_short():
    """However short they have been."""
    cost = CostModel(are_bounded=False)
    _learn(cost, [1], fixed_s=0.0001, row_s=0.0, runs=1_000)
    assert not cost.short.are_short


def test_runs_larger_than_any_so_far_are_not_short():
    """Their duration is unknown."""
    cost = CostModel()
    _learn(cost, [1, 5], fixed_s=0.0001, row_s=0.0)
    assert [cost.is_short_of(rows) for rows in (1, 2, 4, 7, 8, 1_000_000)] == [True, False, True, True, False, False]


def test_never_short_is_permanent():
    """Short runs that follow do not change it."""
    cost = CostModel()
    _learn(cost, [1], fixed_s=0.0001, row_s=0.0)
    cost.never_short()
    assert not cost.is_short_of(1)
    _learn(cost, [1], fixed_s=0.0001, row_s=0.0)
    assert not cost.short.are_short


def test_snapshot_has_sizes_runs_and_error():
    """Powers of two and the largest size, the number of runs, and the error due to noise."""
    cost = CostModel()
    assert cost.snapshot(6) is None
    cost.seed(1, 0.001)
    seeded = cost.snapshot(6)
    assert ([each.rows for each in seeded.sizes], seeded.runs, seeded.error) == ([1, 2, 4, 6], 0, None)
    for number in range(300):
        cost.ran(4, 0.009 if number % 2 else 0.011)
    learned = {each.rows: each for each in cost.snapshot(6).sizes}
    assert learned[4].seconds == pytest.approx(0.01, rel=0.05)
    assert 0.0105 < learned[4].p95_s < 0.0125
    assert (cost.snapshot(6).runs, cost.snapshot(6).error) == (300, pytest.approx(0.1, abs=0.03))
    assert [each.rows for each in cost.snapshot(1).sizes] == [1]


def test_predicts_measured_sizes_exactly():
    """Each size up to 7 rows by itself; steps in the cost are not smoothed."""
    cost, steps = CostModel(), {1: 0.004, 2: 0.004, 3: 0.004, 4: 0.004, 5: 0.01, 7: 0.01}
    for _ in range(3):
        for rows, seconds in steps.items():
            cost.ran(rows, seconds)
    assert {rows: cost.predict(rows) for rows in steps} == pytest.approx(steps)


def test_predicts_steps_at_larger_sizes():
    """With padding to 8 rows, each class of sizes keeps its own average."""
    cost = CostModel()
    for _ in range(8):
        for rows in (8, 16, 20, 24, 28, 32):
            cost.ran(rows, 0.01 * -(-rows // 8))
    for rows in (8, 16, 20, 24, 28, 32):
        assert cost.predict(rows) == pytest.approx(0.01 * -(-rows // 8), rel=0.2)


@pytest.mark.parametrize("rows", [3, 5, 10, 23, 40, 63])
def test_interpolates_between_sizes(rows):
    """Linearly between the neighbours."""
    cost = CostModel()
    for size in (1, 8, 64):
        cost.ran(size, 0.01 + size * 0.001)
    assert cost.predict(rows) == pytest.approx(0.01 + rows * 0.001)


def test_extrapolates_to_smaller_sizes():
    """At least the fixed part once that is known; until then, proportional to the rows."""
    cost = CostModel()
    _learn(cost, [8], fixed_s=0.01, row_s=0.001, runs=4)
    assert cost.predict(4) == pytest.approx(0.018)
    _learn(cost, [8, 64], fixed_s=0.01, row_s=0.001)
    assert cost.predict(4) == pytest.approx(0.014, rel=0.1)


def test_extrapolates_to_larger_sizes():
    """By the cost per row once that is known; until then, proportional to the rows."""
    cost = CostModel()
    _learn(cost, [8], fixed_s=0.01, row_s=0.001, runs=4)
    assert cost.predict(16) == pytest.approx(0.036)
    _learn(cost, [1, 8], fixed_s=0.01, row_s=0.001)
    assert cost.predict(64) == pytest.approx(0.074, rel=0.1)


def test_predicts_nothing_without_data():
    """Neither a duration nor an error."""
    cost = CostModel()
    assert (cost.predict(8), cost.upper(8), cost.error, cost.snapshot(8)) == (0.0, 0.0, None, None)


@pytest.mark.parametrize("size", [8, 5])
def test_ignores_one_outlier_and_follows_two(size):
    """One may be due to the machine; two in a row are the new run time. Also for the first runs of a size."""
    cost = CostModel()
    _learn(cost, [1, 8], fixed_s=0.01, row_s=0.0)
    cost.ran(size, 0.1)
    assert cost.predict(size) <= 0.0125
    cost.ran(size, 0.01)
    cost.ran(size, 0.1)
    assert cost.predict(size) <= 0.0125
    cost.ran(size, 0.1)
    assert cost.predict(size) > 0.02
    for _ in range(20):
        cost.ran(size, 0.1)
    assert cost.predict(size) == pytest.approx(0.1, rel=0.1)


def test_first_run_is_no_outlier():
    """There is nothing to compare it with."""
    cost = CostModel()
    cost.ran(8, 0.001)
    cost.ran(8, 0.1)
    assert cost.predict(8) > 0.04


@pytest.mark.parametrize("rows", [2, 5, 30, 100])
def test_first_run_of_a_size_is_compared_with_its_neighbours(rows):
    """The fixed part of its run makes it no outlier, and does not widen the percentile."""
    cost = CostModel()
    _learn(cost, [1, 64], fixed_s=0.01, row_s=0.0001)
    factor = cost.upper(1) / cost.predict(1)
    cost.ran(rows, 0.01 + rows * 0.0001)
    assert cost.predict(rows) == pytest.approx(0.01 + rows * 0.0001, rel=0.02)
    assert cost.upper(1) / cost.predict(1) <= factor


def test_percentile_follows_noise():
    """Within bounds, and never below the prediction."""
    cost, chance = CostModel(), random.Random(1)

    def factor():
        return cost.upper(8) / cost.predict(8)

    assert cost.ran(8, 0.01) or factor() == COST.start_factor
    _learn(cost, [8], fixed_s=0.01, row_s=0.0, runs=500)
    assert factor() == pytest.approx(1.0, abs=0.05)
    for _ in range(500):
        cost.ran(8, chance.uniform(0.005, 0.015))
    assert 1.3 < factor() < 1.8
    _learn(cost, [8], fixed_s=0.01, row_s=0.0, runs=500)
    assert factor() == pytest.approx(1.0, abs=0.05)


def test_percentile_covers_about_19_of_20_runs():
    """Whatever the noise."""
    cost, chance = CostModel(), random.Random(2)
    covered = 0
    for number in range(4000):
        seconds = 0.01 * chance.lognormvariate(0.0, 0.3)
        covered += number >= 2000 and seconds <= cost.upper(8)
        cost.ran(8, seconds)
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)


def test_seeds_are_used_until_the_first_run():
    """The shortest of several, as the first run of a model takes longer; a measured run replaces it."""
    cost = CostModel()
    for seconds in (0.5, 0.02, 0.03):
        cost.seed(8, seconds)
    assert cost.predict(8) == 0.02
    cost.ran(8, 0.1)
    assert cost.predict(8) == pytest.approx(0.1)
    cost.seed(8, 0.001)
    assert cost.predict(8) == pytest.approx(0.1)


def test_prediction_is_certain_after_several_runs():
    """Of the size or of sizes around it; one seed, one run, or sizes on one side are not enough to reject a request."""
    cost = CostModel()
    for _ in range(5):
        cost.seed(4, 0.01)
    assert not cost.is_sure(4, 0.0)
    for number in range(3):
        assert not cost.is_sure(4, 0.0)
        cost.ran(4, 0.01, now=float(number) / 10)
    assert cost.is_sure(4, 0.3)
    assert not cost.is_sure(2, 0.3)
    assert not cost.is_sure(8, 0.3)
    for _ in range(3):
        cost.ran(16, 0.01, now=0.3)
    assert [cost.is_sure(rows, 0.3) for rows in (2, 4, 8, 16, 32)] == [False, True, True, True, False]


@pytest.mark.parametrize(("run_s", "fresh_s"), [(0.01, 1.04), (1.0, 5.0)])
def test_certainty_expires(run_s, fresh_s):
    """After a second and some run times requests are admitted again, and their runs correct the prediction."""
    cost = CostModel()
    for _ in range(4):
        cost.ran(8, run_s, now=100.0)
    for ask in (cost.is_sure, cost.is_current):
        assert ask(8, 100.0 + fresh_s - 0.01)
        assert not ask(8, 100.0 + fresh_s + 0.01)


def test_runs_of_any_size_keep_predictions_current():
    """It matters only that the model runs at all."""
    cost = CostModel()
    cost.ran(8, 0.01, now=100.0)
    cost.ran(1, 0.01, now=105.0)
    assert cost.is_current(8, 106.0)
    assert not cost.is_sure(8, 106.0)


def test_no_prediction_is_sure_if_runs_depend_on_values():
    """Past runs say nothing about the next one, so that none may be the reason to reject a request."""
    cost = CostModel(are_bounded=False)
    for _ in range(64):
        cost.ran(8, 0.01, now=100.0)
    assert not cost.is_sure(8, 100.0)
    assert not cost.is_current(8, 100.0)
