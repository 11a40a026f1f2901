"""Which requests make the next batch."""

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


def test_an_idle_worker_takes_what_is_there():
    """Without a wait an incomplete batch goes at once, even if more is expected."""
    pending = _requests((1, "a"), (2, "a"))
    assert _dispatched(plan(pending, 100.0, AT_ONCE, further=10)) == pending


def test_nobody_is_waited_for_when_nobody_is_expected():
    """A caller alone never pays the wait."""
    pending = _requests((1, "a"))
    assert _dispatched(plan(pending, 100.0, HELD, further=0)) == pending


@pytest.mark.parametrize(("rules", "further"), [(AT_ONCE, 0), (HELD, 3)])
def test_nothing_pending_waits_for_the_first_request(rules, further):
    """There is no time to wait for, only an arrival."""
    assert plan([], 100.0, rules, further=further) == WaitUntil(time=math.inf, requests=1, rows=1)


def test_rows_are_counted_not_requests():
    """Three requests of four rows do not make a batch of eight."""
    pending = _requests((4, "a"), (4, "a"), (4, "a"))
    assert _dispatched(plan(pending, 100.0, AT_ONCE, further=0)) == pending[:2]


def test_one_that_does_not_fit_does_not_hold_up_those_behind_it():
    """A smaller request further back fills the batch."""
    pending = _requests((5, "a"), (4, "a"), (3, "a"))
    assert _dispatched(plan(pending, 100.0, AT_ONCE, further=0)) == [pending[0], pending[2]]


def test_one_that_cannot_be_stacked_does_not_close_the_batch():
    """Another shape at the head's heels is planned apart."""
    pending = _requests((1, "a"), (1, "b"), (1, "a"), (1, "b"))
    assert _dispatched(plan(pending, 100.0, AT_ONCE, further=0)) == [pending[0], pending[2]]


def test_a_request_larger_than_a_batch_goes_alone():
    """It is neither left forever nor stacked with others."""
    pending = _requests((20, "a"), (1, "a"))
    assert _dispatched(plan(pending, 100.0, AT_ONCE, further=0)) == [pending[0]]


def test_a_larger_request_behind_is_left_for_its_own_batch():
    """The head's batch goes without it."""
    pending = _requests((1, "a"), (20, "a"), (1, "a"))
    assert _dispatched(plan(pending, 100.0, AT_ONCE, further=0)) == [pending[0], pending[2]]


def test_max_rows_of_one_runs_each_request_alone():
    """Batching that is off, whatever the rows."""
    pending = _requests((3, "a"), (3, "a"))
    assert _dispatched(plan(pending, 100.0, BatchRules(max_rows=1), further=0)) == [pending[0]]


@pytest.mark.parametrize(("rules", "further"), [(AT_ONCE, 0), (HELD, 3)])
def test_planning_stops_as_soon_as_a_batch_is_full(rules, further):
    """A queue of thousands is not walked through for a batch of eight."""

    def endless() -> Iterator:
        yield from _requests(*[(1, "a")] * 8)
        raise AssertionError("looked further than needed")

    assert len(_dispatched(plan(endless(), 100.0, rules, further=further))) == 8


def test_an_incomplete_batch_is_held_for_what_is_expected():
    """Until the oldest member is as old as the wait, or as much has come as could make it complete."""
    pending = _requests((3, "a"), (1, "a"))
    assert plan(pending, 100.002, HELD, further=5) == WaitUntil(time=100.01, requests=5, rows=4)


def test_the_wait_is_measured_from_the_oldest_member():
    """Requests that keep coming do not put the end off."""
    pending = _requests((1, "a")) + _requests((1, "a"), enqueued_at=100.009)
    assert _dispatched(plan(pending, 100.01, HELD, further=5)) == pending


def test_the_wait_begins_when_a_worker_is_there_to_wait():
    """Requests that came during a run are held for those whom it answered: they are about to be back."""
    pending = _requests((1, "a"))
    assert plan(pending, 100.05, HELD, further=5, idle_since=100.05) == WaitUntil(time=100.06, requests=5, rows=7)
    assert _dispatched(plan(pending, 100.06, HELD, further=5, idle_since=100.05)) == pending


def test_the_oldest_member_need_not_be_the_first():
    """An important newcomer in front does not make the others wait again."""
    pending = _requests((1, "a"), enqueued_at=100.009) + _requests((1, "a"))
    assert _dispatched(plan(pending, 100.01, HELD, further=5)) == pending


def test_a_complete_batch_is_never_held():
    """There is no room for what is expected anyway."""
    pending = _requests((8, "a"))
    assert _dispatched(plan(pending, 100.0, HELD, further=5)) == pending


def test_a_batch_that_leaves_something_behind_is_not_held():
    """What would be waited for is there already."""
    pending = _requests((5, "a"), (5, "a"))
    assert _dispatched(plan(pending, 100.0, HELD, further=5)) == pending[:1]


def test_a_held_batch_does_not_hold_up_one_that_is_ready():
    """The head waits for its like while a complete batch of another shape goes."""
    pending = _requests((1, "a"), (8, "b"))
    assert _dispatched(plan(pending, 100.0, HELD, further=5)) == [pending[1]]


def test_of_two_batches_that_are_ready_the_head_of_the_queue_decides():
    """Both have waited long enough: the one with the first request goes first."""
    pending = _requests((1, "b"), (1, "a"), enqueued_at=99.0)
    assert _dispatched(plan(pending, 100.0, HELD, further=5)) == [pending[0]]


def test_the_earliest_of_several_held_batches_is_waited_for():
    """And the smallest gap that an arrival could fill."""
    pending = _requests((6, "a"), enqueued_at=100.004) + _requests((1, "b"))
    assert plan(pending, 100.005, HELD, further=5) == WaitUntil(time=100.01, requests=5, rows=2)


def _due(*deadlines, rows=1, key="a"):
    return [Caller(rows=rows, key=key, deadline=deadline).request for deadline in deadlines]


def _in_time(pending, rules=AT_ONCE, row_s=1.0):
    """Plan at time 100 with runs that take ``row_s`` for each row."""
    return _dispatched(plan_in_time(pending, rules, lambda rows: 100.0 + rows * row_s))


def test_a_batch_ends_before_the_deadline_of_each_of_its_requests():
    """It is not filled further than its most urgent request allows."""
    pending = _due(103.0, 109.0, 110.0, 111.0, 112.0)
    assert _in_time(pending) == pending[:3]


def test_a_request_that_the_batch_would_make_late_is_left_for_another():
    """It goes first in the next one, and need not be late; those behind it may still join."""
    pending = _due(110.0, 111.0, 102.5, 112.0)
    assert _in_time(pending) == [pending[0], pending[1], pending[3]]


def test_a_head_that_is_late_in_any_case_does_not_limit_the_others():
    """It is served, as nothing is known to be gained by leaving it, and the batch is as full as the others allow."""
    pending = _due(100.5, 104.0, 109.0, 109.0, 109.0)
    assert _in_time(pending) == pending[:4]


def test_planning_in_time_stops_when_the_batch_cannot_grow():
    """A long queue is not looked through for requests that would all make the batch too long."""

    def endless() -> Iterator:
        yield from _due(102.0, 110.0, 110.0)
        raise AssertionError("looked further than needed")

    assert len(_in_time(endless())) == 2


def test_without_near_deadlines_a_batch_is_planned_as_always():
    """Full, of requests that can be stacked, smaller ones in the place of one that does not fit."""
    pending = [*_requests((5, "a"), (4, "a"), (1, "b"), (2, "a"), (1, "a"), (1, "a"))]
    assert _in_time(pending) == [pending[0], pending[3], pending[4]]
    assert _in_time(pending, BatchRules(max_rows=1)) == pending[:1]
    assert plan_in_time([], AT_ONCE, lambda rows: 100.0) == WaitUntil(time=math.inf, requests=1, rows=1)


def test_larger_requests_count_with_all_their_rows():
    """Two of three rows take six seconds."""
    pending = _due(105.0, 110.0, rows=3)
    assert _in_time(pending) == pending[:1]
    assert _in_time(pending, row_s=0.5) == pending
