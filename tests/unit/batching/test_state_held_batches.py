"""Batches that are held for callers who are expected back, without threads."""

import math

from inferd.batching.planner import WaitUntil
from inferd.batching.request import Batch
from inferd.errors import ModelUnavailableError
from tests.fakes import Caller
from tests.unit.batching.queue_state import Queue, failed


def _with_expectations(callers):
    """A queue whose callers have shown, in a few rounds, that they come together."""
    queue = Queue(max_batch=64, max_wait_s=0.01, max_rows=64)
    for _ in range(8):
        plans = []
        for _ in range(callers):
            queue.offer(Caller())
            plans.append(queue.take()[0])
        queue.now += 0.01
        plans.append(queue.take()[0])
        for batch in plans:
            if isinstance(batch, Batch):
                queue.state.retire(batch, queue.now)
        queue.now += 1.0
    return queue


def test_a_batch_is_held_until_those_who_are_expected_are_there():
    """And nobody is woken for nothing before."""
    queue = _with_expectations(4)
    queue.offer(Caller())
    decision, _ = queue.take()
    assert decision == WaitUntil(time=queue.now + 0.01, requests=3, rows=63)
    assert [queue.offer(Caller()).wake_worker for _ in range(3)] == [False, False, True]
    batch, _ = queue.take()
    assert batch.rows == 4


def test_a_held_batch_goes_when_the_wait_is_over():
    """Measured from its oldest member."""
    queue = _with_expectations(4)
    queue.offer(Caller())
    queue.now += 0.008
    queue.offer(Caller())
    queue.now += 0.003
    batch, _ = queue.take()
    assert batch.rows == 2


def test_after_a_held_batch_has_gone_a_new_request_wakes_a_worker():
    """An idle one takes it, while the one that held the batch is running."""
    queue = _with_expectations(4)
    queue.offer(Caller())
    queue.take()
    queue.now += 0.01
    batch, _ = queue.take()
    assert batch.rows == 1
    assert queue.offer(Caller()).wake_worker


def test_an_idle_worker_that_finds_nothing_learns_nothing():
    """A caller whose fellow has left returns at once each time, and is soon not kept waiting all the same."""
    queue = _with_expectations(2)
    held = 0
    for _ in range(20):
        queue.take()
        queue.offer(Caller())
        batch, _ = queue.take()
        if isinstance(batch, WaitUntil):
            held += 1
            queue.now += 0.01
            batch, _ = queue.take()
        queue.state.retire(batch, queue.now)
    assert 0 < held < 8


def test_a_caller_who_is_answered_and_back_before_the_batch_retires_is_no_lesson():
    """It was in the batch, so it is not the fellow whom the worker decided about."""
    queue = _with_expectations(2)
    held = 0
    for _ in range(20):
        batch, _ = queue.take()
        if isinstance(batch, WaitUntil):
            held += not math.isinf(batch.time)
            queue.now += 0.01
            batch, _ = queue.take()
        if isinstance(batch, Batch):
            batch.answering = True
        queue.offer(Caller())
        if isinstance(batch, Batch):
            queue.state.retire(batch, queue.now)
    assert 0 < held < 8


def test_running_requests_are_not_expected_back():
    """Their callers cannot ask again before they have their answers, so the others go."""
    queue = _with_expectations(4)
    queue.offer(*[Caller() for _ in range(4)])
    queue.take()
    queue.offer(*[Caller() for _ in range(1)])
    batch, _ = queue.take()
    assert batch.rows == 1


def test_callers_who_are_being_answered_are_expected_back():
    """The batch is not retired yet, but its callers may ask again any moment."""
    queue = _with_expectations(4)
    queue.offer(*[Caller() for _ in range(4)])
    batch, _ = queue.take()
    batch.answering = True
    queue.offer(Caller())
    decision, _ = queue.take(idle_since=queue.now)
    assert isinstance(decision, WaitUntil)
    assert decision.requests == 3


def test_closing_refuses_new_requests_and_holds_no_batch():
    """What was admitted goes at once: no one else will come."""
    queue = _with_expectations(4)
    queue.offer(Caller())
    queue.state.close()
    assert list(failed(queue.offer(Caller())).values()) == [ModelUnavailableError]
    batch, _ = queue.take()
    assert batch.rows == 1
    assert queue.state.exhausted
    assert not queue.state.drained
    queue.state.retire(batch, queue.now)
    assert queue.state.drained
