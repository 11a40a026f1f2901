"""Rejections by the batcher before requests are submitted."""

import math

import pytest

from inferd.batching.batcher import Batcher
from inferd.config.settings import Backpressure, BatchingSettings, QueueSettings
from inferd.observability.metrics.models import Durations
from tests.fakes import Caller, FakeClock, FakeSession, ManualPollThread, RecordingStats


class Bench:
    """A batcher with a queue of two rows, whose workers have not started."""

    def __init__(self, policy=Backpressure.REJECT):
        self.clock, self.stats = FakeClock(), RecordingStats()
        poll_thread = ManualPollThread(self.clock)
        self.batcher = Batcher(
            name="m",
            session=FakeSession(),
            queue=QueueSettings(max_rows=2, policy=policy),
            batching=BatchingSettings(max_batch_size=1),
            max_run_s=60.0,
            clock=self.clock,
            poll_thread=poll_thread,
            alarm=poll_thread,
            stats=self.stats,
        )
        self.callers = []

    def fill(self, **fields):
        while len(self.callers) < 2:
            self.submit(**fields)

    def submit(self, **fields):
        caller = Caller(**fields)
        caller.request.received_at = self.clock()
        self.callers.append(caller)
        self.batcher.queue.submit([caller.request])
        return caller

    def refusal(self, deadline=math.inf):
        return self.batcher.early_refusal(2, deadline, self.clock())


def test_rejects_when_the_queue_is_full():
    """With the error that the request would get."""
    bench = Bench()
    assert bench.refusal() is None
    bench.fill()
    refusal, error = bench.refusal(), bench.submit().outcome
    assert (refusal.message, refusal.reason, refusal.retry_after_s) == (
        error.message,
        error.reason,
        error.retry_after_s,
    )


def test_error_is_cached_for_some_milliseconds():
    """So that it need not be formatted for each request."""
    bench = Bench()
    bench.fill()
    first = bench.refusal()
    bench.clock.advance(0.004)
    assert bench.refusal() is first
    bench.clock.advance(0.002)
    assert bench.refusal() is not first


@pytest.mark.parametrize("policy", [each for each in Backpressure if each is not Backpressure.REJECT])
def test_other_policies_decide_by_request(policy):
    """Only `reject` decides without the request."""
    bench = Bench(policy)
    bench.fill()
    assert bench.refusal() is None


def test_expired_requests_count_as_free_room():
    """They are removed only when the next request is offered."""
    bench = Bench()
    bench.fill(deadline=bench.clock() + 1.0)
    assert bench.refusal() is not None
    bench.clock.advance(1.0)
    assert bench.refusal() is None


def test_expired_request_is_no_overload():
    """Its error is the deadline, whatever the state of the queue."""
    bench = Bench()
    bench.fill()
    assert bench.refusal(deadline=bench.clock()) is None


def test_closed_queue_is_no_overload():
    """The model is being unloaded."""
    bench = Bench()
    bench.fill()
    bench.batcher.stop(0.0)
    assert bench.refusal() is None


def test_counts_rejected_requests():
    """As for requests that the queue rejects."""
    bench = Bench()
    bench.fill()
    bench.batcher.refused(3, bench.clock() - 0.5, bench.refusal())
    assert (bench.stats.offers, bench.stats.rejections) == ([1, 1, 3], ["QUEUE_FULL"])
    assert bench.stats.read().fail == Durations(1, 500_000_000)
