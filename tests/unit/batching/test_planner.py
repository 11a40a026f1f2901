"""Which requests make the next batch."""

import math
from collections.abc import Iterator

import pytest

from inferd.batching.planner import BatchRules, Dispatch, WaitUntil, plan
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
