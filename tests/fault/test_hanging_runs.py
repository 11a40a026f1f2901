"""Runs that end late or ignore termination, and callers that leave; the batcher must survive."""

import random
import threading
import time

import numpy as np
import pytest

from inferd.batching import run_guard
from inferd.batching.batcher import Batcher
from inferd.batching.request import InferenceResult
from inferd.config.settings import Backpressure, BatchingSettings, QueueSettings
from inferd.errors import DeadlineExceededError, OverloadedError, RunTooLongError
from inferd.runtime.run_timeout import Watchdog
from tests.fakes import Caller, FakeSession, ManualPollThread, RecordingStats, scale
from tests.patience import PATIENCE_S, eventually

_REQUESTS = 600
_MOST_RUN_S = 0.01
_GOOD, _LONG, _STUBBORN = 1.0, 2.0, 3.0


class _Moody(FakeSession):
    """Runs of good numbers are short, those with a long one end when terminated, and stubborn ones take their time."""

    def __init__(self):
        super().__init__()
        self.runs_are_bounded = False

    def run(self, inputs, outputs, stop):
        mood = inputs["x"].max()
        pause = threading.Event()
        if _LONG in inputs["x"]:
            while not stop.is_stopped:
                pause.wait(0.001)
            raise RuntimeError("Exiting due to terminate flag being set to true.")
        if mood == _STUBBORN:
            pause.wait(10 * _MOST_RUN_S)
        computed = scale(inputs)
        return [computed[name] for name in outputs]


@pytest.fixture
def watchdog(monkeypatch):
    monkeypatch.setattr(run_guard, "ENDING_S", _MOST_RUN_S)
    made = Watchdog("test-watchdog")
    made.start()
    yield made
    made.stop()


def _caller(dice):
    now = time.monotonic()
    mood = dice.choice([_GOOD] * 27 + [_LONG, _LONG, _STUBBORN])
    deadline = now + dice.choice([0.002, 0.02] + [60.0] * 8)
    return Caller(x=np.full((1, 2), mood, np.float32), deadline=deadline, received_at=now)


def _assert_fair(caller):
    """Answered requests have their own rows; those batched with a long one may fail with it."""
    outcome, x = caller.outcomes[0], caller.request.inputs["x"]
    if isinstance(outcome, InferenceResult):
        assert x[0, 0] != _LONG
        np.testing.assert_array_equal(outcome.outputs["y"], x)
    else:
        assert isinstance(outcome, RunTooLongError | DeadlineExceededError | OverloadedError)


@pytest.mark.parametrize("max_batch_size", [1, 4])
@pytest.mark.parametrize("policy", Backpressure)
def test_every_request_has_one_outcome_and_nothing_leaks(policy, max_batch_size, watchdog):
    """All threads end, and the model has as many workers as before."""
    poll_thread, stats, dice = ManualPollThread(time.monotonic), RecordingStats(), random.Random(7)
    batcher = Batcher(
        name="m",
        session=_Moody(),
        queue=QueueSettings(policy=policy, max_rows=16, max_blocked=8),
        batching=BatchingSettings(max_batch_size=max_batch_size, max_wait_ms=0.0, instances=2, check_share=0.0),
        max_run_s=_MOST_RUN_S,
        clock=time.monotonic,
        poll_thread=poll_thread,
        alarm=watchdog,
        stats=stats,
    )
    batcher.start()
    callers, cancelled = [], set()
    for _ in range(_REQUESTS):
        callers.append(caller := _caller(dice))
        batcher.queue.submit([caller.request])
        if dice.random() < 0.1:
            cancelled.add(victim := dice.choice(callers[-8:]))
            batcher.queue.cancel(victim.request)
        poll_thread.fire_due()
        if dice.random() < 0.2:
            threading.Event().wait(0.002)
    eventually(lambda: batcher.unanswered_requests == 0, "everything is answered")
    eventually(lambda: batcher.stuck_threads == 0, "all threads have come back")
    for caller in callers:
        if not (caller in cancelled and caller.waits):
            assert len(caller.outcomes) == 1
            _assert_fair(caller)
        assert caller.released
    assert "time_limit" in stats.ended

    def runs():
        """Whether a request is answered. A busy machine may halt its run for longer than a run may take."""
        batcher.queue.submit([(alive := Caller()).request])
        return isinstance(alive.wait(), InferenceResult)

    for _ in range(8):
        eventually(runs, "another request is answered")
    eventually(lambda: batcher.stuck_threads == 0, "no thread is left in a run")
    assert (batcher.running_rows, batcher.queue_bytes) == (0, 0)
    assert batcher.stop(PATIENCE_S)
    assert [each.name for each in threading.enumerate() if each.name.startswith(("batch-", "caller-"))] == []
