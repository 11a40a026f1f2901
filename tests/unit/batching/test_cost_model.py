"""What a run costs whatever its size."""

import pytest

from inferd.batching.cost_model import CostModel


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
