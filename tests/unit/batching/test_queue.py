"""The lock, the timer and the waking of workers."""

import logging
import threading

import pytest

from inferd.batching.planner import BatchRules
from inferd.batching.policies import policy_for
from inferd.batching.queue import RequestQueue
from inferd.batching.request import Answers, Batch
from inferd.batching.state import QueueState
from inferd.config.settings import Backpressure, QueueSettings
from inferd.errors import DeadlineExceededError, InferenceFailedError, ModelUnavailableError
from tests.fakes import Caller, FakeClock, ManualPollThread, RecordingStats
from tests.patience import PATIENCE_S


class _Queue:
    def __init__(self, **settings):
        queue = QueueSettings(**({"max_rows": 4} | settings))
        self.clock = FakeClock()
        self.poll_thread = ManualPollThread(self.clock)
        self.ran_here: list[Batch] = []
        self.settled: list[float] = []
        self.queue = RequestQueue(
            state=QueueState(
                name="m",
                settings=queue,
                policy=policy_for(queue),
                rules=BatchRules(max_rows=4),
                workers=1,
                parallel_runs=1,
            ),
            answers=Answers(clock=self.clock, stats=RecordingStats()),
            clock=self.clock,
            poll_thread=self.poll_thread,
            run_here=self.ran_here.append,
            on_running_settled=lambda: self.settled.append(self.clock()),
        )

    def offer(self, *callers):
        for caller in callers:
            self.queue.offer([caller.request])


@pytest.fixture
def q():
    return _Queue()


class _Taker(threading.Thread):
    """A thread that takes one batch."""

    def __init__(self, queue):
        super().__init__(daemon=True)
        self._queue = queue
        self.batch = "nothing yet"
        self.start()

    def run(self):
        self.batch = self._queue.take(None)

    def taken(self):
        self.join(PATIENCE_S)
        assert not self.is_alive(), "the worker was never woken"
        return self.batch


def test_an_admitted_request_is_released_at_once(q):
    """Its producer may bring the next one; the answer is to come."""
    caller = Caller()
    q.offer(caller)
    assert caller.released
    assert caller.waits
    assert (q.queue.rows, q.queue.nbytes, q.queue.present) == (1, 8, 1)


def test_a_blocked_request_is_released_when_it_is_admitted():
    """Until then its stream is not read."""
    q = _Queue(policy=Backpressure.BLOCK)
    q.offer(Caller(rows=4), blocked := Caller())
    assert blocked.releases == 0
    q.queue.take(None)
    assert blocked.released
    assert blocked.waits


def test_a_request_that_runs_outside_the_queue_is_not_released():
    """Its producer waits for the run."""
    q = _Queue(policy=Backpressure.CALLER_RUNS)
    q.offer(Caller(rows=4))
    caller = Caller()
    assert len(q.queue.offer([caller.request])) == 1
    assert caller.releases == 0


def test_a_waiting_worker_is_woken_by_a_request(q):
    """There is no polling that would find it."""
    taker = _Taker(q.queue)
    caller = Caller()
    q.offer(caller)
    assert taker.taken().requests == [caller.request]


def _when_waiting(queue):
    """Return an event that is set when a worker has begun to wait: by then it has let go of the queue's lock."""
    waiting, wait = threading.Event(), queue._work.wait

    def tell(timeout=None):
        waiting.set()
        return wait(timeout)

    queue._work.wait = tell
    return waiting


def test_requests_that_come_together_are_taken_together(q):
    """A worker that waits is not woken by the first of them, but when no more are ready to come in, and once."""
    q.poll_thread.busy = True
    waiting = _when_waiting(q.queue)
    taker = _Taker(q.queue)
    assert waiting.wait(PATIENCE_S)
    callers = [Caller() for _ in range(3)]
    q.offer(*callers)
    assert len(q.poll_thread.when_idle) == 1
    q.poll_thread.when_idle.pop()()
    assert taker.taken().requests == [caller.request for caller in callers]


def test_a_full_batch_is_taken_at_once(q):
    """There is nothing to be gained by waiting for more."""
    q.poll_thread.busy = True
    waiting = _when_waiting(q.queue)
    taker = _Taker(q.queue)
    assert waiting.wait(PATIENCE_S)
    callers = [Caller(rows=2) for _ in range(2)]
    q.offer(*callers)
    assert taker.taken().requests == [caller.request for caller in callers]


def test_every_waiting_worker_gets_its_share(q):
    """What one worker leaves wakes the next, even if all requests came before the first one was awake."""
    takers = [_Taker(q.queue) for _ in range(3)]
    callers = [Caller(key=key) for key in "abc"]
    q.offer(*callers)
    taken = {taker.taken().requests[0] for taker in takers}
    assert taken == {caller.request for caller in callers}


def test_the_timer_answers_expired_requests_while_nobody_takes(q):
    """Promptly, with every worker busy, and through one timer."""
    callers = [Caller(deadline=101.0 + number) for number in range(3)]
    q.offer(*callers)
    assert q.poll_thread.armed == [101.0]
    for number, caller in enumerate(callers):
        q.clock.now = 101.0 + number
        q.poll_thread.fire_due()
        assert isinstance(caller.error, DeadlineExceededError)
        assert len(q.poll_thread.armed) <= 1
    assert q.queue.present == 0


def test_a_timer_that_fires_for_nobody_arms_no_other(q):
    """The request has been answered long ago."""
    caller = Caller(deadline=101.0)
    q.offer(caller)
    q.queue.close()
    q.queue.retire(q.queue.take(None))
    q.clock.now = 101.0
    q.poll_thread.fire_due()
    assert q.poll_thread.armed == []


def test_a_worker_delivers_expiries_before_it_waits(q):
    """A late timer does not leave an expired request unanswered while the worker sleeps."""
    answered = threading.Event()
    q.offer(Caller(deadline=101.0, on_outcome=lambda _: answered.set()))
    q.clock.now = 101.0
    taker = _Taker(q.queue)
    assert answered.wait(PATIENCE_S)
    q.queue.close()
    assert taker.taken() is None


def test_no_outcome_is_delivered_with_the_lock_held():
    """A receiver may use the queue: here the victim of a shed asks again at once."""
    q = _Queue(policy=Backpressure.SHED_OLDEST, max_rows=1)
    again = Caller(priority=2)
    victim = Caller(priority=3, on_outcome=lambda _: q.offer(again))
    q.offer(victim, newcomer := Caller(priority=1))
    assert newcomer.waits
    assert again.outcome


def test_closing_ends_the_workers_that_wait(q):
    """Both of them, though there is nothing to take."""
    takers = [_Taker(q.queue) for _ in range(2)]
    q.queue.close()
    assert [taker.taken() for taker in takers] == [None, None]


def test_what_was_admitted_is_taken_after_closing(q):
    """Then the queue has ended."""
    q.offer(caller := Caller())
    q.queue.close()
    batch = q.queue.take(None)
    assert batch.requests == [caller.request]
    assert not q.queue.wait_drained(0.0)
    assert q.queue.take(batch) is None
    assert q.queue.wait_drained(0.0)


def test_a_cancel_can_be_what_drains_a_closed_queue(q):
    """`wait_drained` returns, and the workers end."""
    q.offer(first := Caller(rows=4, key="a"))
    q.queue.close()
    drained = []
    waiter = threading.Thread(target=lambda: drained.append(q.queue.wait_drained(10)), daemon=True)
    waiter.start()
    q.queue.remove(first.request)
    waiter.join(PATIENCE_S)
    assert drained == [True]
    assert q.queue.take(None) is None


def test_abandoning_answers_everyone():
    """Waiting, blocked and running."""
    q = _Queue(policy=Backpressure.BLOCK)
    callers = [Caller(rows=4) for _ in range(3)]
    q.offer(callers[0])
    q.queue.take(None)
    q.offer(*callers[1:])
    q.queue.close()
    q.queue.abandon(ModelUnavailableError("gone"))
    assert [type(caller.error) for caller in callers] == [ModelUnavailableError] * 3


def test_planning_that_fails_answers_what_waits_and_the_worker_lives(q, caplog):
    """A key that cannot be compared must not leave its request, or anyone's, hanging."""

    class Incomparable:
        def __eq__(self, other):
            raise RuntimeError("cannot compare")

        __hash__ = object.__hash__

    callers = [Caller(key=Incomparable()), Caller(key=Incomparable())]
    answered = threading.Semaphore(0)
    for caller in callers:
        caller._on_outcome = lambda _: answered.release()
    q.offer(*callers)
    with caplog.at_level(logging.ERROR, "inferd.batching"):
        taker = _Taker(q.queue)
        assert answered.acquire(timeout=PATIENCE_S)
        assert answered.acquire(timeout=PATIENCE_S)
    assert [type(caller.error) for caller in callers] == [InferenceFailedError] * 2
    assert "cannot compare" in caplog.text
    q.offer(good := Caller())
    assert taker.taken().requests == [good.request]


def test_those_who_look_after_runs_hear_of_callers_who_have_gone(q):
    """Of those whose requests may be running: they have expired, were cancelled, or were given up."""
    q.offer(cancelled := Caller(), expired := Caller(deadline=101.0), Caller())
    q.queue.take(None)
    q.offer(waiting := Caller())
    q.queue.remove(waiting.request)
    assert q.settled == []
    q.queue.remove(cancelled.request)
    assert q.settled == [100.0]
    q.clock.advance(1.5)
    q.poll_thread.fire_due()
    assert isinstance(expired.error, DeadlineExceededError)
    assert q.settled == [100.0, 101.5]
    q.queue.abandon(ModelUnavailableError("gone"))
    assert len(q.settled) == 3
