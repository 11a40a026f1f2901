"""Runs that do not end when terminated, with real workers and a fake clock."""

import threading

import pytest

from inferd.batching.batcher import Batcher
from inferd.batching.run_guard import ENDING_S
from inferd.config.settings import Backpressure, BatchingSettings, QueueSettings
from inferd.errors import DeadlineExceededError, OverloadedError, RunTooLongError
from tests.fakes import Caller, FakeClock, FakeSession, ManualPollThread, RecordingStats, scale
from tests.patience import PATIENCE_S, eventually
from tests.unit.batching.executing import x

_LIMIT_S = 60.0


class _Service:
    """A batcher on a model in which runs of negative numbers hang until the test ends them."""

    def __init__(self, queue=None, **batching):
        self.clock = FakeClock()
        self.poll_thread, self.alarm = ManualPollThread(self.clock), ManualPollThread(self.clock)
        self.stats = RecordingStats()
        self.entered = threading.Semaphore(0)
        self.hanging: list[threading.Event] = []
        self.session = FakeSession(self._compute)
        self.batcher = Batcher(
            name="m",
            session=self.session,
            queue=queue or QueueSettings(),
            batching=BatchingSettings(check_share=0.0, **batching),
            max_run_s=_LIMIT_S,
            clock=self.clock,
            poll_thread=self.poll_thread,
            alarm=self.alarm,
            stats=self.stats,
        )
        self.batcher.start()

    def _compute(self, inputs):
        if (inputs["x"] < 0).any():
            self.hanging.append(ended := threading.Event())
            self.entered.release()
            assert ended.wait(PATIENCE_S)
        return scale(inputs)

    def submit(self, *callers):
        self.batcher.queue.submit([caller.request for caller in callers])

    def hang(self, caller):
        """Make the run of ``caller`` hang."""
        self.submit(caller)
        assert self.entered.acquire(timeout=PATIENCE_S)

    def pass_limit(self):
        """Advance the clock past the run limit, then past the time in which the run may end."""
        for seconds in (_LIMIT_S, ENDING_S):
            self.clock.advance(seconds)
            self.alarm.fire_due()

    def close(self):
        for event in self.hanging:
            event.set()
        eventually(lambda: self.batcher.stuck_threads == 0, "no thread is stuck")
        assert self.batcher.stop(PATIENCE_S)


@pytest.fixture
def make():
    services = []

    def make(*args, **settings):
        services.append(_Service(*args, **settings))
        return services[-1]

    yield make
    for service in services:
        service.close()


def _endless(**facts):
    return Caller(x=x(-1), **facts)


def test_model_serves_while_a_run_hangs(make):
    """The callers are answered at the limit; later another thread takes what is queued."""
    service = make()
    service.hang(stuck := _endless())
    service.submit(waiting := Caller())
    service.clock.advance(_LIMIT_S)
    service.alarm.fire_due()
    assert isinstance(stuck.error, RunTooLongError)
    assert waiting.waits
    service.clock.advance(ENDING_S)
    service.alarm.fire_due()
    waiting.wait()
    assert waiting.result
    assert service.batcher.stuck_threads == 1
    assert service.stats.ended == ["time_limit"]


@pytest.mark.parametrize("leaves", ["deadline", "cancel"])
def test_gives_up_stuck_run_without_callers(make, leaves):
    """Once it has had the time to end, long before the limit."""
    service = make()
    service.hang(stuck := _endless(deadline=101.0 if leaves == "deadline" else float("inf")))
    service.clock.advance(1.1)
    if leaves == "deadline":
        service.poll_thread.fire_due()
        assert isinstance(stuck.error, DeadlineExceededError)
    else:
        service.batcher.queue.cancel(stuck.request)
    assert service.session.stops[0].is_stopped
    service.clock.advance(ENDING_S)
    service.alarm.fire_due()
    assert service.batcher.stuck_threads == 1
    service.submit(next_one := Caller())
    next_one.wait()
    assert service.stats.ended == ["abandoned"]


def test_late_result_is_dropped(make):
    """The model then has as many workers as before."""
    service = make()
    service.hang(stuck := _endless())
    service.pass_limit()
    service.hanging[0].set()
    eventually(lambda: service.batcher.stuck_threads == 0, "the thread has come back")
    assert isinstance(stuck.error, RunTooLongError)
    for _ in range(3):
        service.submit(caller := Caller())
        assert caller.wait()
    assert service.batcher.statistics().success.count == 3
    assert service.batcher.running_rows == 0


def test_rejects_requests_while_too_many_threads_hang(make):
    """At once and with a hint, queued ones too; when one returns the model serves again."""
    service = make()
    for _ in range(5):
        service.hang(_endless())
        waiting = Caller()
        if len(service.hanging) == 5:
            service.submit(waiting)
        service.pass_limit()
    service.submit(refused := Caller())
    for caller in (waiting, refused):
        assert isinstance(caller.error, OverloadedError)
    assert service.stats.rejections == 2 * ["RUNS_STUCK"]
    service.hanging[0].set()
    eventually(lambda: service.batcher.stuck_threads == 4, "a thread has come back")
    eventually(lambda: _answers(service), "the model answers")


def _answers(service):
    service.submit(caller := Caller())
    return not isinstance(caller.wait(), OverloadedError)


def test_stuck_caller_runs_thread_is_replaced(make):
    """Requests may run outside the queue as before."""
    service = make(QueueSettings(policy=Backpressure.CALLER_RUNS, max_rows=1, caller_runs_limit=1), max_batch_size=1)
    service.hang(in_queue := _endless())
    service.submit(waiting := Caller(deadline=1e9))
    service.hang(outside := _endless())
    assert outside.waits
    service.batcher.queue.cancel(outside.request)
    service.clock.advance(ENDING_S)
    service.alarm.fire_due()
    assert service.batcher.stuck_threads == 1
    service.submit(beside := Caller())
    assert beside.wait()
    assert beside.result
    assert in_queue.waits
    assert waiting.waits


def test_stuck_group_of_a_failed_batch_does_not_affect_the_rest(make):
    """Two fail together; the first hangs alone, and the next thread runs the second."""
    service = make()
    service.hang(first := _endless())
    runs = []

    def compute(inputs):
        runs.append(len(inputs["x"]))
        if len(inputs["x"]) > 1:
            raise RuntimeError("together")
        return _Service._compute(service, inputs)

    service.session._compute = compute
    service.submit(bad := _endless(), good := Caller())
    service.hanging[0].set()
    assert first.wait()
    assert service.entered.acquire(timeout=PATIENCE_S)
    service.pass_limit()
    assert isinstance(bad.error, RunTooLongError)
    good.wait()
    assert good.result
    assert runs == [2, 1, 1]


def test_stop_does_not_wait_for_stuck_run():
    """It reports that the session is still in use."""
    service = _Service()
    service.hang(_endless())
    service.pass_limit()
    assert not service.batcher.stop(10)
    service.close()


def test_stop_without_a_grace_ends_runs():
    """The remaining callers are answered, and no thread waits any more."""
    service = _Service()
    service.hang(_endless())
    assert not service.batcher.stop(0.0)
    assert service.session.stops[0].is_stopped
    service.close()
