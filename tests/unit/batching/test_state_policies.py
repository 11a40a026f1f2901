"""Policies for requests that find the queue full, without threads."""

import pytest

from inferd.batching.request import Batch
from inferd.config.settings import Backpressure
from inferd.errors import (
    DeadlineExceededError,
    InvalidInputError,
    OverloadedError,
)
from tests.fakes import Caller
from tests.unit.batching.queue_state import Queue, failed


def test_block_admits_strictly_in_order():
    """A small request neither overtakes a blocked large one nor is admitted past it."""
    queue = Queue(policy=Backpressure.BLOCK)
    large, small = Caller(rows=3), Caller(rows=1)
    queue.offer(first := Caller(rows=2), second := Caller(rows=1))
    assert queue.offer(large, small).admitted == []
    assert queue.remove(second).admitted == []
    assert queue.remove(first).admitted == [large.request, small.request]


def test_blocked_request_is_admitted_when_a_batch_is_taken():
    """Its queue time begins then, and a worker is woken."""
    queue = Queue(policy=Backpressure.BLOCK, max_batch=4)
    queue.offer(Caller(rows=4))
    queue.offer(blocked := Caller(rows=4))
    queue.now = 105.0
    batch, effects = queue.take()
    assert isinstance(batch, Batch)
    assert (effects.admitted, effects.wake_worker) == ([blocked.request], True)
    assert (blocked.request.offered_at, blocked.request.enqueued_at) == (100.0, 105.0)


def test_blocked_request_is_failed_at_its_deadline():
    """It waits for room no longer than that."""
    queue = Queue(policy=Backpressure.BLOCK)
    queue.offer(Caller(rows=4))
    assert queue.offer(blocked := Caller(deadline=101.0)).timers_at == [101.0]
    queue.now = 101.0
    assert failed(queue.expire()) == {blocked.request: DeadlineExceededError}
    assert queue.state.present == 1


def test_cancelled_blocked_request_admits_the_next():
    """A large one is cancelled, and the one behind it fits."""
    queue = Queue(policy=Backpressure.BLOCK)
    queue.offer(Caller(rows=2), large := Caller(rows=3), small := Caller(rows=2))
    assert queue.remove(large).admitted == [small.request]


def test_expired_request_makes_room_for_a_blocked_one():
    """By the timer, without a worker."""
    queue = Queue(policy=Backpressure.BLOCK)
    queue.offer(Caller(rows=4, deadline=101.0), blocked := Caller(rows=4))
    queue.now = 101.0
    assert queue.expire().admitted == [blocked.request]


def test_blocked_requests_release_their_bytes():
    """When one leaves, another of its size may block."""
    queue = Queue(policy=Backpressure.BLOCK, max_bytes=1024)
    queue.offer(Caller(rows=4), blocked := Caller(nbytes=1000))
    assert len(queue.offer(Caller(nbytes=1000)).failed) == 1
    queue.remove(blocked)
    assert queue.offer(Caller(nbytes=1000)).failed == []


def test_block_rejects_beyond_max_blocked():
    """The bound is exact, and a cancel makes room."""
    queue = Queue(policy=Backpressure.BLOCK, max_blocked=1)
    queue.offer(Caller(rows=4), blocked := Caller())
    ((_, error),) = queue.offer(Caller()).failed
    assert isinstance(error, OverloadedError)
    assert error.reason == "BLOCKED_LIMIT"
    queue.remove(blocked)
    assert queue.offer(Caller()).failed == []


def test_caller_runs_returns_a_batch_up_to_the_limit():
    """The request runs alone; after it has been retired another may."""
    queue = Queue(policy=Backpressure.CALLER_RUNS, caller_runs_limit=1)
    queue.offer(Caller(rows=4))
    batch = queue.run_now(caller := Caller(rows=2))
    assert (batch.requests, batch.rows, batch.outside_queue) == ([caller.request], 2, True)
    ((_, error),) = queue.offer(Caller()).failed
    assert isinstance(error, OverloadedError)
    assert error.reason == "CALLER_RUNS_LIMIT"
    queue.state.retire(batch, queue.now)
    assert queue.run_now(Caller()) is not None


def test_drain_rate_excludes_caller_runs():
    """They do not make the queue appear faster."""
    queue = Queue(policy=Backpressure.CALLER_RUNS, caller_runs_limit=1)
    queue.offer(Caller(rows=4))
    batch = queue.run_now(Caller())
    queue.now += 0.001
    queue.state.retire(batch, queue.now)
    assert queue.run_now(Caller()) is not None
    ((_, error),) = queue.offer(Caller()).failed
    assert isinstance(error, OverloadedError)
    assert error.retry_after_s == 1.0


def test_shed_oldest_evicts_and_admits():
    """Evicted requests get a retry hint and a reason of their own."""
    queue = Queue(policy=Backpressure.SHED_OLDEST)
    queue.offer(oldest := Caller(), Caller(rows=3))
    effects = queue.offer(newcomer := Caller())
    assert effects.admitted == [newcomer.request]
    ((victim, error),) = effects.failed
    assert victim is oldest.request
    assert isinstance(error, OverloadedError)
    assert error.reason == "SHED"
    assert queue.state.waiting.rows == 4


def test_request_that_can_never_fit_is_invalid_under_every_policy():
    """It would block forever, or evict all others in vain."""
    for policy in Backpressure:
        queue = Queue(policy=policy)
        assert list(failed(queue.offer(Caller(rows=5))).values()) == [InvalidInputError]


def test_higher_priority_passes_blocked_requests():
    """If there is room for it; the same priority and lower ones stay behind them."""
    queue = Queue(policy=Backpressure.BLOCK)
    queue.offer(Caller(rows=2, priority=2), blocked := Caller(rows=3, priority=2))
    urgent, equal, low = Caller(priority=1), Caller(priority=2), Caller(priority=3)
    assert queue.offer(equal, low, urgent).admitted == [urgent.request]
    assert queue.offer(Caller(rows=2, priority=1)).admitted == []
    assert queue.remove(urgent).admitted == []
    assert queue.state.present == 5
    assert blocked.waits


def test_lower_priority_does_not_pass_blocked_requests():
    """It would take the room that the blocked one waits for."""
    queue = Queue(policy=Backpressure.BLOCK)
    queue.offer(Caller(rows=2, priority=3), Caller(rows=3, priority=1))
    assert queue.offer(Caller(rows=1, priority=2), Caller(rows=1, priority=1)).admitted == []


def test_shed_oldest_evicts_earliest_deadline():
    """Of the lowest priority, as it is the least likely to be in time; of equal deadlines the oldest."""
    queue = Queue(policy=Backpressure.SHED_OLDEST)
    far, near = Caller(priority=3, deadline=queue.now + 0.9), Caller(priority=3, deadline=queue.now + 0.5)
    queue.offer(Caller(priority=1), far, near, Caller(priority=2))
    assert list(failed(queue.offer(Caller(priority=2)))) == [near.request]
    assert list(failed(queue.offer(Caller(priority=2)))) == [far.request]


def test_shed_oldest_evicts_from_the_principal_with_most_rows():
    """Not the oldest request of one with few rows queued."""
    queue = Queue(policy=Backpressure.SHED_OLDEST)
    light, first, second = Caller(principal="light"), Caller(principal="flood"), Caller(principal="flood", rows=2)
    queue.offer(light, first, second)
    assert list(failed(queue.offer(Caller(principal="other")))) == [first.request]
    assert light.request in list(queue.state.waiting)


@pytest.mark.parametrize("policy", list(Backpressure))
def test_scavengers_are_evicted_first_under_every_policy(policy):
    """As many as the request needs, by deadline; regular requests stay."""
    queue = Queue(policy=policy)
    low, first, second = Caller(priority=3), Caller(priority=4, rows=2), Caller(priority=4)
    queue.offer(low, first, second)
    newcomer = Caller(priority=3)
    effects = queue.offer(newcomer)
    assert (effects.admitted, failed(effects)) == ([newcomer.request], {first.request: OverloadedError})
    assert list(queue.state.waiting) == [low.request, newcomer.request, second.request]


@pytest.mark.parametrize("policy", list(Backpressure))
def test_scavengers_are_not_evicted_in_vain(policy):
    """They stay if the request does not fit even without them; scavengers never evict each other."""
    queue = Queue(policy=policy, max_blocked=1)
    queue.offer(Caller(priority=1, rows=3), scavenger := Caller(priority=4))
    queue.offer(Caller(priority=2, rows=2))
    assert scavenger.request in list(queue.state.waiting)
    if policy is not Backpressure.SHED_OLDEST:
        queue.offer(Caller(priority=4))
        assert scavenger.request in list(queue.state.waiting)


def test_blocked_request_evicts_earlier_scavengers():
    """As soon as only they are in its way, without waiting for a batch."""
    queue = Queue(policy=Backpressure.BLOCK)
    first, second, scavenger = Caller(rows=2), Caller(), Caller(priority=4)
    queue.offer(first, second, scavenger)
    assert queue.offer(blocked := Caller(rows=2)).admitted == []
    effects = queue.remove(second)
    assert (effects.admitted, list(failed(effects))) == ([blocked.request], [scavenger.request])
