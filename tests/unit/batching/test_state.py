"""Admission and rejection of requests, without threads."""

import pytest

from inferd.config.settings import Backpressure
from inferd.errors import (
    OverloadedError,
    Retry,
)
from tests.fakes import Caller
from tests.unit.batching.queue_state import Queue


def test_admission_stamps_releases_and_wakes_a_worker():
    """Queue time begins at admission, and the producer may continue."""
    queue, caller = Queue(), Caller()
    effects = queue.offer(caller)
    assert (effects.admitted, effects.failed, effects.wake_worker) == ([caller.request], [], True)
    assert caller.request.enqueued_at == 100.0


def test_rejects_beyond_the_bound_with_a_computed_hint():
    """40 rows a second drain and 4 are queued: a retry is likely to be admitted in a tenth of a second."""
    queue = Queue(max_batch=4, max_rows=8)
    queue.offer(Caller(rows=4), Caller(rows=4))
    queue.take()
    queue.now += 0.1
    queue.take()
    queue.offer(Caller(rows=4), Caller(rows=4))
    ((_, error),) = queue.offer(Caller(rows=1)).failed
    assert isinstance(error, OverloadedError)
    assert (error.reason, error.retry_after_s) == ("QUEUE_FULL", pytest.approx(0.2))
    assert error.message == 'the queue of model "m" is full: 8 of 8 rows and 16 of 268435456 bytes wait'


def test_limit_of_a_priority():
    """Rejects its requests only, whatever the policy, once rows of it wait and no room is left by expired ones."""
    limits = {1: {"max_rows": 4}, 3: {"max_rows": 1}}
    queue = Queue(max_batch=4, max_rows=100, max_delay_ms=0, by_priority=limits, policy=Backpressure.BLOCK)
    large, expiring = Caller(rows=6, priority=1), Caller(rows=1, priority=3, deadline=101.0)
    assert queue.offer(large, Caller(rows=50, priority=2), expiring).failed == []
    ((_, error),) = queue.offer(Caller(rows=1, priority=1)).failed
    assert (error.reason, error.message) == (
        "QUEUE_FULL",
        'the queue of model "m" is full for priority 1: 6 of 4 rows wait',
    )
    queue.remove(large)
    assert queue.offer(Caller(rows=3, priority=1), Caller(rows=1, priority=1)).failed == []
    queue.now = 102.0
    late = Caller(rows=1, priority=3)
    assert [request for request, _ in queue.offer(late).failed] == [expiring.request]
    assert queue.state.waiting.rows_of(3) == 1


def _draining(rows_per_s, **settings):
    """An empty queue that drained at ``rows_per_s`` in batches of one row, whose runs took no time."""
    queue = Queue(max_batch=1, max_rows=1000, **settings)
    queue.offer(*(Caller() for _ in range(21)))
    for _ in range(21):
        batch, _ = queue.take()
        queue.now += 1 / rows_per_s
        batch.run_s, batch.started_at = 0.0, queue.now
        queue.state.retire(batch, queue.now)
    return queue


def test_batches_of_idle_workers_do_not_raise_the_drain_rate():
    """40 rows a second drain, although two idle workers take 4 rows each in no time."""
    queue = Queue(max_batch=4, max_rows=16, workers=2, max_delay_ms=0)
    for _ in range(3):
        queue.offer(*(Caller(rows=4) for _ in range(4)))
        batches = [queue.take()[0], queue.take()[0]]
        for first in range(2):
            queue.now += 0.1
            queue.state.retire(batches[first], queue.now)
            batches.append(queue.take()[0])
        for batch in batches[2:]:
            queue.state.retire(batch, queue.now)
    queue.offer(*(Caller(rows=4) for _ in range(4)))
    ((_, error),) = queue.offer(Caller(rows=4)).failed
    assert error.retry_after_s == pytest.approx(16 / 40)


def test_short_runs_count_for_the_drain_rate():
    """The poll thread executes them one after another although workers are idle: 40 rows a second."""
    queue = Queue(max_batch=4, max_rows=16, workers=2, max_delay_ms=0)
    for _ in range(16):
        queue.state.rules.ran(4, 0.0001)
    queue.offer(*(Caller(rows=4) for _ in range(4)))
    for _ in range(4):
        batch, _ = queue.take()
        queue.now += 0.1
        batch.run_s = 0.0001
        queue.state.retire(batch, queue.now)
    queue.offer(*(Caller(rows=4) for _ in range(4)))
    ((_, error),) = queue.offer(Caller(rows=4)).failed
    assert error.retry_after_s == pytest.approx(16 / 40)


@pytest.mark.parametrize(
    ("rows_per_s", "max_delay_ms", "room"),
    [(128, 250, 12), (128, 62.5, 8), (4, 250, 2), (128, 0, 1000), (2**20, 250, 1000)],
)
def test_queue_limit_is_what_drains_within_the_delay_limit(rows_per_s, max_delay_ms, room):
    """That is three batches, at least 100 ms and at most the setting, within two batches and max_rows."""
    queue = _draining(rows_per_s, max_delay_ms=max_delay_ms)
    effects = queue.offer(*(Caller() for _ in range(1001)))
    assert len(effects.admitted) == room
    assert {error.reason for _, error in effects.failed} == {"QUEUE_FULL"}


def test_request_larger_than_the_current_limit_fits_an_empty_queue():
    """It would otherwise never be admitted, although it is within the bound."""
    queue = _draining(100)
    assert len(queue.offer(Caller(rows=900), Caller()).admitted) == 1


@pytest.mark.parametrize("policy", list(Backpressure))
def test_falling_limit_does_not_evict_queued_requests(policy):
    """Only new requests find the queue full."""
    queue = _draining(1000, policy=policy)
    queue.offer(*(Caller() for _ in range(100)))
    for _ in range(40):
        queue.take()
        queue.now += 0.05
    assert queue.state.waiting.row_limit < queue.state.waiting.count


def test_rejects_requests_that_would_expire_in_the_queue():
    """100 rows a second drain: behind 22 with equal deadlines, a request has to wait for 220 ms."""
    queue = _draining(100, max_delay_ms=0)
    effects = queue.offer(*(Caller(deadline=queue.now + 0.215) for _ in range(25)))
    assert len(effects.admitted) == 22
    assert {error.reason for _, error in effects.failed} == {"DEADLINE_TOO_CLOSE"}


def test_rejects_requests_that_would_make_others_expire():
    """20 rows are queued and due in 215 ms: one request may go first, and not a second."""
    queue = _draining(100, max_delay_ms=0)
    queue.offer(*(Caller(deadline=queue.now + 0.215) for _ in range(20)))
    first, second = Caller(deadline=queue.now + 0.1), Caller(deadline=queue.now + 0.1)
    assert queue.offer(first).admitted == [first.request]
    ((request, error),) = queue.offer(second).failed
    assert (request, error.reason) == (second.request, "DEADLINE_TOO_CLOSE")
    assert error.retry_after_s is not None, "it would be in time without the others"
    assert next(iter(queue.state.waiting)) is first.request


def test_deadline_shorter_than_a_run_is_no_full_queue():
    """A run takes 10 ms; the message names the limit, and there is no hint for a retry that would be in vain."""
    queue = Queue(max_batch=1)
    for _ in range(4):
        queue.state.rules.ran(1, 0.01, now=queue.now)
    ((_, error),) = queue.offer(Caller(deadline=queue.now + 0.005)).failed
    assert error.reason == "DEADLINE_TOO_CLOSE"
    expected = 'model "m" cannot answer within the deadline even alone: 0 of 4 rows and 0 of 268435456 bytes wait'
    assert error.message == expected
    assert (error.retry_after_s, error.retry) == (None, Retry.NEVER)


def test_only_rows_served_before_count_for_a_deadline():
    """An urgent request does not wait for less urgent ones."""
    queue = _draining(100)
    queue.offer(*(Caller(priority=3) for _ in range(20)))
    urgent = Caller(priority=1, deadline=queue.now + 0.05)
    assert queue.offer(urgent).admitted == [urgent.request]


def test_row_bound_applies_without_batching():
    """Rows are bounded whether or not they may be stacked."""
    queue = Queue(max_batch=1)
    effects = queue.offer(*[Caller() for _ in range(5)])
    assert (len(effects.admitted), len(effects.failed)) == (4, 1)
