"""The order of service, and the two bounds."""

import pytest

from inferd.batching.waiting import WaitingRequests
from tests.fakes import Caller


def _waiting(max_rows=10, max_bytes=100, levels=3, **limits):
    return WaitingRequests(max_rows=max_rows, max_bytes=max_bytes, priority_levels=levels, **limits)


def _flooded(low_share, rows_of_low=1, batches=100):
    """Serve ``batches`` of 8 rows while all priorities always have more than enough queued; return rows by priority."""
    waiting, served = _waiting(max_rows=10**6, max_bytes=10**9, low_share=low_share), {1: 0, 2: 0, 3: 0}
    for _ in range(batches * 8):
        waiting.add(Caller().request)
        for priority in (2, 3):
            waiting.add(Caller(priority=priority, rows=rows_of_low).request)
    for _ in range(batches):
        batch, rows = [], 0
        for request in waiting.in_order():
            if rows + request.rows <= 8:
                batch.append(request)
                rows += request.rows
        waiting.take(batch, rows, 0.001)
        for request in batch:
            served[request.priority] += request.rows
    return served


def test_counts_rows_not_requests():
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


def test_priority_precedes_age_in_both_orders():
    """Served: 1 before 2, then the oldest; evicted: 3 before 2, then also the oldest."""
    waiting = _waiting()
    late, low, first, second = (Caller(priority=p).request for p in (2, 3, 1, 1))
    for request in (low, late, first, second):
        waiting.add(request)
    assert list(waiting) == [first, second, late, low]
    assert list(waiting.victims()) == [low, late, first, second]


def test_removal_releases_rows_once():
    """A request leaves from the middle, and is then no longer queued."""
    waiting = _waiting()
    callers = [Caller(rows=2, nbytes=10) for _ in range(3)]
    for caller in callers:
        waiting.add(caller.request)
    assert waiting.remove(callers[1].request)
    assert not waiting.remove(callers[1].request)
    assert (waiting.count, waiting.rows, waiting.nbytes) == (2, 4, 20)
    assert list(waiting) == [callers[0].request, callers[2].request]


def test_removing_unknown_request_has_no_effect():
    """Also for a priority that the queue does not have."""
    waiting = _waiting()
    assert not waiting.remove(Caller(priority=0).request)
    assert not waiting.remove(Caller(priority=9).request)


def test_orders_by_deadline_within_a_second_of_arrival():
    """A later deadline counts as one second, so newcomers with nearer ones pass only until then."""
    waiting = _waiting()
    patient, soon, sooner, later = (Caller(deadline=deadline).request for deadline in (130.0, 100.9, 100.5, 101.4))
    for request in (patient, soon, sooner):
        request.enqueued_at = 100.0
        waiting.add(request)
    later.enqueued_at = 100.6
    waiting.add(later)
    assert list(waiting) == [sooner, soon, patient, later]


@pytest.mark.parametrize("low_share", [0.05, 0.25])
@pytest.mark.parametrize("rows_of_low", [1, 8])
def test_lower_priorities_get_exactly_their_share(low_share, rows_of_low):
    """Whatever the size of requests: 2 a share of what 1 gets, 3 a share of what both get."""
    served = _flooded(low_share, rows_of_low)
    # One request, and the share of the batch being composed.
    close = rows_of_low + 8 * low_share
    assert served[2] == pytest.approx(low_share * served[1], abs=close)
    assert served[3] == pytest.approx(low_share * (served[1] + served[2]), abs=close)


def test_without_a_share_priority_is_strict():
    """Lower priorities wait."""
    assert _flooded(0.0) == {1: 800, 2: 0, 3: 0}


def test_idle_priority_gets_no_credit():
    """A request after a long flood waits as long as one at its start."""
    waiting = _waiting(max_rows=1000, low_share=0.25)
    for _ in range(2):
        high = [Caller().request for _ in range(100)]
        for request in high:
            waiting.add(request)
        for start in (0, 8):
            waiting.take(high[start : start + 8], 8, 0.001)
        low = Caller(priority=3, rows=4).request
        waiting.add(low)
        for start in (16, 24):
            assert next(waiting.in_order()) is not low
            waiting.take(high[start : start + 8], 8, 0.001)
        assert next(waiting.in_order()) is low
        waiting.take([low], 4, 0.001)
        waiting.take(high[32:], 68, 0.001)


def test_scavengers_are_last_and_get_no_share():
    """They are evicted first, and are not in the order of service of the others."""
    waiting = _waiting(low_share=0.5)
    scavenger, low, high = (Caller(priority=priority).request for priority in (4, 3, 1))
    for request in (scavenger, low, high):
        waiting.add(request)
    assert (list(waiting), list(waiting.in_order())) == ([high, low, scavenger], [high, low])
    assert list(waiting.scavengers_in_order()) == [scavenger]
    assert list(waiting.victims()) == [scavenger, low, high]
    assert (waiting.scavengers.rows, waiting.is_scavenger(scavenger), waiting.is_scavenger(low)) == (1, True, False)


def test_row_limit_counts_rows_served_before():
    """Not lower priorities, and of other principals at most as many rows as the newcomer's has."""
    waiting = _waiting(max_rows=100, max_bytes=1000)
    waiting.row_limit = 10
    for _ in range(10):
        waiting.add(Caller(priority=2, principal="a").request)
    assert waiting.fits(Caller(priority=1, rows=10).request)
    assert waiting.fits(Caller(priority=2, rows=5, principal="b").request)
    assert not waiting.fits(Caller(priority=2, rows=6, principal="b").request)
    assert waiting.fits(Caller(priority=2, rows=8, principal="b", weight=4.0).request)
    assert not waiting.fits(Caller(priority=2, principal="a").request)
    assert not waiting.fits(Caller(priority=3).request)


def test_request_larger_than_the_row_limit_fits_if_it_is_first():
    """It would otherwise be rejected for as long as lower priorities are queued."""
    waiting = _waiting(max_rows=100, max_bytes=1000)
    waiting.row_limit = 10
    waiting.add(Caller(priority=3).request)
    assert waiting.fits(Caller(priority=2, rows=50).request)
    waiting.add(Caller(priority=1).request)
    assert not waiting.fits(Caller(priority=2, rows=50).request)


def test_each_priority_fits_some_rows_beside_higher_ones():
    """A flood of a high priority fills the queue, and lower ones still have to get their share."""
    waiting = _waiting(max_rows=100, max_bytes=1000, level_rows=4)
    waiting.row_limit = 10
    for _ in range(10):
        waiting.add(Caller(priority=1).request)
    assert waiting.fits(Caller(priority=2, rows=4).request)
    waiting.add(Caller(priority=2).request)
    assert not waiting.fits(Caller(priority=2, rows=4).request)
    assert waiting.fits(Caller(priority=3, rows=4).request)
