"""Batches that are shared, retired, interrupted or handed over, without threads."""

import pytest

from inferd.batching.planner import WaitUntil
from inferd.batching.request import DispatchEffects
from inferd.batching.state import Obstacle
from inferd.config.settings import Backpressure
from inferd.errors import (
    ModelUnavailableError,
    OverloadedError,
)
from tests.fakes import Caller
from tests.unit.batching.queue_state import Queue, failed


def _sharing(**settings):
    """A queue of 8 rows that has learned that two workers are faster together."""
    queue = Queue(max_batch=64, max_rows=64, **settings)
    for rows in range(1, 33):
        queue.state.rules.ran(rows, 0.001 + rows * 0.001)
    queue.offer(*(Caller() for _ in range(8)))
    return queue


@pytest.mark.parametrize(
    ("workers", "parallel_runs", "rows"), [(2, 2, [4, 4]), (2, 8, [4, 4]), (2, 1, [8]), (4, 4, [2, 2, 2, 2])]
)
def test_idle_workers_share_the_queue(workers, parallel_runs, rows):
    """As many as are idle and run in parallel without loss; each share wakes the next worker."""
    queue = _sharing(workers=workers, parallel_runs=parallel_runs)
    for expected in rows:
        batch, effects = queue.take()
        assert batch.rows == expected
        assert effects.wake_worker == (queue.state.waiting.count > 0)
    assert queue.state.waiting.count == 0


@pytest.mark.parametrize(("answering", "rows"), [(False, 8), (True, 4)])
def test_worker_that_is_answering_gets_a_share(answering, rows):
    """It takes its next batch soon; one that is still running gets nothing."""
    queue = _sharing(workers=2, parallel_runs=2)
    first, second = queue.take()[0], queue.take()[0]
    queue.offer(*(Caller() for _ in range(8)))
    second.answering = answering
    queue.state.retire(first, queue.now)
    batch, _ = queue.take()
    assert batch.rows == rows


def test_wakes_another_worker_while_requests_are_left():
    """One worker takes a batch, and another one can plan the rest."""
    queue = Queue(max_batch=2)
    queue.offer(*[Caller(rows=1) for _ in range(3)])
    assert queue.take()[1].wake_worker
    assert not queue.take()[1].wake_worker


def test_retired_batch_releases_its_tensors():
    """An idle worker does not keep the messages of its last batch in memory."""
    queue = Queue()
    queue.offer(Caller())
    batch, _ = queue.take()
    queue.state.retire(batch, queue.now)
    assert batch.requests == []


def test_fail_all_fails_every_request():
    """Queued, blocked and running."""
    queue = Queue(policy=Backpressure.BLOCK, max_batch=4)
    callers = [Caller(rows=4) for _ in range(3)]
    queue.offer(callers[0])
    queue.take()
    queue.offer(*callers[1:])
    effects = DispatchEffects()
    queue.state.fail_waiting(ModelUnavailableError("gone"), effects)
    queue.state.fail_running(ModelUnavailableError("gone"), effects)
    assert set(failed(effects)) == {caller.request for caller in callers}
    assert queue.state.waiting.rows == 0


def _short(queue, *rows):
    """Learn that runs of ``rows`` are short."""
    for _ in range(16):
        for number in rows:
            queue.offer(Caller(rows=number))
            batch, _ = queue.take()
            queue.now += 0.0001
            queue.state.retire(batch, queue.now)


def test_only_known_sizes_are_taken_as_short_runs():
    """Larger requests stay queued for a worker."""
    queue = Queue(max_rows=100)
    _short(queue, 1)
    queue.offer(small := Caller(), large := Caller(rows=20))
    batch, _ = queue.take(only_short=True)
    assert batch.requests == [small.request]
    assert isinstance(queue.take(only_short=True)[0], WaitUntil)
    batch, _ = queue.take()
    assert batch.requests == [large.request]


def test_interrupted_batch_teaches_nothing():
    """The limit determined its duration."""
    queue = Queue()
    queue.offer(Caller())
    batch, _ = queue.take()
    batch.cut_off = True
    queue.now += 60.0
    queue.state.retire(batch, queue.now)
    assert queue.state.rules.run_cost.most_rows_per_s == 0.0
    assert queue.state.running_rows == 0


def test_stuck_batch_is_handed_over_without_answered_requests():
    """The answered ones count as done, the others as running."""
    queue, callers = Queue(), [Caller(), Caller(), Caller()]
    queue.offer(*callers)
    batch, _ = queue.take()
    callers[1].request.reply.withdraw()
    rest = queue.state.hand_over(batch, queue.now, DispatchEffects())
    assert rest.requests == [callers[0].request, callers[2].request]
    assert rest.ran_before
    assert batch.requests == []
    assert queue.state.running_rows == 2


def test_stuck_batch_without_live_requests_is_dropped():
    """Nothing is handed over."""
    queue, caller = Queue(), Caller()
    queue.offer(caller)
    batch, _ = queue.take()
    caller.request.reply.withdraw()
    assert queue.state.hand_over(batch, queue.now, DispatchEffects()) is None
    assert queue.state.present == 0


def test_rejects_all_requests_while_too_many_threads_are_stuck():
    """With a retry hint, queued ones too, until a thread returns."""
    queue, waiting, running = Queue(), Caller(), Caller()
    queue.offer(running)
    batch, _ = queue.take()
    queue.offer(waiting)
    effects = DispatchEffects()
    queue.state.set_obstacle(Obstacle.STUCK, queue.state.refusals.stuck, effects)
    (refused, error), *others = effects.failed
    assert (refused, error.reason, error.retry_after_s > 0, others) == (waiting.request, "RUNS_STUCK", True, [])
    (_, error), *_ = queue.offer(Caller()).failed
    assert isinstance(error, OverloadedError)
    assert queue.state.hand_over(batch, queue.now, effects) is None
    assert effects.failed[-1][0] is running.request
    queue.state.set_obstacle(Obstacle.STUCK, None, DispatchEffects())
    queue.offer(late := Caller())
    assert late.request in queue.state.waiting


def test_rejects_all_requests_while_the_session_runs_nothing():
    """Also if threads hang meanwhile; only when neither is so are requests admitted again."""
    queue, waiting = Queue(), Caller()
    queue.offer(waiting)
    effects = DispatchEffects()
    queue.state.set_obstacle(Obstacle.BROKEN, lambda: ModelUnavailableError("it is broken"), effects)
    assert [(request, error.message) for request, error in effects.failed] == [(waiting.request, "it is broken")]
    queue.state.set_obstacle(Obstacle.STUCK, queue.state.refusals.stuck, DispatchEffects())
    queue.state.set_obstacle(Obstacle.STUCK, None, DispatchEffects())
    (_, error), *_ = queue.offer(Caller()).failed
    assert isinstance(error, ModelUnavailableError)
    queue.state.set_obstacle(Obstacle.BROKEN, None, DispatchEffects())
    queue.offer(late := Caller())
    assert late.request in queue.state.waiting


@pytest.mark.parametrize("is_stuck", [True, False])
def test_interrupted_batch_does_not_lower_the_queue_limit(is_stuck):
    """A minute's stall by one request does not slow the drain rate."""
    queue = Queue(max_rows=1000, max_batch=1)
    queue.offer(*(Caller() for _ in range(100)))
    for _ in range(50):
        batch, _ = queue.take()
        queue.now += 0.01
        queue.state.retire(batch, queue.now)
    room = queue.state.waiting.row_limit
    batch, _ = queue.take()
    queue.now += 60.0
    batch.requests[0].reply.withdraw()
    if is_stuck:
        queue.state.hand_over(batch, queue.now, DispatchEffects())
    else:
        batch.cut_off = True
        queue.state.retire(batch, queue.now)
    queue.take()
    assert queue.state.waiting.row_limit == pytest.approx(room, abs=1)


def test_smaller_batches_leave_fewer_rows_that_may_always_wait():
    """As many as two batches of each worker, however large those were before."""
    queue = Queue(max_batch=8, max_rows=100)
    assert queue.state.waiting.level_rows == 16
    for rows, most in ((2, 4), (4, 8), (8, 16)):
        queue.state.limit_rows(rows)
        assert queue.state.waiting.level_rows == most
