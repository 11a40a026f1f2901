"""The choice of requests for the next batch."""

import math
from collections.abc import Iterator

import pytest

from inferd.batching.planner import BatchRules, Dispatch, WaitUntil, plan, plan_in_time
from tests.fakes import Caller

AT_ONCE = BatchRules(max_rows=8)
HELD = BatchRules(max_rows=8, max_wait_s=0.01)


def _requests(*kinds, enqueued_at=100.0):
    """Requests of ``(rows, key)`` each."""
    made = [Caller(rows=rows, key=key).request for rows, key in kinds]
    for request in made:
        request.enqueued_at = enqueued_at
    return made


def _dispatched(decision):
    assert isinstance(decision, Dispatch)
    return decision.requests


def test_idle_worker_takes_what_is_queued():
    """Without a wait an incomplete batch starts at once, even if more is expected."""
    pending = _requests((1, "a"), (2, "a"))
    assert _dispatched(plan(pending, 100.0, AT_ONCE, further=10)) == pending


def test_does_not_wait_if_nothing_is_expected():
    """A single caller is never delayed."""
    pending = _requests((1, "a"))
    assert _dispatched(plan(pending, 100.0, HELD, further=0)) == pending


@pytest.mark.parametrize(("rules", "further"), [(AT_ONCE, 0), (HELD, 3)])
def test_empty_queue_waits_for_an_arrival(rules, further):
    """Without a time limit."""
    assert plan([], 100.0, rules, further=further) == WaitUntil(time=math.inf, requests=1, rows=1)


def test_counts_rows_not_requests():
    """Three requests of four rows exceed a batch of eight."""
    pending = _requests((4, "a"), (4, "a"), (4, "a"))
    assert _dispatched(plan(pending, 100.0, AT_ONCE, further=0)) == pending[:2]


def test_request_that_does_not_fit_is_skipped():
    """A smaller request further back fills the batch."""
    pending = _requests((5, "a"), (4, "a"), (3, "a"))
    assert _dispatched(plan(pending, 100.0, AT_ONCE, further=0)) == [pending[0], pending[2]]


def test_request_of_another_shape_does_not_close_the_batch():
    """It is planned separately."""
    pending = _requests((1, "a"), (1, "b"), (1, "a"), (1, "b"))
    assert _dispatched(plan(pending, 100.0, AT_ONCE, further=0)) == [pending[0], pending[2]]


def test_request_larger_than_a_batch_runs_alone():
    """It is neither left in the queue nor stacked with others."""
    pending = _requests((20, "a"), (1, "a"))
    assert _dispatched(plan(pending, 100.0, AT_ONCE, further=0)) == [pending[0]]


def test_larger_request_behind_gets_its_own_batch():
    """The batch of the head starts without it."""
    pending = _requests((1, "a"), (20, "a"), (1, "a"))
    assert _dispatched(plan(pending, 100.0, AT_ONCE, further=0)) == [pending[0], pending[2]]


def test_max_rows_of_one_runs_each_request_alone():
    """As without batching, whatever the rows."""
    pending = _requests((3, "a"), (3, "a"))
    assert _dispatched(plan(pending, 100.0, BatchRules(max_rows=1), further=0)) == [pending[0]]


@pytest.mark.parametrize(("rules", "further"), [(AT_ONCE, 0), (HELD, 3)])
def test_planning_stops_at_a_full_batch(rules, further):
    """A queue of thousands is not iterated for a batch of eight."""

    def endless() -> Iterator:
        yield from _requests(*[(1, "a")] * 8)
        raise AssertionError("looked further than needed")

    assert len(_dispatched(plan(endless(), 100.0, rules, further=further))) == 8


def test_holds_incomplete_batch_for_expected_requests():
    """Until the oldest member is as old as the wait, or enough has arrived to complete it."""
    pending = _requests((3, "a"), (1, "a"))
    assert plan(pending, 100.002, HELD, further=5) == WaitUntil(time=100.01, requests=5, rows=4)


def test_wait_starts_with_the_oldest_member():
    """Later arrivals do not extend it."""
    pending = _requests((1, "a")) + _requests((1, "a"), enqueued_at=100.009)
    assert _dispatched(plan(pending, 100.01, HELD, further=5)) == pending


def test_wait_starts_when_a_worker_is_idle():
    """Requests that arrived during a run wait for the callers it answered, who return soon."""
    pending = _requests((1, "a"))
    assert plan(pending, 100.05, HELD, further=5, idle_since=100.05) == WaitUntil(time=100.06, requests=5, rows=7)
    assert _dispatched(plan(pending, 100.06, HELD, further=5, idle_since=100.05)) == pending


def test_oldest_member_need_not_be_the_first():
    """A newcomer of higher priority does not restart the wait."""
    pending = _requests((1, "a"), enqueued_at=100.009) + _requests((1, "a"))
    assert _dispatched(plan(pending, 100.01, HELD, further=5)) == pending


def test_does_not_hold_complete_batch():
    """It has no room for expected requests."""
    pending = _requests((8, "a"))
    assert _dispatched(plan(pending, 100.0, HELD, further=5)) == pending


def test_does_not_hold_batch_that_leaves_requests_behind():
    """What it would wait for is queued already."""
    pending = _requests((5, "a"), (5, "a"))
    assert _dispatched(plan(pending, 100.0, HELD, further=5)) == pending[:1]


def test_held_batch_does_not_delay_a_ready_one():
    """The head waits for requests of its shape while a complete batch of another shape starts."""
    pending = _requests((1, "a"), (8, "b"))
    assert _dispatched(plan(pending, 100.0, HELD, further=5)) == [pending[1]]


def test_first_of_two_ready_batches_has_the_head_of_the_queue():
    """Both have waited long enough."""
    pending = _requests((1, "b"), (1, "a"), enqueued_at=99.0)
    assert _dispatched(plan(pending, 100.0, HELD, further=5)) == [pending[0]]


def test_waits_for_the_earliest_of_several_held_batches():
    """And for the smallest gap that an arrival could fill."""
    pending = _requests((6, "a"), enqueued_at=100.004) + _requests((1, "b"))
    assert plan(pending, 100.005, HELD, further=5) == WaitUntil(time=100.01, requests=5, rows=2)


def _preferring(*sizes, max_wait_s=0.0):
    return BatchRules(max_rows=8, max_wait_s=max_wait_s, preferred=frozenset(sizes))


def test_takes_the_largest_preferred_size_at_once():
    """The rest is left for the next batch; without such a size everything runs."""
    pending = _requests(*[(1, "a")] * 7)
    assert plan(pending, 100.0, _preferring(2, 4)) == Dispatch(pending[:4], 4)
    assert plan(pending, 100.0, _preferring(8)) == Dispatch(pending, 7)


def test_preferred_sizes_count_rows():
    """Requests of several rows may pass a size by."""
    pending = _requests((3, "a"), (3, "a"), (1, "a"))
    assert plan(pending, 100.0, _preferring(2, 3, 5)) == Dispatch(pending[:1], 3)
    assert plan(pending, 100.0, _preferring(2, 5)) == Dispatch(pending, 7)


def test_preferred_size_is_not_held():
    """Even if more is expected; the size may be of a group that does not have the head of the queue."""
    rules = _preferring(3, max_wait_s=0.01)
    pending = _requests(*[(1, "a")] * 4)
    assert plan(pending, 100.0, rules, further=5) == Dispatch(pending[:3], 3)
    pending = _requests((1, "b"), (1, "a"), (2, "a"))
    assert plan(pending, 100.0, rules, further=5) == Dispatch(pending[1:], 3)


def test_other_sizes_are_held_until_the_next_preferred_one():
    """And run whole when they have waited long enough."""
    rules = _preferring(4, 6, max_wait_s=0.01)
    pending = _requests((1, "a"), (2, "a"))
    assert plan(pending, 100.005, rules, further=5) == WaitUntil(time=100.01, requests=5, rows=1)
    assert plan(pending, 100.01, rules, further=5) == Dispatch(pending, 3)
    five = _requests((2, "a"), (3, "a"))
    assert plan(five, 100.005, rules, further=5) == WaitUntil(time=100.01, requests=5, rows=1)


def test_full_batch_is_not_held_for_a_preferred_size():
    """Which it has passed by."""
    pending = _requests((3, "a"), (5, "a"))
    assert plan(pending, 100.0, _preferring(4, max_wait_s=0.01), further=5) == Dispatch(pending, 8)


def _due(*deadlines, rows=1, key="a"):
    return [Caller(rows=rows, key=key, deadline=deadline).request for deadline in deadlines]


def _in_time(pending, rules=AT_ONCE, row_s=1.0):
    """Plan at time 100 with runs that take ``row_s`` for each row."""
    return _dispatched(plan_in_time(pending, rules, lambda rows: 100.0 + rows * row_s))


def test_batch_meets_the_deadlines_of_its_requests():
    """It is not filled beyond what its most urgent request allows."""
    pending = _due(103.0, 109.0, 110.0, 111.0, 112.0)
    assert _in_time(pending) == pending[:3]


def test_request_that_would_be_late_is_left_for_the_next_batch():
    """It is first there and may be in time; those behind it may still join."""
    pending = _due(110.0, 111.0, 102.5, 112.0)
    assert _in_time(pending) == [pending[0], pending[1], pending[3]]


def test_head_that_is_late_anyway_does_not_limit_the_batch():
    """It runs all the same, in a batch as full as the others allow."""
    pending = _due(100.5, 104.0, 109.0, 109.0, 109.0)
    assert _in_time(pending) == pending[:4]


def test_planning_by_deadline_stops_when_the_batch_cannot_grow():
    """A long queue is not iterated for requests that would all make the batch too long."""

    def endless() -> Iterator:
        yield from _due(102.0, 110.0, 110.0)
        raise AssertionError("looked further than needed")

    assert len(_in_time(endless())) == 2


def test_distant_deadlines_do_not_affect_planning():
    """Full, of requests that can be stacked, with smaller ones in place of one that does not fit."""
    pending = [*_requests((5, "a"), (4, "a"), (1, "b"), (2, "a"), (1, "a"), (1, "a"))]
    assert _in_time(pending) == [pending[0], pending[3], pending[4]]
    assert _in_time(pending, BatchRules(max_rows=1)) == pending[:1]
    assert plan_in_time([], AT_ONCE, lambda rows: 100.0) == WaitUntil(time=math.inf, requests=1, rows=1)


def test_deadlines_count_all_rows_of_a_request():
    """Two of three rows take six seconds."""
    pending = _due(105.0, 110.0, rows=3)
    assert _in_time(pending) == pending[:1]
    assert _in_time(pending, row_s=0.5) == pending
