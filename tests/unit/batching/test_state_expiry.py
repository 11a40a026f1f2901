"""Requests that are cancelled or expire, without threads."""

import pytest

from inferd.errors import (
    DeadlineExceededError,
)
from tests.fakes import Caller
from tests.unit.batching.queue_state import Queue, failed


def test_does_not_admit_withdrawn_request():
    """A cancel that overtakes its request leaves nothing behind."""
    queue, caller = Queue(), Caller()
    caller.request.reply.withdraw()
    queue.offer(caller)
    assert queue.state.present == 0


def test_cancelled_request_releases_its_rows_at_once():
    """No worker is needed for that."""
    queue, caller = Queue(), Caller(rows=4)
    queue.offer(caller)
    queue.remove(caller)
    assert queue.offer(Caller(rows=4)).failed == []


def test_removing_a_running_request_has_no_effect():
    """Its rows run with the batch and left the queue when they were taken."""
    queue, caller = Queue(), Caller(rows=4)
    queue.offer(caller)
    queue.take()
    queue.remove(caller)
    assert (queue.state.running_rows, queue.state.waiting.rows) == (4, 0)


def test_timer_fails_expired_request_and_releases_its_rows():
    """Even if every worker is busy."""
    queue = Queue()
    hurried, patient = Caller(rows=3, deadline=101.0), Caller()
    assert queue.offer(hurried).timers_at == [101.0]
    queue.offer(patient)
    queue.now = 101.0
    assert failed(queue.expire()) == {hurried.request: DeadlineExceededError}
    assert queue.state.waiting.rows == 1


def test_timer_is_rearmed_for_the_next_deadline():
    """One timer at a time."""
    queue = Queue()
    effects = [queue.offer(Caller(deadline=deadline)).timers_at for deadline in (101.0, 103.0, 102.0)]
    assert effects == [[101.0], [], []]
    queue.now = 101.0
    assert queue.expire().timers_at == [102.0]


def test_expired_request_is_never_taken():
    """Although the timer is late and another request of the batch is live."""
    queue = Queue()
    late, alive = Caller(deadline=101.0), Caller()
    queue.offer(late, alive)
    queue.now = 101.0
    batch, effects = queue.take()
    assert batch.requests == [alive.request]
    assert failed(effects) == {late.request: DeadlineExceededError}


def test_expired_requests_make_room_for_a_new_one():
    """A late timer causes no rejection."""
    queue = Queue()
    queue.offer(Caller(rows=4, deadline=101.0))
    queue.now = 101.0
    newcomer = Caller(rows=4)
    effects = queue.offer(newcomer)
    assert effects.admitted == [newcomer.request]
    assert list(failed(effects).values()) == [DeadlineExceededError]


def test_running_request_is_failed_at_its_deadline():
    """It does not wait for the model."""
    queue, caller = Queue(), Caller(deadline=101.0)
    queue.offer(caller)
    queue.take()
    queue.now = 101.0
    assert failed(queue.expire()) == {caller.request: DeadlineExceededError}
    assert queue.state.running_rows == 1


@pytest.mark.parametrize("taken", [True, False])
def test_knows_whether_a_removed_request_may_be_running(taken):
    """Only then are the runs checked."""
    queue, caller = Queue(), Caller(deadline=101.0)
    queue.offer(caller)
    if taken:
        queue.take()
    queue.now = 102.0
    assert queue.expire().fails_running is taken
    assert queue.remove(caller).fails_running


def _slow(**settings):
    """A queue whose runs of one row take 100 ms."""
    queue = Queue(max_batch=1, max_rows=100, max_delay_ms=0, **settings)
    for _ in range(8):
        queue.offer(Caller())
        batch, _ = queue.take()
        queue.now += 0.1
        queue.state.retire(batch, queue.now)
    return queue


def test_request_that_would_be_late_is_not_run():
    """It fails before its deadline, and the worker takes the next one."""
    queue = _slow()
    queue.offer(late := Caller(deadline=queue.now + 0.25), other := Caller())
    queue.now += 0.2
    batch, effects = queue.take()
    assert batch.requests == [other.request]
    assert failed(effects) == {late.request: DeadlineExceededError}


def test_aged_request_that_would_be_late_is_not_run():
    """Whatever its priority, the head of the queue would run next."""
    queue = _slow(low_priority_share=0.5)
    queue.offer(low := Caller(priority=3, deadline=queue.now + 0.25), *(Caller(priority=1) for _ in range(4)))
    for _ in range(2):
        assert queue.take()[0].requests[0].priority == 1
    queue.now += 0.2
    batch, effects = queue.take()
    assert batch.requests[0].priority == 1
    assert failed(effects) == {low.request: DeadlineExceededError}


def test_scavenger_that_would_be_late_is_not_run():
    """Idle time is better spent on the next one."""
    queue = _slow()
    queue.offer(late := Caller(priority=4, deadline=queue.now + 0.25), other := Caller(priority=4))
    queue.now += 0.2
    batch, effects = queue.take()
    assert batch.requests == [other.request]
    assert failed(effects) == {late.request: DeadlineExceededError}
