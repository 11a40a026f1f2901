"""Worker threads of a model whose instances follow the load."""

import threading
import time
from dataclasses import replace

import pytest

from inferd.batching import instances as module
from inferd.batching.batcher import Batcher
from inferd.batching.instances import IDLE, LOAD, NO_THREAD, TUNING
from inferd.config.settings import BatchingSettings, InstanceRange, QueueSettings
from tests.fakes import Caller, FakeClock, FakeSession, ManualPollThread, RecordingStats
from tests.patience import PATIENCE_S, eventually


class _Steps(FakeSession):
    """A model whose runs end when the test says, and take as long on the fake clock as it says."""

    def __init__(self):
        super().__init__()
        self.begun = threading.Semaphore(0)
        self._may_end = threading.Semaphore(0)

    def run(self, inputs, outputs, stop):
        self.begun.release()
        assert self._may_end.acquire(timeout=PATIENCE_S)
        return super().run(inputs, outputs, stop)

    def end(self, runs):
        for _ in range(runs):
            self._may_end.release()


class _Service:
    """A batcher that runs each request alone."""

    def __init__(self, session, clock, least=1, most=2):
        self.session = session
        self.clock = clock
        self.batcher = Batcher(
            name="m",
            session=session,
            queue=QueueSettings(max_delay_ms=0.0),
            batching=BatchingSettings(
                enabled=False, check_share=0.0, instances=InstanceRange(min=least, max=most), max_batch_size=1
            ),
            clock=clock,
            max_run_s=3600.0,
            poll_thread=ManualPollThread(FakeClock()),
            alarm=ManualPollThread(FakeClock()),
            stats=RecordingStats(),
        )
        self.batcher.start()

    @property
    def instances(self):
        return self.batcher.instances

    def submit(self, count=1):
        callers = [Caller(received_at=self.clock()) for _ in range(count)]
        self.batcher.queue.submit([caller.request for caller in callers])
        return callers


def _threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batch-m-")]


class _Stepped(_Service):
    """Its runs take 0.1 s of the fake clock, and are one step."""

    def __init__(self):
        super().__init__(_Steps(), FakeClock())

    def step(self):
        """Wait for a run to have begun, and end it."""
        assert self.session.begun.acquire(timeout=PATIENCE_S)
        self.clock.advance(0.1)
        self.session.end(1)

    def queue_up(self):
        """Have a queue that brings another instance; return its callers."""
        for _ in range(3):
            (caller,) = self.submit()
            self.step()
            caller.wait()
        callers = self.submit(8)
        while not self.instances.changes[LOAD]:
            self.step()
        return callers

    def finish(self, callers):
        self.session.end(len(callers))
        for caller in callers:
            assert caller.wait()


@pytest.fixture
def stepped():
    service = _Stepped()
    yield service
    service.session.end(100)
    assert service.batcher.stop(PATIENCE_S)
    assert _threads() == []


def test_another_thread_starts_when_requests_wait(stepped):
    """The first one starts with the first request, the second one with a queue."""
    assert _threads() == []
    callers = stepped.queue_up()
    assert sorted(_threads()) == ["batch-m-0", "batch-m-1"]
    for _ in range(2):
        assert stepped.session.begun.acquire(timeout=PATIENCE_S)
    assert stepped.batcher.running_rows == 2
    stepped.finish(callers)


def test_idle_thread_ends(stepped):
    """At the next evaluation after the period; the least number of threads stays, and all requests are answered."""
    stepped.finish(stepped.queue_up())
    stepped.clock.advance(2 * TUNING.period_s)
    (caller,) = stepped.submit()
    assert caller.wait()
    eventually(lambda: len(_threads()) == 1, "one of the threads ends")
    assert (stepped.instances.count, stepped.instances.changes[IDLE]) == (1, 1)
    (caller,) = stepped.submit()
    stepped.session.end(1)
    assert caller.wait()


def test_no_thread_for_another_instance(stepped, monkeypatch):
    """The number falls again, and the requests are answered by the others."""
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: start(thread) if not _threads() else _no_thread())
    stepped.finish(stepped.queue_up())
    assert (stepped.instances.count, stepped.instances.changes[NO_THREAD]) == (1, 1)
    assert len(_threads()) == 1


def _no_thread():
    raise RuntimeError("can't start new thread")


class _Waits(FakeSession):
    """A model that waits for something else, so that runs do not slow each other down."""

    def run(self, inputs, outputs, stop):
        threading.Event().wait(0.005)
        return super().run(inputs, outputs, stop)


def test_instances_follow_a_real_load(monkeypatch):
    """From one to the maximum and back with real threads and time, whatever else the machine does."""
    monkeypatch.setattr(module, "TUNING", replace(TUNING, period_s=0.1, period_runs=2.0))
    service = _Service(_Waits(), time.monotonic, most=3)
    waiting = service.submit(30)
    while service.instances.count < 3:
        waiting.pop(0).wait()
        waiting += service.submit()
    assert service.instances.changes[LOAD] >= 2
    for caller in waiting:
        caller.wait()
    eventually(lambda: service.instances.count == 1, "nothing needs the other instances")
    eventually(lambda: len(_threads()) == 1, "their threads end")
    assert service.batcher.stop(PATIENCE_S)
