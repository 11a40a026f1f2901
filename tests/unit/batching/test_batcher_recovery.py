"""Batches and queue of a model that is short of memory or has lost its device."""

import threading

import pytest

from inferd.batching.batcher import Batcher
from inferd.config.settings import BatchingSettings, QueueSettings
from inferd.errors import ModelUnavailableError
from inferd.runtime.errors import RunFailedError
from tests.fakes import Caller, FakeClock, FakeSession, ManualPollThread, RecordingStats, scale
from tests.patience import PATIENCE_S

_DEVICE = RunFailedError(RuntimeError("CUDA failure 719: unspecified launch failure ; GPU=0"))


class _Service:
    """A batcher of a model whose runs take at most ``room`` rows, and fail while ``error`` is set."""

    def __init__(self, most_rows=None, **batching):
        self.room, self.error = 1000, None
        self.session = FakeSession(self._compute)
        self.session.most_rows = most_rows
        self.clock = FakeClock()
        self.alarm = ManualPollThread(self.clock)
        self.health = []
        self.batcher = Batcher(
            name="m",
            session=self.session,
            queue=QueueSettings(),
            batching=BatchingSettings(check_share=0.0, max_batch_size=8, max_wait_ms=0, **batching),
            clock=self.clock,
            max_run_s=60.0,
            poll_thread=ManualPollThread(FakeClock()),
            alarm=self.alarm,
            stats=RecordingStats(),
            on_health=lambda: self.health.append(self.batcher.why_broken),
        )

    def _compute(self, inputs):
        if self.error is not None:
            raise self.error
        if len(inputs["x"]) > self.room:
            raise MemoryError
        return scale(inputs)

    def run(self, *callers):
        """Submit before the workers may start, so that the composition of batches does not depend on timing."""
        self.batcher.queue.submit([caller.request for caller in callers])
        self.batcher.start()
        return [caller.wait() for caller in callers]


@pytest.fixture
def service():
    made = []

    def make(**settings):
        made.append(_Service(**settings))
        return made[-1]

    yield make
    for each in made:
        assert each.batcher.stop(PATIENCE_S)


def test_batches_stay_within_the_rows_there_was_memory_for(service):
    """After one that was too large, and after a restart; later batches may be larger again."""
    small = service()
    small.room = 5
    assert small.batcher.max_rows == 8
    small.run(*(Caller() for _ in range(16)))
    assert small.session.runs == [8, 4, 4, 4, 4]
    assert (small.batcher.max_rows, small.session.most_rows) == (4, 4)
    again = service(most_rows=4)
    again.run(*(Caller() for _ in range(8)))
    assert again.session.runs == [4, 4]
    again.clock.advance(60.0)
    again.alarm.fire_due()
    assert again.batcher.max_rows == 8


def test_requests_are_rejected_while_the_session_is_opened_again(service):
    """Those that wait and those that come, and are answered afterwards; health hears of both."""
    broken = service()
    broken.error = _DEVICE
    callers = [Caller() for _ in range(12)]
    broken.run(*callers)
    assert {type(caller.error) for caller in callers} == {ModelUnavailableError}
    assert broken.session.runs == [8]
    late = Caller()
    broken.batcher.queue.submit([late.request])
    assert late.error.reason == "MODEL_RECOVERING"
    assert broken.batcher.why_broken
    broken.error = None
    worked = threading.Event()
    broken.batcher._on_health = worked.set
    broken.alarm.fire_due()
    assert worked.wait(PATIENCE_S)
    broken.batcher.queue.submit([(after := Caller()).request])
    assert after.wait() is after.result
    assert len(broken.health) == 1
    assert broken.batcher.why_broken == ""


def test_model_that_is_unloaded_is_not_opened_again():
    """Its session is closed; an attempt that was due does nothing."""
    broken = _Service()
    broken.error = _DEVICE
    broken.run(Caller())
    assert broken.batcher.stop(PATIENCE_S)
    broken.alarm.fire_due()
    for thread in threading.enumerate():
        if thread.name == "recovery-m":
            thread.join(PATIENCE_S)
    assert broken.session.reopenings == 0
