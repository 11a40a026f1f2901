"""The decision of each policy on a request that finds the queue full."""

import re
from pathlib import Path

import pytest

import inferd.batching
from inferd.batching.policies import Hold, Refuse, Room, RunNow, Shed, policy_for
from inferd.batching.waiting import WaitingRequests
from inferd.config.settings import Backpressure, QueueSettings
from inferd.errors import OVERLOAD_REASONS
from tests.fakes import Caller


def _room(*callers, max_rows=4, max_bytes=1000, blocked_requests=0, blocked_bytes=0, caller_runs=0):
    waiting = WaitingRequests(max_rows=max_rows, max_bytes=max_bytes, priority_levels=3)
    for caller in callers:
        waiting.add(caller.request)
    return Room(
        waiting=waiting, blocked_requests=blocked_requests, blocked_bytes=blocked_bytes, caller_runs=caller_runs
    )


def _policy(policy, **settings):
    return policy_for(QueueSettings(policy=policy, **settings))


def test_every_configurable_policy_exists():
    """The settings offer no other names."""
    assert all(_policy(policy) for policy in Backpressure)


def test_reject_rejects_at_once():
    """Whatever is queued."""
    assert _policy(Backpressure.REJECT).decide(Caller().request, _room()) == Refuse(reason="QUEUE_FULL")


def test_caller_runs_up_to_its_limit():
    """Below the limit it runs, at the limit it is rejected with the limit in the message."""
    policy = _policy(Backpressure.CALLER_RUNS, caller_runs_limit=2)
    assert policy.decide(Caller().request, _room(caller_runs=1)) == RunNow()
    assert policy.decide(Caller().request, _room(caller_runs=2)) == Refuse(
        reason="CALLER_RUNS_LIMIT", detail=", and 2 of 2 requests run outside the queue"
    )


def test_block_bounds_the_number_of_blocked_requests():
    """At the limit the next one is rejected."""
    policy = _policy(Backpressure.BLOCK, max_blocked=3)
    assert policy.decide(Caller().request, _room(blocked_requests=2)) == Hold()
    refusal = policy.decide(Caller().request, _room(blocked_requests=3))
    assert isinstance(refusal, Refuse)
    assert refusal.reason == "BLOCKED_LIMIT"
    assert "3 of 3 requests" in refusal.detail


def test_block_bounds_the_bytes_of_blocked_requests():
    """A few large messages use as much memory as many small ones."""
    policy = _policy(Backpressure.BLOCK, max_bytes=1024)
    assert policy.decide(Caller(nbytes=24).request, _room(blocked_bytes=1000)) == Hold()
    assert isinstance(policy.decide(Caller(nbytes=25).request, _room(blocked_bytes=1000)), Refuse)


def test_shed_oldest_evicts_the_oldest_of_the_lowest_priority():
    """And no more than needed."""
    important, oldest, newer = Caller(priority=1, rows=2), Caller(priority=3), Caller(priority=3)
    decision = _policy(Backpressure.SHED_OLDEST).decide(Caller(priority=2).request, _room(important, oldest, newer))
    assert decision == Shed([oldest.request])


def test_shed_oldest_evicts_as_many_as_the_rows_need():
    """A large newcomer replaces several."""
    callers = [Caller() for _ in range(4)]
    decision = _policy(Backpressure.SHED_OLDEST).decide(Caller(rows=3).request, _room(*callers))
    assert decision == Shed([caller.request for caller in callers[:3]])


def test_shed_oldest_evicts_as_many_as_the_bytes_need():
    """Rows are not the only bound."""
    callers = [Caller(nbytes=400), Caller(nbytes=400)]
    decision = _policy(Backpressure.SHED_OLDEST).decide(Caller(nbytes=700).request, _room(*callers))
    assert decision == Shed([caller.request for caller in callers])


@pytest.mark.parametrize("priority", [2, 3])
def test_shed_oldest_never_evicts_higher_priorities(priority):
    """The newcomer is rejected then, and nothing is evicted in vain."""
    callers = [Caller(priority=3), Caller(priority=1, rows=3)]
    decision = _policy(Backpressure.SHED_OLDEST).decide(Caller(rows=2, priority=priority).request, _room(*callers))
    assert isinstance(decision, Refuse)
    assert decision.reason == "QUEUE_FULL"


def test_every_reason_is_declared():
    """Metrics have a series for each from the start."""
    sources = (path.read_text() for path in Path(inferd.batching.__file__).parent.rglob("*.py"))
    named = {reason for source in sources for reason in re.findall(r'(?:reason=|overloaded\()"(\w+)"', source)}
    assert named == set(OVERLOAD_REASONS)
