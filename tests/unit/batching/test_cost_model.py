"""What a run costs whatever its size."""

import random

import pytest

from inferd.batching.cost_model import COST, CostModel


def _learn(cost, sizes, *, fixed_s, row_s, runs=64):
    for number in range(runs):
        rows = sizes[number % len(sizes)]
        cost.ran(rows, fixed_s + rows * row_s)


def test_nothing_is_known_from_runs_of_one_size():
    """One point makes no line."""
    cost = CostModel()
    _learn(cost, [8], fixed_s=0.01, row_s=0.001)
    assert cost.fixed_s is None


@pytest.mark.parametrize("sizes", [[1, 64], [1, 3, 9, 40], [32, 64]])
def test_the_fixed_part_is_found(sizes):
    """Whatever sizes there were."""
    cost = CostModel()
    _learn(cost, sizes, fixed_s=0.01, row_s=0.001)
    assert cost.fixed_s == pytest.approx(0.01, rel=0.2)


def test_it_is_never_below_nothing():
    """A model that gets slower with each row saves nothing by batches."""
    cost = CostModel()
    for _ in range(64):
        cost.ran(1, 0.001)
        cost.ran(8, 0.1)
    assert cost.fixed_s == 0.0


def test_it_follows_a_model_that_gets_slower():
    """As on cores that others use as well."""
    cost = CostModel()
    _learn(cost, [1, 64], fixed_s=0.001, row_s=0.0001)
    _learn(cost, [1, 64], fixed_s=0.1, row_s=0.0001, runs=128)
    assert cost.fixed_s == pytest.approx(0.1, rel=0.1)


def test_runs_are_short_once_some_of_each_size_were():
    """A slow size is enough for none to count as short."""
    cost = CostModel()
    _learn(cost, [1, 64], fixed_s=0.0001, row_s=0.000001, runs=15)
    assert not cost.is_short
    _learn(cost, [1, 64], fixed_s=0.0001, row_s=0.000001, runs=17)
    assert cost.is_short
    _learn(cost, [64], fixed_s=0.0001, row_s=0.00001)
    assert not cost.is_short


def test_one_very_long_run_is_not_soon_forgotten():
    """The run time of some models depends on input values, and the poll thread must be able to rely on short runs."""
    cost = CostModel()
    _learn(cost, [1], fixed_s=0.0001, row_s=0.0)
    cost.ran(1, 5.0)
    assert not cost.is_short
    _learn(cost, [1], fixed_s=0.0001, row_s=0.0, runs=9_000)
    assert not cost.is_short
    _learn(cost, [1], fixed_s=0.0001, row_s=0.0, runs=2_000)
    assert cost.is_short


@pytest.mark.parametrize(("rows", "seconds"), [(1, 0.012), (1, 0.002), (64, 0.002)])
@pytest.mark.parametrize("held_up", [True, False])
def test_a_run_that_was_held_up_says_nothing_of_the_model(rows, seconds, held_up):
    """Its thread waited, for Python's lock as it may be. A long one by itself counts, also of a size that is rare."""
    cost = CostModel()
    _learn(cost, [1, 64], fixed_s=0.0001, row_s=0.0)
    cost.ran(rows, seconds, 0.0001 if held_up else seconds)
    # Those of the other sizes tell nothing of this one.
    _learn(cost, [8], fixed_s=0.0001, row_s=0.0, runs=31)
    assert cost.is_short is held_up


def test_runs_that_are_held_up_all_the_time_are_not_short():
    """Whatever it is that they wait for, the poll thread must not."""
    cost = CostModel()
    for _ in range(64):
        cost.ran(1, 0.001, 0.00001)
    assert not cost.is_short


def test_it_knows_what_a_worker_can_do_at_its_best():
    """As of the size that is cheapest by the row, also after a time of small batches; not before the first run."""
    cost = CostModel()
    assert cost.most_rows_per_s == 0.0
    _learn(cost, [1, 64], fixed_s=0.064, row_s=0.001)
    assert cost.most_rows_per_s == pytest.approx(64 / 0.128)
    _learn(cost, [1, 2], fixed_s=0.064, row_s=0.001, runs=1_000)
    assert cost.most_rows_per_s == pytest.approx(64 / 0.128)
    _learn(cost, [64], fixed_s=0.128, row_s=0.002, runs=128)
    assert cost.most_rows_per_s == pytest.approx(64 / 0.256, rel=0.01), "rows have become more expensive"


def test_runs_that_may_be_of_any_length_are_never_short():
    """However short those were that there have been."""
    cost = CostModel(are_bounded=False)
    _learn(cost, [1], fixed_s=0.0001, row_s=0.0, runs=1_000)
    assert not cost.is_short


def test_runs_are_short_of_no_more_rows_than_there_have_been():
    """What a larger one takes is not known."""
    cost = CostModel()
    _learn(cost, [1, 5], fixed_s=0.0001, row_s=0.0)
    assert [cost.is_short_of(rows) for rows in (1, 2, 4, 7, 8, 1_000_000)] == [True, False, True, True, False, False]


def test_a_model_that_turns_out_to_be_another_is_not_short_any_longer():
    """Nor becomes so again."""
    cost = CostModel()
    _learn(cost, [1], fixed_s=0.0001, row_s=0.0)
    cost.never_short()
    assert not cost.is_short_of(1)
    _learn(cost, [1], fixed_s=0.0001, row_s=0.0)
    assert not cost.is_short


def test_snapshot_says_how_sure_it_is():
    """Powers of two and the largest size, the number of runs, and the error that noise leaves."""
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


def test_sizes_that_have_run_are_predicted_as_they_were():
    """Each by itself, up to 7 rows; a model with steps in its cost is not smoothed."""
    cost, steps = CostModel(), {1: 0.004, 2: 0.004, 3: 0.004, 4: 0.004, 5: 0.01, 7: 0.01}
    for _ in range(3):
        for rows, seconds in steps.items():
            cost.ran(rows, seconds)
    assert {rows: cost.predict(rows) for rows in steps} == pytest.approx(steps)


def test_steps_show_in_larger_sizes_as_well():
    """Padding to 8 rows: each class of sizes keeps its own average."""
    cost = CostModel()
    for _ in range(8):
        for rows in (8, 16, 20, 24, 28, 32):
            cost.ran(rows, 0.01 * -(-rows // 8))
    for rows in (8, 16, 20, 24, 28, 32):
        assert cost.predict(rows) == pytest.approx(0.01 * -(-rows // 8), rel=0.2)


@pytest.mark.parametrize("rows", [3, 5, 10, 23, 40, 63])
def test_sizes_between_others_are_interpolated(rows):
    """On a straight line between the neighbours."""
    cost = CostModel()
    for size in (1, 8, 64):
        cost.ran(size, 0.01 + size * 0.001)
    assert cost.predict(rows) == pytest.approx(0.01 + rows * 0.001)


def test_a_size_below_all_others_takes_the_fixed_part_at_least():
    """Once that is known; until then it is proportional to the rows."""
    cost = CostModel()
    _learn(cost, [8], fixed_s=0.01, row_s=0.001, runs=4)
    assert cost.predict(4) == pytest.approx(0.018)
    _learn(cost, [8, 64], fixed_s=0.01, row_s=0.001)
    assert cost.predict(4) == pytest.approx(0.014, rel=0.1)


def test_a_size_above_all_others_takes_as_much_more_as_its_rows():
    """The part per row for each, once that is known; until then all of a run counts as part of its rows."""
    cost = CostModel()
    _learn(cost, [8], fixed_s=0.01, row_s=0.001, runs=4)
    assert cost.predict(16) == pytest.approx(0.036)
    _learn(cost, [1, 8], fixed_s=0.01, row_s=0.001)
    assert cost.predict(64) == pytest.approx(0.074, rel=0.1)


def test_nothing_is_predicted_before_anything_is_known():
    """Neither a duration nor how far off it would be."""
    cost = CostModel()
    assert (cost.predict(8), cost.upper(8), cost.error, cost.snapshot(8)) == (0.0, 0.0, None, None)


@pytest.mark.parametrize("size", [8, 5])
def test_one_outlier_is_not_believed_and_two_are(size):
    """One was held up by the machine; two in a row are what runs take now. Also for the first runs of a size."""
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


def test_first_runs_are_believed_however_long_they_are():
    """Nothing is known yet that they could be compared with."""
    cost = CostModel()
    cost.ran(8, 0.001)
    cost.ran(8, 0.1)
    assert cost.predict(8) > 0.04


@pytest.mark.parametrize("rows", [2, 5, 30, 100])
def test_the_first_run_of_a_size_is_compared_with_its_neighbours(rows):
    """It is no outlier because of the fixed part of its run, and does not make the percentile wider."""
    cost = CostModel()
    _learn(cost, [1, 64], fixed_s=0.01, row_s=0.0001)
    factor = cost.upper(1) / cost.predict(1)
    cost.ran(rows, 0.01 + rows * 0.0001)
    assert cost.predict(rows) == pytest.approx(0.01 + rows * 0.0001, rel=0.02)
    assert cost.upper(1) / cost.predict(1) <= factor


def test_the_percentile_gets_wider_with_noise_and_narrower_without():
    """Within bounds, so that it never is below the prediction."""
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


def test_the_percentile_covers_about_19_of_20_runs():
    """Whatever the noise."""
    cost, chance = CostModel(), random.Random(2)
    covered = 0
    for number in range(4000):
        seconds = 0.01 * chance.lognormvariate(0.0, 0.3)
        covered += number >= 2000 and seconds <= cost.upper(8)
        cost.ran(8, seconds)
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)


def test_seeds_are_used_until_the_first_run():
    """The shortest of several, as the first run of a model takes longer; a run replaces it altogether."""
    cost = CostModel()
    for seconds in (0.5, 0.02, 0.03):
        cost.seed(8, seconds)
    assert cost.predict(8) == 0.02
    cost.ran(8, 0.1)
    assert cost.predict(8) == pytest.approx(0.1)
    cost.seed(8, 0.001)
    assert cost.predict(8) == pytest.approx(0.1)


def test_a_prediction_is_sure_after_several_runs_of_the_size_or_around_it():
    """One seed or run, or sizes on one side only, are not enough to reject a request."""
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
def test_a_prediction_is_sure_for_a_second_and_some_run_times(run_s, fresh_s):
    """After that requests are admitted again, and the runs they need correct the prediction."""
    cost = CostModel()
    for _ in range(4):
        cost.ran(8, run_s, now=100.0)
    for ask in (cost.is_sure, cost.is_current):
        assert ask(8, 100.0 + fresh_s - 0.01)
        assert not ask(8, 100.0 + fresh_s + 0.01)


def test_runs_of_any_size_keep_predictions_current():
    """Whether the model runs at all is what counts."""
    cost = CostModel()
    cost.ran(8, 0.01, now=100.0)
    cost.ran(1, 0.01, now=105.0)
    assert cost.is_current(8, 106.0)
    assert not cost.is_sure(8, 106.0)
