"""The lock, the timer and the wake-ups of workers."""

import logging
import threading

import pytest

from inferd.batching.planner import BatchRules
from inferd.batching.policies import policy_for
from inferd.batching.queue import RequestQueue
from inferd.batching.request import Batch, ReplyDispatcher
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
        self.ran_outside: list[Batch] = []
        self.settled: list[float] = []
        self.starts = 0
        self.queue = RequestQueue(
            state=QueueState(
                name="m",
                settings=queue,
                policy=policy_for(queue),
                rules=BatchRules(max_rows=4),
                workers=1,
                parallel_runs=1,
            ),
            replies=ReplyDispatcher(clock=self.clock, stats=RecordingStats()),
            clock=self.clock,
            poll_thread=self.poll_thread,
            run_here=self.ran_here.append,
            run_outside=self.ran_outside.append,
            on_running_settled=lambda: self.settled.append(self.clock()),
        )
        self.queue.start_threads = self._start_threads

    def _start_threads(self):
        self.starts += 1
        return self.starts == 2

    def offer(self, *callers):
        for caller in callers:
            self.queue.submit([caller.request])


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


def test_admitted_request_is_released_at_once(q):
    """Its producer may send the next one before the answer."""
    caller = Caller()
    q.offer(caller)
    assert caller.released
    assert caller.waits
    assert q.queue.present == 1


def test_blocked_request_is_released_at_admission():
    """Its stream is not read until then."""
    q = _Queue(policy=Backpressure.BLOCK)
    q.offer(Caller(rows=4), blocked := Caller())
    assert blocked.releases == 0
    q.queue.take(None)
    assert blocked.released
    assert blocked.waits


def test_request_that_runs_outside_the_queue_is_not_released():
    """Its producer waits for the run."""
    q = _Queue(policy=Backpressure.CALLER_RUNS)
    q.offer(Caller(rows=4))
    caller = Caller()
    q.offer(caller)
    assert [batch.requests for batch in q.ran_outside] == [[caller.request]]
    assert caller.releases == 0


def test_threads_are_started_until_all_have(q):
    """Each request tries again."""
    q.offer(*(Caller() for _ in range(4)))
    assert q.starts == 2


def test_request_wakes_an_idle_worker(q):
    """There is no polling."""
    taker = _Taker(q.queue)
    caller = Caller()
    q.offer(caller)
    assert taker.taken().requests == [caller.request]


def test_time_of_the_last_batch_is_known(q):
    """Also of one that leaves nothing behind: models that are in use are not taken for idle ones."""
    q.offer(Caller())
    assert q.queue.take(None).requests
    assert q.queue.last_dispatch_at == q.clock()


def _when_waiting(queue):
    """Return an event that is set once a worker waits and so has released the queue's lock."""
    waiting, wait = threading.Event(), queue._work.wait

    def tell(timeout=None):
        waiting.set()
        return wait(timeout)

    queue._work.wait = tell
    return waiting


def test_takes_simultaneous_requests_together(q):
    """An idle worker is woken once, when no more requests are ready to be offered."""
    q.poll_thread.busy = True
    waiting = _when_waiting(q.queue)
    taker = _Taker(q.queue)
    assert waiting.wait(PATIENCE_S)
    callers = [Caller() for _ in range(3)]
    q.offer(*callers)
    assert len(q.poll_thread.when_idle) == 1
    q.poll_thread.when_idle.pop()()
    assert taker.taken().requests == [caller.request for caller in callers]


def test_takes_full_batch_at_once(q):
    """Waiting for more would gain nothing."""
    q.poll_thread.busy = True
    waiting = _when_waiting(q.queue)
    taker = _Taker(q.queue)
    assert waiting.wait(PATIENCE_S)
    callers = [Caller(rows=2) for _ in range(2)]
    q.offer(*callers)
    assert taker.taken().requests == [caller.request for caller in callers]


def test_every_idle_worker_gets_its_share(q):
    """What one worker leaves wakes the next, even if all requests came before the first one was awake."""
    takers = [_Taker(q.queue) for _ in range(3)]
    callers = [Caller(key=key) for key in "abc"]
    q.offer(*callers)
    taken = {taker.taken().requests[0] for taker in takers}
    assert taken == {caller.request for caller in callers}


def test_timer_fails_expired_requests_while_workers_are_busy(q):
    """Promptly, and through one timer."""
    callers = [Caller(deadline=101.0 + number) for number in range(3)]
    q.offer(*callers)
    assert q.poll_thread.armed == [101.0]
    for number, caller in enumerate(callers):
        q.clock.now = 101.0 + number
        q.poll_thread.fire_due()
        assert isinstance(caller.error, DeadlineExceededError)
        assert len(q.poll_thread.armed) <= 1
    assert q.queue.present == 0


def test_timer_without_a_request_arms_no_other(q):
    """The request was answered earlier."""
    caller = Caller(deadline=101.0)
    q.offer(caller)
    q.queue.close()
    q.queue.retire(q.queue.take(None))
    q.clock.now = 101.0
    q.poll_thread.fire_due()
    assert q.poll_thread.armed == []


def test_worker_delivers_expiries_before_it_waits(q):
    """A late timer does not leave an expired request unanswered while the worker sleeps."""
    answered = threading.Event()
    q.offer(Caller(deadline=101.0, on_outcome=lambda _: answered.set()))
    q.clock.now = 101.0
    taker = _Taker(q.queue)
    assert answered.wait(PATIENCE_S)
    q.queue.close()
    assert taker.taken() is None


def test_outcomes_are_delivered_without_the_lock():
    """A receiver may use the queue: here an evicted request is offered again at once."""
    q = _Queue(policy=Backpressure.SHED_OLDEST, max_rows=1)
    again = Caller(priority=2)
    victim = Caller(priority=3, on_outcome=lambda _: q.offer(again))
    q.offer(victim, newcomer := Caller(priority=1))
    assert newcomer.waits
    assert again.outcome


def test_closing_ends_idle_workers(q):
    """Both of them, though the queue is empty."""
    takers = [_Taker(q.queue) for _ in range(2)]
    q.queue.close()
    assert [taker.taken() for taker in takers] == [None, None]


def test_admitted_requests_are_taken_after_closing(q):
    """Then the queue has ended."""
    q.offer(caller := Caller())
    q.queue.close()
    batch = q.queue.take(None)
    assert batch.requests == [caller.request]
    assert not q.queue.wait_drained(0.0)
    assert q.queue.take(batch) is None
    assert q.queue.wait_drained(0.0)


def test_cancel_may_drain_a_closed_queue(q):
    """`wait_drained` returns, and the workers end."""
    q.offer(first := Caller(rows=4, key="a"))
    q.queue.close()
    drained = []
    waiter = threading.Thread(target=lambda: drained.append(q.queue.wait_drained(10)), daemon=True)
    waiter.start()
    q.queue.cancel(first.request)
    waiter.join(PATIENCE_S)
    assert drained == [True]
    assert q.queue.take(None) is None


def test_abandon_fails_all_requests():
    """Queued, blocked and running."""
    q = _Queue(policy=Backpressure.BLOCK)
    callers = [Caller(rows=4) for _ in range(3)]
    q.offer(callers[0])
    q.queue.take(None)
    q.offer(*callers[1:])
    q.queue.close()
    q.queue.abandon(ModelUnavailableError("gone"))
    assert [type(caller.error) for caller in callers] == [ModelUnavailableError] * 3


def test_failed_planning_fails_queued_requests_and_not_the_worker(q, caplog):
    """A key that cannot be compared leaves no request unanswered."""

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


def test_reports_requests_that_end_while_they_may_run(q):
    """Expired, cancelled and failed ones."""
    q.offer(cancelled := Caller(), expired := Caller(deadline=101.0), Caller())
    q.queue.take(None)
    q.offer(waiting := Caller())
    q.queue.cancel(waiting.request)
    assert q.settled == []
    q.queue.cancel(cancelled.request)
    assert q.settled == [100.0]
    q.clock.advance(1.5)
    q.poll_thread.fire_due()
    assert isinstance(expired.error, DeadlineExceededError)
    assert q.settled == [100.0, 101.5]
    q.queue.abandon(ModelUnavailableError("gone"))
    assert len(q.settled) == 3
