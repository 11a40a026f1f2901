"""Properties of every plan."""

import math

from hypothesis import given
from hypothesis import strategies as st

from inferd.batching.planner import BatchRules, Dispatch, plan, plan_in_time
from tests.fakes import Caller

_NOW = 100.0


@st.composite
def _pending(draw):
    request = Caller(rows=draw(st.integers(1, 12)), key=draw(st.sampled_from("abc"))).request
    request.enqueued_at = _NOW - draw(st.sampled_from([0.0, 0.004, 0.01, 0.02]))
    return request


_IDLE_SINCE = st.sampled_from([0.0, _NOW - 0.015, _NOW - 0.005, _NOW])
_RULES = st.builds(BatchRules, max_rows=st.integers(1, 10), max_wait_s=st.sampled_from([0.0, 0.01]))


@given(pending=st.lists(_pending(), max_size=12), rules=_RULES, further=st.integers(0, 3), idle_since=_IDLE_SINCE)
def test_batches_can_be_stacked_and_are_within_limit(pending, rules, further, idle_since):
    """One key; at most ``max_rows``, except for a single larger request; in the order of service."""
    decision = plan(pending, _NOW, rules, further=further, idle_since=idle_since)
    if not isinstance(decision, Dispatch):
        return
    chosen = decision.requests
    assert len({request.stack_key for request in chosen}) == 1
    assert sum(request.rows for request in chosen) <= rules.max_rows or len(chosen) == 1
    assert chosen == [request for request in pending if request in chosen]


@given(pending=st.lists(_pending(), max_size=12), rules=_RULES, further=st.integers(0, 3), idle_since=_IDLE_SINCE)
def test_batch_is_held_only_while_it_may_grow_and_is_young(pending, rules, further, idle_since):
    """Never without a delay or expected requests, when one is old enough, or when a request did not fit."""
    decision = plan(pending, _NOW, rules, further=further, idle_since=idle_since)
    if isinstance(decision, Dispatch) or not pending:
        return
    assert rules.max_wait_s > 0
    assert further > 0
    could_run_at = max(min(request.enqueued_at for request in pending), idle_since)
    assert _NOW < decision.time == could_run_at + rules.max_wait_s
    for key in {request.stack_key for request in pending}:
        rows = sum(request.rows for request in pending if request.stack_key == key)
        assert rows + decision.rows <= rules.max_rows


@given(pending=st.lists(_pending(), min_size=1, max_size=12), rules=_RULES)
def test_head_of_queue_runs_first(pending, rules):
    """With all requests of its key that fit, in order."""
    decision = plan(pending, _NOW, rules, further=0)
    assert isinstance(decision, Dispatch)
    assert decision.requests[0] is pending[0]
    left = rules.max_rows - pending[0].rows
    expected = [pending[0]]
    for request in pending[1:]:
        if request.stack_key == pending[0].stack_key and request.rows <= left:
            expected.append(request)
            left -= request.rows
    assert decision.requests == expected


@given(
    pending=st.lists(_pending(), min_size=1, max_size=12),
    rules=_RULES,
    further=st.integers(0, 3),
    idle_since=_IDLE_SINCE,
)
def test_held_batch_runs_at_planned_time(pending, rules, further, idle_since):
    """Nothing is held beyond the time in the plan."""
    decision = plan(pending, _NOW, rules, further=further, idle_since=idle_since)
    if not isinstance(decision, Dispatch):
        assert isinstance(plan(pending, decision.time, rules, further=further, idle_since=idle_since), Dispatch)


@given(
    pending=st.lists(_pending(), min_size=1, max_size=12),
    deadlines=st.lists(st.sampled_from([0.5, 2.0, 5.0, 8.0, math.inf]), min_size=12, max_size=12),
    rules=_RULES,
)
def test_batch_planned_in_time_makes_no_request_late(pending, deadlines, rules):
    """The head runs first, and all others are in time; so is the head, unless it is late even alone."""
    for request, seconds in zip(pending, deadlines, strict=False):
        request.deadline = _NOW + seconds
    decision = plan_in_time(pending, rules, lambda rows: _NOW + rows)
    assert isinstance(decision, Dispatch)
    chosen = decision.requests
    assert chosen[0] is pending[0]
    assert chosen == [request for request in pending if request in chosen]
    assert len({request.stack_key for request in chosen}) == 1
    assert decision.rows == sum(request.rows for request in chosen)
    assert decision.rows <= rules.max_rows or len(chosen) == 1
    end = _NOW + decision.rows
    assert all(end <= request.deadline for request in chosen[1:])
    assert end <= chosen[0].deadline or _NOW + chosen[0].rows > chosen[0].deadline
