"""Good, bad, late and disconnecting callers at once, under every policy; the batcher must survive."""

import random
import threading
import time

import numpy as np
import pytest

from inferd.batching.batcher import Batcher
from inferd.batching.request import InferenceResult
from inferd.config.settings import Backpressure, BatchingSettings, InstanceRange, QueueSettings
from inferd.errors import DeadlineExceededError, InferenceFailedError, OutOfMemoryError, OverloadedError
from tests.fakes import Caller, FakeClock, FakeSession, ManualPollThread, RecordingStats, scale
from tests.patience import PATIENCE_S

_SUBMITTERS = 4
_REQUESTS_EACH = 400


def _moody(inputs):
    """Fail for any negative value, whatever the other rows."""
    if (inputs["x"] < 0).any():
        raise RuntimeError("negative")
    return scale(inputs)


def _batcher(policy, max_wait_ms, poll_thread, stats, session):
    return Batcher(
        name="m",
        session=session,
        queue=QueueSettings(policy=policy, max_rows=32, max_blocked=16),
        batching=BatchingSettings(
            max_batch_size=8, max_wait_ms=max_wait_ms, instances=InstanceRange(max=3), check_share=0.0
        ),
        clock=time.monotonic,
        max_run_s=60.0,
        poll_thread=poll_thread,
        alarm=ManualPollThread(FakeClock()),
        stats=stats,
    )


def _some_caller(dice):
    """One in ten fails, one in ten has nearly or fully expired, and a few are larger than a batch."""
    now = time.monotonic()
    rows = dice.choice([1, 1, 1, 2, 3, 12])
    value = dice.choice([-1.0] + [1.0] * 9)
    length = dice.choice([1, 2])
    return Caller(
        x=np.full((rows, length), value, dtype=np.float32),
        key=length,
        priority=dice.randint(1, 3),
        deadline=now + dice.choice([0.0, 0.001] + [float("inf")] * 18),
        received_at=now,
    )


class _Submitter(threading.Thread):
    """Submits requests and cancels one in ten; one of them runs the callbacks of the fake poll thread."""

    def __init__(self, batcher, poll_thread, seed):
        super().__init__(daemon=True)
        self._batcher = batcher
        self._timers = poll_thread if seed == 0 else None
        self._dice = random.Random(seed)
        self.callers = []
        self.cancelled = set()

    def run(self):
        for _ in range(_REQUESTS_EACH):
            caller = _some_caller(self._dice)
            self.callers.append(caller)
            self._batcher.queue.submit([caller.request])
            if self._dice.random() < 0.1:
                victim = self._dice.choice(self.callers)
                self._batcher.queue.cancel(victim.request)
                self.cancelled.add(victim)
            if self._timers is not None:
                self._timers.fire_due()


def _assert_fair(caller):
    """The outcome is the request's own: good ones run, or are rejected or expire; bad ones never succeed."""
    outcome, x = caller.outcome, caller.request.inputs["x"]
    if isinstance(outcome, InferenceResult):
        assert x[0, 0] > 0
        np.testing.assert_array_equal(outcome.outputs["y"], x)
    elif isinstance(outcome, InferenceFailedError):
        assert x[0, 0] < 0
    elif isinstance(outcome, DeadlineExceededError):
        assert caller.request.deadline < float("inf")
    else:
        assert isinstance(outcome, OverloadedError)


@pytest.mark.parametrize("max_wait_ms", [0.0, 1.0])
@pytest.mark.parametrize("policy", Backpressure)
def test_every_request_has_one_outcome_and_batcher_survives(policy, max_wait_ms):
    """No request is lost or fails because of another, and no resources leak."""
    session, stats = FakeSession(_moody), RecordingStats()
    poll_thread = ManualPollThread(time.monotonic)
    batcher = _batcher(policy, max_wait_ms, poll_thread, stats, session)
    batcher.start()
    submitters = [_Submitter(batcher, poll_thread, seed) for seed in range(_SUBMITTERS)]
    for submitter in submitters:
        submitter.start()
    for submitter in submitters:
        submitter.join()
    batcher.queue.submit([(alive := Caller(priority=1)).request])
    assert isinstance(alive.wait(), InferenceResult | OverloadedError)
    assert batcher.stop(PATIENCE_S)
    for submitter in submitters:
        for caller in submitter.callers:
            if not (caller in submitter.cancelled and caller.waits):
                _assert_fair(caller)
            assert caller.released
    assert (batcher.queue_rows, batcher.queue_bytes, batcher.unanswered_requests) == (0, 0, 0)
    assert max(session.runs) <= 8
    assert [each.name for each in threading.enumerate() if each.name.startswith(("batch-", "caller-"))] == []
    refused = sum(isinstance(c.outcomes[0], OverloadedError) for s in submitters for c in s.callers if c.outcomes)
    assert len(stats.rejections) >= refused


@pytest.mark.parametrize(("failure", "told"), [(ValueError, InferenceFailedError), (MemoryError, OutOfMemoryError)])
def test_workers_survive_model_that_always_fails(failure, told):
    """After hundreds of failures, the next request is run as well."""
    healthy = threading.Event()

    def sick(inputs):
        if not healthy.is_set():
            raise failure
        return scale(inputs)

    stats = RecordingStats()
    batcher = _batcher(Backpressure.BLOCK, 0.0, ManualPollThread(time.monotonic), stats, FakeSession(sick))
    batcher.start()
    for _ in range(50):
        callers = [Caller() for _ in range(10)]
        for caller in callers:
            batcher.queue.submit([caller.request])
        assert all(isinstance(caller.wait(), told) for caller in callers)
    healthy.set()
    batcher.queue.submit([(caller := Caller()).request])
    assert isinstance(caller.wait(), InferenceResult)
    assert batcher.stop(PATIENCE_S)


def test_queue_full_of_expired_requests_does_not_block():
    """They are answered without a run, and the next request runs."""
    now = [100.0]
    session = FakeSession()
    batcher = Batcher(
        name="m",
        session=session,
        queue=QueueSettings(max_rows=1000),
        batching=BatchingSettings(check_share=0.0),
        clock=lambda: now[0],
        max_run_s=60.0,
        poll_thread=ManualPollThread(lambda: now[0]),
        alarm=ManualPollThread(lambda: now[0]),
        stats=RecordingStats(),
    )
    expired = [Caller(deadline=101.0) for _ in range(1000)]
    for caller in expired:
        batcher.queue.submit([caller.request])
    now[0] = 102.0
    batcher.queue.submit([(alive := Caller()).request])
    batcher.start()
    assert batcher.stop(PATIENCE_S)
    assert all(isinstance(caller.error, DeadlineExceededError) for caller in expired)
    assert alive.result
    assert session.runs == [1]
