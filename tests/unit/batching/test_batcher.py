"""The batcher as a whole, with real workers where the behaviour depends on them."""

import threading
import time

import numpy as np
import pytest

from inferd.batching.batcher import Batcher
from inferd.batching.cost_model import CostModel
from inferd.batching.request import InferenceResult
from inferd.config.settings import Backpressure, BatchingSettings, QueueSettings
from inferd.errors import ModelUnavailableError, OverloadedError
from inferd.runtime.signature import ModelSignature
from tests.fakes import Caller, FakeClock, FakeSession, ManualPollThread, RecordingStats, tensor
from tests.patience import PATIENCE_S

UNBATCHABLE = ModelSignature(
    inputs=(tensor("x", (1, "length"), batch_axis=None),),
    outputs=(tensor("y", (1, "length"), batch_axis=None),),
    batchable=False,
)


class _Service:
    def __init__(self, session, queue=None, *, seeds=(), **batching):
        self.session = session
        self.stats = RecordingStats()
        self.clock = FakeClock()
        self.alarm = ManualPollThread(self.clock)
        self.batcher = Batcher(
            name="m",
            session=session,
            queue=queue or QueueSettings(),
            batching=BatchingSettings(**{"check_share": 0.0, **batching}),
            clock=time.monotonic,
            max_run_s=60.0,
            poll_thread=ManualPollThread(FakeClock()),
            alarm=self.alarm,
            stats=self.stats,
            seeds=seeds,
        )

    def submit(self, *callers):
        for caller in callers:
            caller.request.received_at = time.monotonic()
            self.batcher.queue.submit([caller.request])


@pytest.fixture
def gate():
    """An event that is set at the end, so that no run outlives its test."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def busy(gate):
    """A function that starts a service whose one worker is inside the model until the gate opens."""
    services = []

    def start(**settings):
        service = _Service(FakeSession(gate=gate), QueueSettings(**settings), max_batch_size=4)
        services.append(service)
        service.batcher.start()
        service.submit(first := Caller())
        assert service.session.entered.acquire(timeout=PATIENCE_S)
        return service, first

    yield start
    gate.set()
    for service in services:
        assert service.batcher.stop(PATIENCE_S)


def _run_all(service, *callers):
    """Submit before the workers start, so that the composition of batches does not depend on timing."""
    service.submit(*callers)
    service.batcher.start()
    assert service.batcher.stop(PATIENCE_S)


def test_run_cost_is_known_from_warm_up():
    """Without any run; sizes in between are interpolated."""
    batcher = _Service(FakeSession(), seeds=[(1, 0.002), (8, 0.016)], max_batch_size=8).batcher
    cost = batcher.run_cost()
    assert [each.rows for each in cost.sizes] == [1, 2, 4, 8]
    assert [each.seconds for each in cost.sizes] == pytest.approx([0.002, 0.004, 0.008, 0.016])
    assert all(each.p95_s > each.seconds for each in cost.sizes)
    assert (cost.runs, cost.error) == (0, None)


def test_run_cost_without_batching_is_that_of_one_row():
    """There is none until something has run."""
    batcher = _Service(FakeSession(), enabled=False).batcher
    assert batcher.run_cost() is None
    seeded = _Service(FakeSession(), seeds=[(1, 0.002)], enabled=False).batcher
    assert [each.rows for each in seeded.run_cost().sizes] == [1]


def test_run_cost_is_read_with_the_lock(monkeypatch):
    """Predictions are cached, and runs that end in other threads change them."""
    batcher, locked = _Service(FakeSession()).batcher, []
    monkeypatch.setattr(CostModel, "snapshot", lambda *_: locked.append(batcher.queue._lock.locked()))
    batcher.run_cost()
    assert locked == [True]


class _Threads(FakeSession):
    """A model that records the threads that run it, and advances the clock by a configured duration."""

    def __init__(self, clock, run_s):
        super().__init__()
        self._clock, self._run_s = clock, run_s
        self.threads = set()

    def run(self, inputs, outputs, stop):
        self.threads.add(threading.get_ident())
        self._clock.advance(self._run_s)
        return super().run(inputs, outputs, stop)


def _threads_that_run(run_s, *, bounded=True):
    clock = FakeClock()
    session = _Threads(clock, run_s)
    session.runs_are_bounded = bounded
    batcher = Batcher(
        name="m",
        session=session,
        queue=QueueSettings(),
        batching=BatchingSettings(check_share=0.0),
        clock=clock,
        max_run_s=60.0,
        poll_thread=ManualPollThread(clock),
        alarm=ManualPollThread(clock),
        stats=RecordingStats(),
    )
    batcher.start()
    for _ in range(300):
        caller = Caller()
        batcher.queue.submit([caller.request])
        assert isinstance(caller.wait(), InferenceResult)
    assert batcher.stop(PATIENCE_S)
    return session.threads


def test_submitter_executes_short_runs():
    """On the poll thread they end sooner than a worker wakes."""
    assert threading.get_ident() in _threads_that_run(0.0001)


def test_submitter_executes_no_long_runs():
    """They must not block the poll thread."""
    assert threading.get_ident() not in _threads_that_run(0.001)


def test_submitter_executes_no_runs_of_unbounded_duration():
    """However short they have been, the next one may take forever."""
    assert threading.get_ident() not in _threads_that_run(0.0001, bounded=False)


def test_queued_requests_run_together():
    """Up to the batch size in rows."""
    service, callers = _Service(FakeSession(), max_batch_size=4), [Caller() for _ in range(6)]
    _run_all(service, *callers)
    assert service.session.runs == [4, 2]
    assert all(caller.result for caller in callers)
    assert service.stats.offers == [1] * 6


def test_batches_have_preferred_sizes():
    """As far as the queued requests add up to one."""
    service, callers = _Service(FakeSession(), max_batch_size=8, preferred_sizes=[2, 4]), [Caller() for _ in range(7)]
    _run_all(service, *callers)
    assert service.session.runs == [4, 2, 1]


def test_without_batching_each_request_runs_alone():
    """In one run, whatever its number of rows."""
    service = _Service(FakeSession(), enabled=False, max_batch_size=4)
    _run_all(service, Caller(rows=10), Caller(rows=2))
    assert service.session.runs == [10, 2]


def test_model_that_cannot_batch_runs_each_request_alone():
    """Whatever the settings say."""
    session = FakeSession(lambda inputs: {"y": inputs["x"]}, signature=UNBATCHABLE)
    callers = [Caller(x=np.full((1, 3), value, dtype=np.float32)) for value in (1, 2)]
    _run_all(_Service(session), *callers)
    assert session.runs == [1, 1]
    assert [caller.result.outputs["y"][0, 0] for caller in callers] == [1, 2]


def test_request_larger_than_a_batch_gets_one_answer():
    """It runs alone, in chunks."""
    service = _Service(FakeSession(), max_batch_size=4)
    _run_all(service, large := Caller(rows=9), Caller())
    assert service.session.runs == [4, 4, 1, 1]
    assert large.result.outputs["y"].shape == (9, 2)


def test_counts_queued_and_running_requests(busy):
    """For the gauges."""
    service, _ = busy()
    service.submit(Caller(rows=2, nbytes=100), Caller(rows=3, nbytes=50))
    batcher = service.batcher
    assert (batcher.queue_rows, batcher.queue_bytes, batcher.running_rows, batcher.unanswered_requests) == (
        5,
        150,
        1,
        3,
    )


def test_cancelled_request_leaves_the_queue_without_an_outcome(busy):
    """At once, although the worker is busy."""
    service, _ = busy(max_rows=1)
    service.submit(cancelled := Caller())
    service.batcher.queue.cancel(cancelled.request)
    service.submit(successor := Caller())
    assert cancelled.waits
    assert successor.waits
    assert service.batcher.queue_rows == 1


def test_cancel_after_the_answer_has_no_effect():
    """The answer was delivered."""
    service, caller = _Service(FakeSession()), Caller()
    _run_all(service, caller)
    service.batcher.queue.cancel(caller.request)
    assert caller.result


def test_full_queue_rejects_with_hint_and_counts_rows(busy):
    """Rejected rows count as offered and as rejected."""
    service, _ = busy(max_rows=1)
    service.submit(Caller(), refused := Caller(rows=1))
    assert isinstance(refused.error, OverloadedError)
    assert refused.error.retry_after_s > 0
    assert refused.released
    assert service.stats.rejections == ["QUEUE_FULL"]
    assert service.stats.offers == [1, 1, 1]


def test_caller_runs_uses_its_own_threads_and_releases_afterwards(busy, gate):
    """The worker is busy and the queue is full throughout."""
    service, _ = busy(max_rows=1, policy=Backpressure.CALLER_RUNS, caller_runs_limit=1)
    service.submit(waiting := Caller(), beside := Caller())
    assert service.session.entered.acquire(timeout=PATIENCE_S)
    assert waiting.released
    assert beside.releases == 0
    service.submit(refused := Caller())
    assert refused.error.reason == "CALLER_RUNS_LIMIT"
    gate.set()
    beside.wait()
    assert beside.released
    assert beside.result.timing.rows == 1
    assert service.stats.caller_runs == 1


def test_stop_finishes_accepted_requests(busy, gate):
    """Running, queued and blocked ones; later requests are rejected."""
    service, running = busy(max_rows=1, policy=Backpressure.BLOCK)
    service.submit(queued := Caller(), blocked := Caller())
    stopped = []
    stopper = threading.Thread(target=lambda: stopped.append(service.batcher.stop(PATIENCE_S)), daemon=True)
    stopper.start()
    late = _submit_until_refused(service)
    gate.set()
    stopper.join(PATIENCE_S)
    assert stopped == [True]
    assert running.result
    assert queued.result
    assert blocked.result
    assert isinstance(late.error, ModelUnavailableError)
    assert service.batcher.unanswered_requests == 0


def _submit_until_refused(service):
    """Submit until the stop in another thread takes effect; cancel requests admitted before that."""
    while True:
        service.submit(late := Caller())
        if not late.waits:
            return late
        service.batcher.queue.cancel(late.request)


def test_stop_ends_the_threads():
    """Those of the workers and those of caller_runs."""
    service = _Service(FakeSession(), QueueSettings(policy=Backpressure.CALLER_RUNS), instances=3)
    before = threading.active_count()
    service.batcher.start()
    service.submit(Caller())
    assert threading.active_count() == before + 5
    assert service.batcher.stop(PATIENCE_S)
    assert threading.active_count() == before


def test_stop_fails_remaining_requests_at_its_timeout(busy):
    """It reports the model as still running, so that it is not closed."""
    service, running = busy()
    service.submit(queued := Caller())
    assert not service.batcher.stop(0.0)
    assert isinstance(running.error, ModelUnavailableError)
    assert isinstance(queued.error, ModelUnavailableError)


def test_stop_is_idempotent_and_needs_no_start():
    """Loading may end in any state."""
    batcher = _Service(FakeSession()).batcher
    assert batcher.stop(0.0)
    assert batcher.stop(0.0)


def test_statistics_count_requests_rows_and_runs():
    """For the statistics of the model."""
    service = _Service(FakeSession(), max_batch_size=4)
    _run_all(service, Caller(rows=2), Caller(rows=2), Caller())
    snapshot = service.batcher.statistics()
    assert (snapshot.success.count, snapshot.inference_count, snapshot.execution_count) == (3, 5, 2)
    assert list(snapshot.batch_sizes) == [1, 4]


def test_instances_run_in_parallel(gate):
    """Two batches are inside the model at once."""
    service = _Service(FakeSession(gate=gate), instances=2, max_batch_size=1)
    service.batcher.start()
    service.submit(Caller(), Caller())
    assert service.session.entered.acquire(timeout=PATIENCE_S)
    assert service.session.entered.acquire(timeout=PATIENCE_S)
    gate.set()
    assert service.batcher.stop(PATIENCE_S)


def test_single_caller_is_not_delayed():
    """The wait may last a minute, and forty sequential requests incur none of it."""
    service = _Service(FakeSession(), max_wait_ms=60_000)
    service.batcher.start()
    for _ in range(40):
        service.submit(caller := Caller())
        caller.wait()
    assert service.batcher.stop(PATIENCE_S)
