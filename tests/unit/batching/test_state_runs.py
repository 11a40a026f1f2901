"""Batches that are shared, retired, cut off or handed over, without threads."""

import pytest

from inferd.batching.planner import WaitUntil
from inferd.batching.request import Effects
from inferd.config.settings import Backpressure
from inferd.errors import (
    ModelUnavailableError,
    OverloadedError,
)
from tests.fakes import Caller
from tests.unit.batching.queue_state import Queue, failed


def _sharing(**settings):
    """A queue that knows of runs that two workers do sooner together, and has 8 rows."""
    queue = Queue(max_batch=64, max_rows=64, **settings)
    for rows in range(1, 33):
        queue.state.rules.ran(rows, 0.001 + rows * 0.001)
    queue.offer(*(Caller() for _ in range(8)))
    return queue


@pytest.mark.parametrize(
    ("workers", "parallel_runs", "rows"), [(2, 2, [4, 4]), (2, 8, [4, 4]), (2, 1, [8]), (4, 4, [2, 2, 2, 2])]
)
def test_idle_workers_share_what_waits(workers, parallel_runs, rows):
    """As many as there are, and as can run at the same time without loss; each share wakes who takes the next."""
    queue = _sharing(workers=workers, parallel_runs=parallel_runs)
    for expected in rows:
        batch, effects = queue.take()
        assert batch.rows == expected
        assert effects.wake_worker == (queue.state.waiting.count > 0)
    assert queue.state.waiting.count == 0


@pytest.mark.parametrize(("answering", "rows"), [(False, 8), (True, 4)])
def test_a_share_is_left_to_a_worker_that_has_run_and_is_answering(answering, rows):
    """It comes for its next batch in no time; one that is still running gets nothing."""
    queue = _sharing(workers=2, parallel_runs=2)
    first, second = queue.take()[0], queue.take()[0]
    queue.offer(*(Caller() for _ in range(8)))
    second.answering = answering
    queue.state.retire(first, queue.now)
    batch, _ = queue.take()
    assert batch.rows == rows


def test_a_worker_is_woken_again_while_something_is_left():
    """One worker takes a batch, and another one can plan the rest."""
    queue = Queue(max_batch=2)
    queue.offer(*[Caller(rows=1) for _ in range(3)])
    assert queue.take()[1].wake_worker
    assert not queue.take()[1].wake_worker


def test_a_retired_batch_lets_go_of_its_tensors():
    """An idle worker does not keep the messages of its last batch in memory."""
    queue = Queue()
    queue.offer(Caller())
    batch, _ = queue.take()
    queue.state.retire(batch, queue.now)
    assert batch.requests == []


def test_failing_everything_leaves_nobody_out():
    """Waiting, blocked and running requests are all failed."""
    queue = Queue(policy=Backpressure.BLOCK, max_batch=4)
    callers = [Caller(rows=4) for _ in range(3)]
    queue.offer(callers[0])
    queue.take()
    queue.offer(*callers[1:])
    effects = Effects()
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


def test_only_runs_of_known_sizes_are_taken_for_their_shortness():
    """What is larger is left for a worker, and is still there."""
    queue = Queue(max_rows=100)
    _short(queue, 1)
    queue.offer(small := Caller(), large := Caller(rows=20))
    batch, _ = queue.take(only_short=True)
    assert batch.requests == [small.request]
    assert isinstance(queue.take(only_short=True)[0], WaitUntil)
    batch, _ = queue.take()
    assert batch.requests == [large.request]


def test_a_batch_that_was_cut_off_teaches_nothing():
    """How long it took was the limit's doing."""
    queue = Queue()
    queue.offer(Caller())
    batch, _ = queue.take()
    batch.cut_off = True
    queue.now += 60.0
    queue.state.retire(batch, queue.now)
    assert queue.state.rules.run_cost.most_rows_per_s == 0.0
    assert queue.state.running_rows == 0


def test_what_a_stuck_thread_has_is_handed_over_without_those_who_are_answered():
    """Their answers count as given, and what is left is running."""
    queue, callers = Queue(), [Caller(), Caller(), Caller()]
    queue.offer(*callers)
    batch, _ = queue.take()
    callers[1].request.reply.withdraw()
    rest = queue.state.hand_over(batch, queue.now, Effects())
    assert rest.requests == [callers[0].request, callers[2].request]
    assert rest.ran_before
    assert batch.requests == []
    assert queue.state.running_rows == 2


def test_a_batch_without_anybody_who_waits_is_not_handed_over():
    """It is just gone."""
    queue, caller = Queue(), Caller()
    queue.offer(caller)
    batch, _ = queue.take()
    caller.request.reply.withdraw()
    assert queue.state.hand_over(batch, queue.now, Effects()) is None
    assert queue.state.present == 0


def test_while_too_many_threads_are_stuck_nothing_is_let_in():
    """With a hint when to try again, for those who wait as well, until one comes back."""
    queue, waiting, running = Queue(), Caller(), Caller()
    queue.offer(running)
    batch, _ = queue.take()
    queue.offer(waiting)
    effects = Effects()
    queue.state.set_stuck(True, effects)
    (refused, error), *others = effects.failed
    assert (refused, error.reason, error.retry_after_s > 0, others) == (waiting.request, "RUNS_STUCK", True, [])
    (_, error), *_ = queue.offer(Caller()).failed
    assert isinstance(error, OverloadedError)
    assert queue.state.hand_over(batch, queue.now, effects) is None
    assert effects.failed[-1][0] is running.request
    queue.state.set_stuck(False, Effects())
    queue.offer(late := Caller())
    assert late.request in queue.state.waiting


@pytest.mark.parametrize("is_stuck", [True, False])
def test_a_batch_that_was_cut_off_leaves_the_others_their_room(is_stuck):
    """A queue that did not move for a minute because of one request is as fast as before."""
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
        queue.state.hand_over(batch, queue.now, Effects())
    else:
        batch.cut_off = True
        queue.state.retire(batch, queue.now)
    queue.take()
    assert queue.state.waiting.row_limit == pytest.approx(room, abs=1)
