"""Worker threads of a model that runs batches on one core each while full ones wait."""

import logging
import threading

import pytest

from inferd.batching import one_core as module
from inferd.batching.batcher import Batcher
from inferd.config.settings import BatchingSettings, QueueSettings
from inferd.runtime.errors import ModelLoadError
from tests.fakes import Caller, FakeClock, FakeSession, ManualPollThread, RecordingStats
from tests.patience import PATIENCE_S, eventually

_ROWS = 4


class _OneCore:
    """A session for two runs at a time; ``timed`` is what opening it returns or raises."""

    runs = 2

    def __init__(self, gate):
        self.model = FakeSession(gate=gate)
        self.timed = ((_ROWS, 0.01),)
        self.is_open = False
        self.openings = threading.Semaphore(0)

    def run(self, inputs, outputs, stop):
        return self.model.run(inputs, outputs, stop)

    def open(self, most_rows):
        self.openings.release()
        assert most_rows == _ROWS
        if isinstance(self.timed, Exception):
            raise self.timed
        self.is_open = bool(self.timed)
        return self.timed


class _Service:
    """A batcher whose runs on all cores and on one wait for a gate each."""

    def __init__(self):
        self.gate, self.one_gate = threading.Event(), threading.Event()
        self.session = FakeSession(gate=self.gate)
        self.one_core = _OneCore(self.one_gate)
        self.batcher = Batcher(
            name="m",
            session=self.session,
            one_core=self.one_core,
            queue=QueueSettings(max_delay_ms=0.0),
            batching=BatchingSettings(check_share=0.0, max_batch_size=_ROWS, max_wait_ms=0.0),
            clock=FakeClock(),
            max_run_s=3600.0,
            poll_thread=ManualPollThread(FakeClock()),
            alarm=ManualPollThread(FakeClock()),
            stats=RecordingStats(),
        )
        self.batcher.start()

    def submit(self, count):
        callers = [Caller() for _ in range(count)]
        self.batcher.queue.submit([caller.request for caller in callers])
        return callers

    def answered(self, callers):
        eventually(lambda: all(len(caller.outcomes) == 1 for caller in callers), "all are answered")

    def open(self):
        """Have full batches wait until the session is open and there are workers for it."""
        self.answered(self.submit(6 * _ROWS))
        eventually(lambda: self.batcher.queue._state.one_core._has_workers, "there are workers for it")

    def stop(self):
        self.gate.set()
        self.one_gate.set()
        assert self.batcher.stop(PATIENCE_S)


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setattr(module, "TUNING", module.OneCoreTuning(backlogs=1, backlog_s=0.0))
    made = _Service()
    yield made
    made.stop()


def test_two_batches_run_at_a_time_once_the_session_is_open(service):
    """It is opened in the background while full batches wait; before that, one runs on all cores."""
    callers = service.submit(6 * _ROWS)
    assert service.session.entered.acquire(timeout=PATIENCE_S)
    assert service.one_core.openings.acquire(timeout=PATIENCE_S)
    eventually(lambda: service.batcher.queue._state.one_core._has_workers, "there are workers for it")
    assert not service.one_core.model.entered.acquire(blocking=False)
    service.gate.set()
    for _ in range(2):
        assert service.one_core.model.entered.acquire(timeout=PATIENCE_S)
    service.one_gate.set()
    service.answered(callers)
    assert service.batcher.one_core_batches >= 2
    assert all(caller.result for caller in callers)


def test_everything_is_answered_whatever_waits(service):
    """Bursts of all sizes: no worker is left asleep."""
    service.gate.set()
    service.one_gate.set()
    service.open()
    for count in range(1, 5 * _ROWS):
        service.answered([*service.submit(count), *service.submit(1)])
    assert service.batcher.one_core_batches > 0


@pytest.mark.parametrize("timed", [(), ModelLoadError("the file is gone")])
def test_session_that_cannot_be_used_changes_nothing(service, timed, caplog):
    """It is tried once."""
    service.one_core.timed = timed
    service.gate.set()
    with caplog.at_level(logging.ERROR, "inferd.batching"):
        for _ in range(3):
            service.answered(service.submit(6 * _ROWS))
    assert service.batcher.one_core_batches == 0
    assert service.one_core.openings.acquire(timeout=PATIENCE_S)
    assert not service.one_core.openings.acquire(blocking=False)
    assert ("the file is gone" in caplog.text) == isinstance(timed, Exception)
