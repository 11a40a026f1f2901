"""Rules that follow from how long runs take."""

import pytest

from inferd.batching.adaptive import AdaptiveRules
from inferd.batching.planner import BatchRules

_SET = BatchRules(max_rows=64, max_wait_s=0.01)


def _learned(*, fixed_s, row_s, parallel_runs=2, rules=_SET, sizes=(1, 8, 64)):
    learned = AdaptiveRules(rules, parallel_runs=parallel_runs)
    # So that the next trial is some time away.
    for _ in range(65):
        for rows in sizes:
            learned.ran(rows, fixed_s + rows * row_s)
    return learned


@pytest.mark.parametrize(("fixed_s", "max_wait_s"), [(0.004, 0.004), (0.1, 0.01), (0.0001, 0.0)])
def test_a_batch_is_held_for_what_that_saves(fixed_s, max_wait_s):
    """Which is the fixed part of a run: never longer than was set, and not at all for next to nothing."""
    assert _learned(fixed_s=fixed_s, row_s=0.001).rules.max_wait_s == pytest.approx(max_wait_s)


def test_where_no_wait_is_set_none_is_learned():
    """Whatever it would save."""
    rules = BatchRules(max_rows=64, max_wait_s=0.0)
    assert _learned(fixed_s=0.004, row_s=0.001, rules=rules).rules == rules


@pytest.mark.parametrize(
    ("running", "rows", "requests", "further", "max_rows"),
    [(0, 64, 64, 0, 32), (0, 32, 32, 32, 32), (0, 8, 4, 28, 32), (0, 1, 1, 0, 64), (1, 64, 64, 0, 64)],
)
def test_a_worker_leaves_an_idle_one_half_of_what_is_expected(running, rows, requests, further, max_rows):
    """Those who are to come count with as many rows as those who wait have; a busy worker gets nothing."""
    learned = _learned(fixed_s=0.005, row_s=0.0003)
    rules = learned.for_next_batch(running, rows=rows, requests=requests, further=further)
    assert rules.max_rows == max_rows
    assert rules.max_wait_s == learned.rules.max_wait_s


def test_more_than_one_batch_can_have_is_not_shared():
    """The others have something to take then."""
    learned = _learned(fixed_s=0.005, row_s=0.0003)
    assert learned.for_next_batch(0, rows=65, requests=65, further=0) == learned.rules
    assert learned.for_next_batch(0, rows=60, requests=60, further=5) == learned.rules


@pytest.mark.parametrize(("parallel_runs", "running", "max_rows"), [(1, 0, 64), (3, 0, 22), (3, 1, 32), (3, 4, 64)])
def test_only_so_many_share_as_run_at_the_same_time_without_loss(parallel_runs, running, max_rows):
    """Runs outside the queue may make it more than that."""
    learned = _learned(fixed_s=0.001, row_s=0.001, parallel_runs=parallel_runs)
    assert learned.for_next_batch(running, rows=64, requests=64, further=0).max_rows == max_rows


def test_nothing_is_shared_while_the_cost_is_unknown():
    """Runs of one size do not tell what half of them would take."""
    learned = _learned(fixed_s=0.001, row_s=0.001, sizes=(64,))
    assert learned.for_next_batch(0, rows=64, requests=64, further=0).max_rows == 64


def test_short_runs_are_not_shared():
    """The poll thread has done them before another thread is awake."""
    learned = _learned(fixed_s=0.0, row_s=0.000_004)
    assert learned.run_cost.is_short
    assert learned.for_next_batch(0, rows=100, requests=100, further=0) == learned.rules


def test_an_idle_worker_with_nothing_to_take_has_the_rules_as_they_are():
    """Nobody waits whose rows could be counted."""
    learned = _learned(fixed_s=0.001, row_s=0.001)
    assert learned.for_next_batch(0, rows=0, requests=0, further=0) == learned.rules


def _take(learned, times, *, fixed_s, row_s):
    """What was taken of 64 rows by two idle workers, so many times, and learned from."""
    taken = []
    for _ in range(times):
        taken.append(learned.for_next_batch(0, rows=64, requests=64, further=0).max_rows)
        for _ in range(64 // taken[-1]):
            learned.ran(taken[-1], fixed_s + row_s * taken[-1])
    return taken


def test_a_slow_start_does_not_keep_rows_together_for_ever():
    """What nearly pays is tried now and then, and what the trials show counts more than what was long ago."""
    learned = _learned(fixed_s=0.014, row_s=0.0002, sizes=(1, 2, 4))
    assert _take(learned, 20, fixed_s=0.005, row_s=0.0003) == [64] * 20
    _take(learned, 600, fixed_s=0.005, row_s=0.0003)
    assert _take(learned, 100, fixed_s=0.005, row_s=0.0003).count(32) > 90


def test_a_share_that_pays_no_longer_is_found_out():
    """A trial runs all rows in one now and then."""
    learned = _learned(fixed_s=0.005, row_s=0.0003)
    assert _take(learned, 100, fixed_s=0.005, row_s=0.0003).count(32) > 90
    _take(learned, 600, fixed_s=0.02, row_s=0.0)
    assert _take(learned, 100, fixed_s=0.02, row_s=0.0).count(64) > 90


def test_trials_are_few():
    """One in 32 times that there is a choice."""
    learned = _learned(fixed_s=0.005, row_s=0.0003)
    assert 300 < _take(learned, 320, fixed_s=0.005, row_s=0.0003).count(32) < 320


def test_a_model_whose_requests_must_run_alone_has_no_short_runs_any_longer():
    """What was taken for rows is none: how long a run takes follows from something else."""
    learned = _learned(fixed_s=0.0001, row_s=0.0)
    assert learned.run_cost.is_short
    learned.stop_batching()
    assert not learned.run_cost.is_short
