"""Batching rules derived from learned run times."""

import pytest

from inferd.batching.adaptive import AdaptiveRules
from inferd.batching.planner import BatchRules

_SET = BatchRules(max_rows=64, max_wait_s=0.01)


def _learned(*, fixed_s, row_s, parallel_runs=2, rules=_SET, sizes=(1, 8, 64)):
    learned = AdaptiveRules(rules, parallel_runs=parallel_runs)
    # Enough runs that no trial is due soon.
    for _ in range(65):
        for rows in sizes:
            learned.ran(rows, fixed_s + rows * row_s)
    return learned


@pytest.mark.parametrize(("fixed_s", "max_wait_s"), [(0.004, 0.004), (0.1, 0.01), (0.0001, 0.0)])
def test_wait_is_bounded_by_the_fixed_cost(fixed_s, max_wait_s):
    """Holding saves the fixed part of a run: never longer than configured, and not at all for a tiny one."""
    assert _learned(fixed_s=fixed_s, row_s=0.001).rules.max_wait_s == pytest.approx(max_wait_s)


def test_learns_no_wait_if_none_is_configured():
    """Whatever the fixed part is."""
    rules = BatchRules(max_rows=64, max_wait_s=0.0)
    assert _learned(fixed_s=0.004, row_s=0.001, rules=rules).rules == rules


@pytest.mark.parametrize(
    ("running", "rows", "requests", "further", "max_rows"),
    [(0, 64, 64, 0, 32), (0, 32, 32, 32, 32), (0, 8, 4, 28, 32), (0, 1, 1, 0, 64), (1, 64, 64, 0, 64)],
)
def test_worker_leaves_half_of_expected_rows_to_an_idle_one(running, rows, requests, further, max_rows):
    """Expected requests count with the mean rows of queued ones; busy workers get nothing."""
    learned = _learned(fixed_s=0.005, row_s=0.0003)
    rules = learned.for_next_batch(running, rows=rows, requests=requests, further=further)
    assert rules.max_rows == max_rows
    assert rules.max_wait_s == learned.rules.max_wait_s


def test_does_not_share_more_than_one_batch():
    """The other workers can take what is left."""
    learned = _learned(fixed_s=0.005, row_s=0.0003)
    assert learned.for_next_batch(0, rows=65, requests=65, further=0) == learned.rules
    assert learned.for_next_batch(0, rows=60, requests=60, further=5) == learned.rules


@pytest.mark.parametrize(("parallel_runs", "running", "max_rows"), [(1, 0, 64), (3, 0, 22), (3, 1, 32), (3, 4, 64)])
def test_shares_are_limited_by_efficient_parallelism(parallel_runs, running, max_rows):
    """Runs outside the queue may raise the number of parallel runs above that."""
    learned = _learned(fixed_s=0.001, row_s=0.001, parallel_runs=parallel_runs)
    assert learned.for_next_batch(running, rows=64, requests=64, further=0).max_rows == max_rows


def test_does_not_share_at_unknown_cost():
    """Runs of a single size do not show what half of it would take."""
    learned = _learned(fixed_s=0.001, row_s=0.001, sizes=(64,))
    assert learned.for_next_batch(0, rows=64, requests=64, further=0).max_rows == 64


def test_does_not_share_short_runs():
    """The poll thread runs them before another thread is awake."""
    learned = _learned(fixed_s=0.0, row_s=0.000_004)
    assert learned.run_cost.short.are_short
    assert learned.for_next_batch(0, rows=100, requests=100, further=0) == learned.rules


def test_rules_are_unchanged_for_an_empty_queue():
    """There are no queued requests to average."""
    learned = _learned(fixed_s=0.001, row_s=0.001)
    assert learned.for_next_batch(0, rows=0, requests=0, further=0) == learned.rules


def _take(learned, times, *, fixed_s, row_s):
    """Have idle workers take 64 rows ``times`` times and learn from the runs; return the rows of each first batch."""
    taken = []
    for _ in range(times):
        taken.append(learned.for_next_batch(0, rows=64, requests=64, further=0).max_rows)
        for _ in range(64 // taken[-1]):
            learned.ran(taken[-1], fixed_s + row_s * taken[-1])
    return taken


def test_trials_restore_sharing_after_a_slow_start():
    """What nearly pays is tried occasionally, and trials outweigh old measurements."""
    learned = _learned(fixed_s=0.014, row_s=0.0002, sizes=(1, 2, 4))
    assert _take(learned, 20, fixed_s=0.005, row_s=0.0003) == [64] * 20
    _take(learned, 600, fixed_s=0.005, row_s=0.0003)
    assert _take(learned, 100, fixed_s=0.005, row_s=0.0003).count(32) > 90


def test_trials_stop_sharing_that_no_longer_pays():
    """A trial occasionally runs all rows in one batch."""
    learned = _learned(fixed_s=0.005, row_s=0.0003)
    assert _take(learned, 100, fixed_s=0.005, row_s=0.0003).count(32) > 90
    _take(learned, 600, fixed_s=0.02, row_s=0.0)
    assert _take(learned, 100, fixed_s=0.02, row_s=0.0).count(64) > 90


def test_one_choice_in_32_is_a_trial():
    """Only cases with a choice count."""
    learned = _learned(fixed_s=0.005, row_s=0.0003)
    assert 300 < _take(learned, 320, fixed_s=0.005, row_s=0.0003).count(32) < 320


def test_model_that_stops_batching_has_no_short_runs():
    """Its run times then depend on more than the number of rows."""
    learned = _learned(fixed_s=0.0001, row_s=0.0)
    assert learned.run_cost.short.are_short
    learned.stop_batching()
    assert not learned.run_cost.short.are_short


def test_fewer_rows_while_there_is_no_memory_for_more():
    """And again as many as at the start, but never more; a model that is not batched any more stays at one."""
    learned = _learned(fixed_s=0.004, row_s=0.001)
    learned.limit_rows(4)
    assert (learned.rules.max_rows, learned.rules.max_wait_s) == (4, pytest.approx(0.004))
    learned.limit_rows(128)
    assert learned.rules.max_rows == 64
    learned.stop_batching()
    learned.limit_rows(32)
    assert learned.rules.max_rows == 1
