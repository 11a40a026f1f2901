"""The order of service and the two bounds."""

from inferd.batching.waiting import WaitingRequests
from tests.fakes import Caller


def _waiting(max_rows=10, max_bytes=100, levels=3):
    return WaitingRequests(max_rows=max_rows, max_bytes=max_bytes, priority_levels=levels)


def test_rows_are_counted_not_requests():
    """Two requests of five rows fill a queue of ten."""
    waiting = _waiting()
    waiting.add(Caller(rows=5).request)
    waiting.add(Caller(rows=5).request)
    assert not waiting.fits(Caller(rows=1).request)
    assert (waiting.count, waiting.rows) == (2, 10)


def test_bytes_are_bounded_exactly():
    """The last byte fits, one more does not."""
    waiting = _waiting()
    waiting.add(Caller(nbytes=60).request)
    assert waiting.fits(Caller(nbytes=40).request)
    assert not waiting.fits(Caller(nbytes=41).request)


def test_priority_comes_before_age_in_both_orders():
    """Served: 1 before 2, then the oldest; shed: 3 before 2, then the oldest too."""
    waiting = _waiting()
    late, low, first, second = (Caller(priority=p).request for p in (2, 3, 1, 1))
    for request in (low, late, first, second):
        waiting.add(request)
    assert list(waiting) == [first, second, late, low]
    assert list(waiting.victims()) == [low, late, first, second]


def test_removing_gives_the_place_back_once():
    """A request leaves from the middle, and is not there a second time."""
    waiting = _waiting()
    callers = [Caller(rows=2, nbytes=10) for _ in range(3)]
    for caller in callers:
        waiting.add(caller.request)
    assert waiting.remove(callers[1].request)
    assert not waiting.remove(callers[1].request)
    assert (waiting.count, waiting.rows, waiting.nbytes) == (2, 4, 20)
    assert list(waiting) == [callers[0].request, callers[2].request]


def test_removing_what_was_never_there_does_nothing():
    """Also for a priority that the queue does not have."""
    waiting = _waiting()
    assert not waiting.remove(Caller(priority=0).request)
    assert not waiting.remove(Caller(priority=9).request)
