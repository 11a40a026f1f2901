"""Requests that are cancelled or expire, without threads."""

import pytest

from inferd.errors import (
    DeadlineExceededError,
)
from tests.fakes import Caller
from tests.unit.batching.queue_state import Queue, failed


def test_a_withdrawn_request_is_not_admitted():
    """A cancel that overtakes the request leaves nothing behind."""
    queue, caller = Queue(), Caller()
    caller.request.reply.withdraw()
    queue.offer(caller)
    assert queue.state.present == 0


def test_a_cancelled_request_gives_its_place_back_at_once():
    """No worker has to come by first."""
    queue, caller = Queue(), Caller(rows=4)
    queue.offer(caller)
    queue.remove(caller)
    assert queue.offer(Caller(rows=4)).failed == []


def test_removing_a_running_request_changes_nothing():
    """Its rows run with the batch; its place was given back when it was taken."""
    queue, caller = Queue(), Caller(rows=4)
    queue.offer(caller)
    queue.take()
    queue.remove(caller)
    assert (queue.state.running_rows, queue.state.waiting.rows) == (4, 0)


def test_an_expired_request_is_failed_by_the_timer_and_its_place_comes_back():
    """Even if every worker is busy."""
    queue = Queue()
    hurried, patient = Caller(rows=3, deadline=101.0), Caller()
    assert queue.offer(hurried).timers_at == [101.0]
    queue.offer(patient)
    queue.now = 101.0
    assert failed(queue.expire()) == {hurried.request: DeadlineExceededError}
    assert queue.state.waiting.rows == 1


def test_the_timer_goes_on_to_the_next_deadline():
    """One timer at a time, from deadline to deadline."""
    queue = Queue()
    effects = [queue.offer(Caller(deadline=deadline)).timers_at for deadline in (101.0, 103.0, 102.0)]
    assert effects == [[101.0], [], []]
    queue.now = 101.0
    assert queue.expire().timers_at == [102.0]


def test_an_expired_request_is_never_taken():
    """Although the timer is late, and although a batch-mate is alive."""
    queue = Queue()
    late, alive = Caller(deadline=101.0), Caller()
    queue.offer(late, alive)
    queue.now = 101.0
    batch, effects = queue.take()
    assert batch.requests == [alive.request]
    assert failed(effects) == {late.request: DeadlineExceededError}


def test_expired_requests_make_room_before_a_new_one_is_refused():
    """The timer being late costs nobody a refusal."""
    queue = Queue()
    queue.offer(Caller(rows=4, deadline=101.0))
    queue.now = 101.0
    newcomer = Caller(rows=4)
    effects = queue.offer(newcomer)
    assert effects.admitted == [newcomer.request]
    assert list(failed(effects).values()) == [DeadlineExceededError]


def test_a_running_request_is_answered_at_its_deadline():
    """A request with a timeout need not wait for the model."""
    queue, caller = Queue(), Caller(deadline=101.0)
    queue.offer(caller)
    queue.take()
    queue.now = 101.0
    assert failed(queue.expire()) == {caller.request: DeadlineExceededError}
    assert queue.state.running_rows == 1


@pytest.mark.parametrize("taken", [True, False])
def test_whether_one_who_leaves_may_be_running(taken):
    """Only then is it worth a look at the runs."""
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


def test_a_request_that_can_no_longer_be_in_time_is_not_run():
    """It fails before its deadline, and the worker takes the next one."""
    queue = _slow()
    queue.offer(late := Caller(deadline=queue.now + 0.25), other := Caller())
    queue.now += 0.2
    batch, effects = queue.take()
    assert batch.requests == [other.request]
    assert failed(effects) == {late.request: DeadlineExceededError}


def test_nor_is_one_that_goes_first_because_of_its_age():
    """Whatever its priority, the head of the queue is the one that would run."""
    queue = _slow(low_priority_share=0.5)
    queue.offer(low := Caller(priority=3, deadline=queue.now + 0.25), *(Caller(priority=1) for _ in range(4)))
    for _ in range(2):
        assert queue.take()[0].requests[0].priority == 1
    queue.now += 0.2
    batch, effects = queue.take()
    assert batch.requests[0].priority == 1
    assert failed(effects) == {low.request: DeadlineExceededError}


def test_nor_is_a_scavenger():
    """Idle time is better spent on the next one."""
    queue = _slow()
    queue.offer(late := Caller(priority=4, deadline=queue.now + 0.25), other := Caller(priority=4))
    queue.now += 0.2
    batch, effects = queue.take()
    assert batch.requests == [other.request]
    assert failed(effects) == {late.request: DeadlineExceededError}
