"""Turns of scavengers and their limits, without threads."""

import pytest

from inferd.batching.planner import _ROWS_BESIDE_SCAVENGERS
from tests.fakes import Caller
from tests.unit.batching.queue_state import Queue, failed

_SCAVENGER = 4


def _scavengers(count, **fields):
    return [Caller(priority=_SCAVENGER, **fields) for _ in range(count)]


def test_scavengers_are_served_when_nothing_else_is_queued():
    """In full batches, several in a row."""
    queue = Queue(max_batch=8, max_rows=100)
    queue.offer(*_scavengers(20))
    assert [queue.take()[0].rows for _ in range(3)] == [8, 8, 4]


def test_scavengers_never_share_a_batch_with_regular_requests():
    """Their rows would make that run longer."""
    queue = Queue(max_batch=8, max_rows=100)
    queue.offer(*_scavengers(2), *(Caller(priority=3) for _ in range(4)))
    first, second = queue.take()[0], queue.take()[0]
    assert [request.priority for request in first.requests] == [3] * 4
    assert [request.priority for request in second.requests] == [_SCAVENGER] * 2


#: Rows of a batch of 64 beside which scavengers may run.
_BESIDE = int(64 * _ROWS_BESIDE_SCAVENGERS)


@pytest.mark.parametrize(("rows", "may_run"), [(1, True), (_BESIDE, True), (_BESIDE + 1, False), (64, False)])
def test_scavengers_run_once_beside_a_small_batch(rows, may_run):
    """Regular requests wait for one such run at most, and for none if they nearly fill a batch."""
    queue = Queue(max_batch=64, max_rows=1000)
    queue.offer(*_scavengers(300), *(Caller() for _ in range(rows)))
    taken = [queue.take()[0].requests[0].priority for _ in range(3)]
    assert taken == ([_SCAVENGER, 1, _SCAVENGER] if may_run else [1, _SCAVENGER, _SCAVENGER])


def test_scavengers_wait_under_steady_load():
    """Each time a batch ends, most of the next one is queued."""
    queue = Queue(max_batch=8, max_rows=1000)
    queue.offer(*_scavengers(8))
    for _ in range(50):
        queue.offer(*(Caller() for _ in range(6)))
        assert queue.take()[0].requests[0].priority == 1
    assert queue.take()[0].rows == 8


def test_scavengers_are_limited_by_the_bounds_only():
    """The delay limit does not apply to them, and they do not delay others."""
    queue = Queue(max_batch=1, max_rows=50)
    queue.offer(*(Caller() for _ in range(11)))
    for _ in range(11):
        queue.take()
        queue.now += 1.0
    assert queue.state.waiting.row_limit == 2
    effects = queue.offer(*_scavengers(51))
    assert (len(effects.admitted), len(effects.failed)) == (50, 1)
    assert len(queue.offer(Caller(), Caller(), Caller()).admitted) == 2


def test_large_request_fits_beside_scavengers():
    """As into an empty queue, although it exceeds the current limit."""
    queue = Queue(max_batch=1, max_rows=50)
    queue.offer(*(Caller() for _ in range(11)))
    for _ in range(11):
        queue.take()
        queue.now += 1.0
    queue.offer(*_scavengers(50))
    large = Caller(rows=30)
    effects = queue.offer(large)
    assert effects.admitted == [large.request]
    assert len(failed(effects)) == 30


def test_expired_scavengers_are_dropped():
    """Their deadline applies, but gives them no precedence."""
    queue = Queue(max_rows=100)
    late, other = Caller(priority=_SCAVENGER, deadline=queue.now + 1.0), Caller(priority=_SCAVENGER)
    queue.offer(late, other)
    queue.now += 2.0
    batch, effects = queue.take()
    assert (batch.requests, list(failed(effects))) == ([other.request], [late.request])


def test_closed_queue_serves_its_scavengers():
    """They were admitted."""
    queue = Queue(max_batch=8, max_rows=100)
    queue.offer(*_scavengers(3))
    queue.state.close()
    batch, _ = queue.take()
    queue.state.retire(batch, queue.now)
    assert (batch.rows, queue.state.drained) == (3, True)
