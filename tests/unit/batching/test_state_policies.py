"""What happens to requests that find the queue full, without threads."""

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


def test_block_admits_strictly_in_order_as_room_frees():
    """A small request does not overtake a large one that waits for room, and is not admitted past it either."""
    queue = Queue(policy=Backpressure.BLOCK)
    large, small = Caller(rows=3), Caller(rows=1)
    queue.offer(first := Caller(rows=2), second := Caller(rows=1))
    assert queue.offer(large, small).admitted == []
    assert queue.remove(second).admitted == []
    assert queue.remove(first).admitted == [large.request, small.request]


def test_a_blocked_request_is_admitted_when_a_batch_is_taken():
    """Its time in the queue begins then, and a worker has something to look at."""
    queue = Queue(policy=Backpressure.BLOCK, max_batch=4)
    queue.offer(Caller(rows=4))
    queue.offer(blocked := Caller(rows=4))
    queue.now = 105.0
    batch, effects = queue.take()
    assert isinstance(batch, Batch)
    assert (effects.admitted, effects.wake_worker) == ([blocked.request], True)
    assert (blocked.request.offered_at, blocked.request.enqueued_at) == (100.0, 105.0)


def test_a_blocked_request_is_failed_at_its_deadline():
    """It waits for room at most that long."""
    queue = Queue(policy=Backpressure.BLOCK)
    queue.offer(Caller(rows=4))
    assert queue.offer(blocked := Caller(deadline=101.0)).timers_at == [101.0]
    queue.now = 101.0
    assert failed(queue.expire()) == {blocked.request: DeadlineExceededError}
    assert queue.state.present == 1


def test_a_blocked_request_that_leaves_lets_the_next_one_in():
    """The large one at the head of the line is cancelled; the one behind it fits."""
    queue = Queue(policy=Backpressure.BLOCK)
    queue.offer(Caller(rows=2), large := Caller(rows=3), small := Caller(rows=2))
    assert queue.remove(large).admitted == [small.request]


def test_an_expired_request_makes_room_for_a_blocked_one():
    """The timer is enough; no worker has to come by."""
    queue = Queue(policy=Backpressure.BLOCK)
    queue.offer(Caller(rows=4, deadline=101.0), blocked := Caller(rows=4))
    queue.now = 101.0
    assert queue.expire().admitted == [blocked.request]


def test_the_bytes_of_blocked_requests_are_given_back():
    """When one leaves the line in front of the queue, another of its size may come."""
    queue = Queue(policy=Backpressure.BLOCK, max_bytes=1024)
    queue.offer(Caller(rows=4), blocked := Caller(nbytes=1000))
    assert len(queue.offer(Caller(nbytes=1000)).failed) == 1
    queue.remove(blocked)
    assert queue.offer(Caller(nbytes=1000)).failed == []


def test_block_refuses_beyond_max_blocked_and_takes_again_after_a_cancel():
    """The line in front of the queue is exact too."""
    queue = Queue(policy=Backpressure.BLOCK, max_blocked=1)
    queue.offer(Caller(rows=4), blocked := Caller())
    ((_, error),) = queue.offer(Caller()).failed
    assert isinstance(error, OverloadedError)
    assert error.reason == "BLOCKED_LIMIT"
    queue.remove(blocked)
    assert queue.offer(Caller()).failed == []


def test_caller_runs_gives_a_batch_of_its_own_up_to_the_limit():
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


def test_caller_runs_are_no_part_of_the_drain_rate():
    """They do not make the queue look faster than it is."""
    queue = Queue(policy=Backpressure.CALLER_RUNS, caller_runs_limit=1)
    queue.offer(Caller(rows=4))
    batch = queue.run_now(Caller())
    queue.now += 0.001
    queue.state.retire(batch, queue.now)
    assert queue.run_now(Caller()) is not None
    ((_, error),) = queue.offer(Caller()).failed
    assert isinstance(error, OverloadedError)
    assert error.retry_after_s == 1.0


def test_shed_oldest_fails_the_victims_and_admits_the_new_one():
    """The victims are told to retry later, with a reason of their own."""
    queue = Queue(policy=Backpressure.SHED_OLDEST)
    queue.offer(oldest := Caller(), Caller(rows=3))
    effects = queue.offer(newcomer := Caller())
    assert effects.admitted == [newcomer.request]
    ((victim, error),) = effects.failed
    assert victim is oldest.request
    assert isinstance(error, OverloadedError)
    assert error.reason == "SHED"
    assert queue.state.waiting.rows == 4


def test_a_request_that_can_never_fit_is_invalid_under_every_policy():
    """It would block forever, or shed everybody in vain."""
    for policy in Backpressure:
        queue = Queue(policy=policy)
        assert list(failed(queue.offer(Caller(rows=5))).values()) == [InvalidInputError]


def test_a_higher_priority_passes_blocked_requests():
    """If there is room for it; the same priority and lower ones stay behind them."""
    queue = Queue(policy=Backpressure.BLOCK)
    queue.offer(Caller(rows=2, priority=2), blocked := Caller(rows=3, priority=2))
    urgent, equal, low = Caller(priority=1), Caller(priority=2), Caller(priority=3)
    assert queue.offer(equal, low, urgent).admitted == [urgent.request]
    assert queue.offer(Caller(rows=2, priority=1)).admitted == []
    assert queue.remove(urgent).admitted == []
    assert queue.state.present == 5
    assert blocked.waits


def test_with_a_higher_priority_blocked_no_lower_one_passes():
    """It would take the room that the blocked one waits for."""
    queue = Queue(policy=Backpressure.BLOCK)
    queue.offer(Caller(rows=2, priority=3), Caller(rows=3, priority=1))
    assert queue.offer(Caller(rows=1, priority=2), Caller(rows=1, priority=1)).admitted == []


def test_shed_oldest_evicts_what_is_due_first():
    """Of the lowest priority: it is the least likely to be in time, and with equal deadlines the oldest."""
    queue = Queue(policy=Backpressure.SHED_OLDEST)
    far, near = Caller(priority=3, deadline=queue.now + 0.9), Caller(priority=3, deadline=queue.now + 0.5)
    queue.offer(Caller(priority=1), far, near, Caller(priority=2))
    assert list(failed(queue.offer(Caller(priority=2)))) == [near.request]
    assert list(failed(queue.offer(Caller(priority=2)))) == [far.request]


def test_shed_oldest_evicts_from_the_principal_with_most_rows():
    """Not the oldest of one that has little waiting."""
    queue = Queue(policy=Backpressure.SHED_OLDEST)
    light, first, second = Caller(principal="light"), Caller(principal="flood"), Caller(principal="flood", rows=2)
    queue.offer(light, first, second)
    assert list(failed(queue.offer(Caller(principal="other")))) == [first.request]
    assert light.request in list(queue.state.waiting)


@pytest.mark.parametrize("policy", list(Backpressure))
def test_scavengers_are_evicted_first_under_every_policy(policy):
    """As many as the request needs, those due first; what was admitted otherwise stays."""
    queue = Queue(policy=policy)
    low, first, second = Caller(priority=3), Caller(priority=4, rows=2), Caller(priority=4)
    queue.offer(low, first, second)
    newcomer = Caller(priority=3)
    effects = queue.offer(newcomer)
    assert (effects.admitted, failed(effects)) == ([newcomer.request], {first.request: OverloadedError})
    assert list(queue.state.waiting) == [low.request, newcomer.request, second.request]


@pytest.mark.parametrize("policy", list(Backpressure))
def test_scavengers_are_not_evicted_in_vain(policy):
    """If a request does not fit even without them, they stay; one of them never evicts another for its priority."""
    queue = Queue(policy=policy, max_blocked=1)
    queue.offer(Caller(priority=1, rows=3), scavenger := Caller(priority=4))
    queue.offer(Caller(priority=2, rows=2))
    assert scavenger.request in list(queue.state.waiting)
    if policy is not Backpressure.SHED_OLDEST:
        queue.offer(Caller(priority=4))
        assert scavenger.request in list(queue.state.waiting)


def test_a_blocked_request_takes_the_place_of_scavengers_that_came_before():
    """As soon as they are all that is in its way: then it need not wait for a batch."""
    queue = Queue(policy=Backpressure.BLOCK)
    first, second, scavenger = Caller(rows=2), Caller(), Caller(priority=4)
    queue.offer(first, second, scavenger)
    assert queue.offer(blocked := Caller(rows=2)).admitted == []
    effects = queue.remove(second)
    assert (effects.admitted, list(failed(effects))) == ([blocked.request], [scavenger.request])
