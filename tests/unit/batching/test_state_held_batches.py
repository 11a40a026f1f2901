"""Batches held for callers expected to return, without threads."""

import math

from inferd.batching.planner import WaitUntil
from inferd.batching.request import Batch
from inferd.errors import ModelUnavailableError
from tests.fakes import Caller
from tests.unit.batching.queue_state import Queue, failed


def _with_expectations(callers):
    """A queue that has learned in a few rounds how many callers arrive together."""
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


def test_holds_batch_until_expected_requests_arrive():
    """No worker is woken before."""
    queue = _with_expectations(4)
    queue.offer(Caller())
    decision, _ = queue.take()
    assert decision == WaitUntil(time=queue.now + 0.01, requests=3, rows=63)
    assert [queue.offer(Caller()).wake_worker for _ in range(3)] == [False, False, True]
    batch, _ = queue.take()
    assert batch.rows == 4


def test_held_batch_starts_at_the_end_of_the_wait():
    """Measured from its oldest member."""
    queue = _with_expectations(4)
    queue.offer(Caller())
    queue.now += 0.008
    queue.offer(Caller())
    queue.now += 0.003
    batch, _ = queue.take()
    assert batch.rows == 2


def test_request_after_a_held_batch_wakes_an_idle_worker():
    """While the worker that held the batch is running it."""
    queue = _with_expectations(4)
    queue.offer(Caller())
    queue.take()
    queue.now += 0.01
    batch, _ = queue.take()
    assert batch.rows == 1
    assert queue.offer(Caller()).wake_worker


def test_idle_worker_with_an_empty_queue_learns_nothing():
    """A caller that is left alone and returns at once each time is soon no longer delayed."""
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


def test_caller_that_returns_before_the_batch_retires_teaches_nothing():
    """It was in the batch, so it is not the caller that the worker expected."""
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
    """Their callers cannot send again before their answers, so the batch starts."""
    queue = _with_expectations(4)
    queue.offer(*[Caller() for _ in range(4)])
    queue.take()
    queue.offer(*[Caller() for _ in range(1)])
    batch, _ = queue.take()
    assert batch.rows == 1


def test_callers_being_answered_are_expected_back():
    """The batch is not retired yet, but its callers may send again at any moment."""
    queue = _with_expectations(4)
    queue.offer(*[Caller() for _ in range(4)])
    batch, _ = queue.take()
    batch.answering = True
    queue.offer(Caller())
    decision, _ = queue.take(idle_since=queue.now)
    assert isinstance(decision, WaitUntil)
    assert decision.requests == 3


def test_closing_rejects_new_requests_and_holds_no_batch():
    """Admitted requests start at once, as no more can arrive."""
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
