"""Order of service within one priority: between principals, and between the requests of one."""

import math

import pytest

from inferd.batching.fair_queue import _IDLE_FLOWS, Flow, Level
from tests.fakes import Caller


def _request(number, due=math.inf, principal="a", weight=1.0, rows=1):
    request = Caller(rows=rows, principal=principal, weight=weight).request
    request.edf_key = due, number
    return request


def _flow(*dues):
    flow, requests = Flow(1.0, 0.0), [_request(number, due) for number, due in enumerate(dues)]
    for request in requests:
        flow.add(request)
    return flow, requests


def _level(*requests):
    level = Level()
    for request in requests:
        level.add(request)
    return level


def _serve(level, row_s=1.0, count=1):
    """Take the next ``count`` requests one by one, as batches of one request do, and return their principals."""
    served = []
    for _ in range(count):
        request = next(level.in_order(row_s))
        assert level.remove(request, request.rows * row_s)
        served.append(request.principal.name)
    return served


def test_orders_by_deadline_then_arrival():
    """The order of insertion does not matter otherwise."""
    flow, (late, early, same, latest) = _flow(30.0, 10.0, 10.0, 40.0)
    assert list(flow) == [early, same, late, latest]
    assert (len(flow), flow.rows) == (4, 4)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_removes_requests_at_any_position_once(place):
    """Head, middle and end; the others keep their order, and the rows are released."""
    flow, requests = _flow(1.0, 2.0, 3.0)
    assert flow.remove(requests[place])
    assert not flow.remove(requests[place])
    assert list(flow) == [request for request in requests if request is not requests[place]]
    assert (len(flow), flow.rows) == (2, 2)


def test_keeps_order_with_free_entries_at_the_head():
    """They are only compacted occasionally; additions and removals behind them are not affected."""
    flow, requests = _flow(*range(10))
    for request in requests[:3]:
        assert flow.remove(request)
    first = _request(20, due=2.5)
    flow.add(first)
    assert flow.remove(requests[6])
    assert not flow.remove(requests[0])
    assert list(flow) == [first, *requests[3:6], *requests[7:]]
    assert [flow.remove(request) for request in list(flow)] == [True] * 7
    assert (list(flow), flow.rows) == ([], 0)
    flow.add(requests[0])
    assert list(flow) == [requests[0]]


def test_takes_a_prefix_at_once():
    """Only exactly the first requests in this order; the others keep theirs."""
    flow, requests = _flow(*range(8))
    for wrong in (requests[1:3], [requests[0], requests[2]], [requests[1], requests[0]], [*requests, requests[0]]):
        assert not flow.take_first(wrong, len(wrong))
    assert flow.take_first(requests[:2], 2)
    assert flow.take_first(requests[2:5], 3)
    first = _request(20, due=4.5)
    flow.add(first)
    assert (list(flow), flow.rows) == ([first, *requests[5:]], 4)
    assert flow.take_first([first, *requests[5:]], 4)
    assert (list(flow), len(flow), flow.rows) == ([], 0, 0)


def test_charges_batch_of_one_principal_at_once():
    """As if its requests had been removed one by one, which two principals require."""
    at_once, one_by_one = (_level(*(_request(number) for number in range(4))) for _ in range(2))
    assert at_once.take_first(list(at_once.in_order(1.0))[:3], 3, 3.0)
    _serve(one_by_one, count=3)
    for level in (at_once, one_by_one):
        level.add(_request(9, principal="b"))
        assert _serve(level, count=2) == ["b", "a"]
    both = _level(_request(1), _request(2, principal="b"))
    assert not both.take_first([next(both.in_order(1.0))], 1, 1.0)
    assert both.rows == 2


def test_counts_or_estimates_rows_due_before():
    """Exactly at both ends, and by the average size in between."""
    flow = Flow(1.0, 0.0)
    for number, rows in enumerate((2, 4, 6)):
        flow.add(_request(number, due=10.0 * (number + 1), rows=rows))
    assert [flow.rows_before(due) for due in (5.0, 10.0, 29.0, 30.0, math.inf)] == [0, 4, 8, 12, 12]


def test_samples_requests_behind_up_to_the_count():
    """Evenly spaced, with the rows up to each."""
    flow, requests = _flow(*range(100))
    assert [rows for rows, _ in flow.behind(89.0, 32)] == list(range(91, 101))
    spaced = list(flow.behind(36.0, 32))
    assert [request for _, request in spaced] == requests[37::2]
    assert [rows for rows, _ in spaced] == list(range(38, 101, 2))
    assert list(flow.behind(99.0, 32)) == []


def test_single_principal_is_served_by_deadline():
    """There is no other to share with."""
    late, early = _request(1, due=20.0), _request(2, due=10.0)
    assert list(_level(late, early).in_order(1.0)) == [early, late]


def test_principals_take_turns_whatever_their_deadlines():
    """Sending earlier, more often or with nearer deadlines gets a principal no more."""
    greedy = [_request(number, due=1.0) for number in range(4)]
    patient = [_request(10 + number, due=9.0, principal="b") for number in range(2)]
    order = list(_level(*greedy, *patient).in_order(1.0))
    assert order == [greedy[0], patient[0], greedy[1], patient[1], greedy[2], greedy[3]]


def test_turns_count_cost_not_requests():
    """Two requests of one row for each one of two rows."""
    small = [_request(number) for number in range(4)]
    large = [_request(10 + number, principal="b", rows=2) for number in range(2)]
    order = [request.principal.name for request in _level(*small, *large).in_order(0.25)]
    assert order == ["a", "b", "a", "a", "b", "a"]


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 3.0), (4.0, 1.0)])
def test_shares_cost_by_weight(weights):
    """To within one request over many batches, while both principals have enough queued."""
    level, total = Level(), sum(weights)
    for number in range(160):
        for principal, weight in zip("ab", weights, strict=True):
            level.add(_request(number, principal=principal, weight=weight))
    served = _serve(level, 0.01, count=100)
    for principal, weight in zip("ab", weights, strict=True):
        assert served.count(principal) == pytest.approx(100 * weight / total, abs=1)


def test_planned_order_equals_charged_order():
    """A batch takes what batches of one request would have taken, so batch size does not affect shares."""
    requests = [_request(number, principal="abc"[number % 3], weight=1.0 + number % 3) for number in range(60)]
    planned = [request.principal.name for request in _level(*requests).in_order(0.01)]
    served = _serve(_level(*requests), 0.01, count=30)
    assert {name: served.count(name) for name in "abc"} == {name: planned[:30].count(name) for name in "abc"}


def test_idle_principal_gets_no_credit():
    """One that returns after a long time shares evenly from then on."""
    level = _level(*(_request(number) for number in range(100)))
    level.add(_request(100, principal="b"))
    _serve(level, count=51)
    for number in range(20):
        level.add(_request(200 + number, principal="b"))
    assert _serve(level, count=20).count("b") == pytest.approx(10, abs=1)


def test_returning_principal_is_still_charged():
    """Sending sequential requests gets a principal no more."""
    level = _level(*(_request(number) for number in range(100)))
    level.add(_request(100, principal="b"))
    served = []
    for number in range(40):
        served += _serve(level)
        if served[-1] == "b":
            level.add(_request(200 + number, principal="b"))
    assert served.count("b") == 20


def test_empty_level_resets_charges():
    """All principals start equal."""
    level = _level(*(_request(number) for number in range(10)), _request(10, principal="b"))
    _serve(level, count=11)
    assert (level.rows, level.flows) == (0, {})
    level.add(_request(20, principal="a"))
    level.add(_request(21, principal="b"))
    assert [request.principal.name for request in level.in_order(1.0)] == ["a", "b"]


def test_forgets_principals_served_no_more_than_others():
    """The number of principals is unbounded; only those served more than their turn are remembered."""
    level = _level(_request(0, principal="always"))
    for number in range(10 * _IDLE_FLOWS):
        level.add(_request(number, principal=f"p{number}"))
        level.add(_request(1 + number, principal="always"))
        _serve(level, count=2)
    assert len(level._idle_tags) <= _IDLE_FLOWS


def test_new_principals_do_not_starve_a_queued_one():
    """Each starts uncharged, and the number remembered is bounded."""
    level = _level(*(_request(number, principal="waits") for number in range(3)))
    served = []
    for number in range(4 * _IDLE_FLOWS):
        level.add(_request(10 + number, principal=f"p{number}"))
        served += _serve(level)
    assert served.count("waits") == 3
    assert len(level._idle_tags) <= _IDLE_FLOWS


def test_victims_are_of_the_principal_with_most_rows_by_weight():
    """Until it has no more than others; within a principal by deadline."""
    large = [_request(number, due=float(9 - number)) for number in range(4)]
    small = [_request(10 + number, principal="b") for number in range(2)]
    victims = list(_level(*large, *small).victims())
    assert victims[:2] == [large[3], large[2]]
    assert {request.principal.name for request in victims[2:4]} == {"a", "b"}
    heavy = [_request(number, weight=4.0) for number in range(4)]
    assert next(_level(*heavy, *small).victims()) is small[0]


def test_victims_of_single_principal_are_by_deadline():
    """There is no other principal to evict from."""
    late, early = _request(1, due=20.0), _request(2, due=10.0)
    assert list(_level(late, early).victims()) == [early, late]


def test_rows_ahead_include_the_share_of_others():
    """A new principal waits for as many rows of others as it has itself; a busy one also for its own."""
    level = _level(*(_request(number, due=float(number)) for number in range(10)))
    assert level.rows_ahead("a", 1.0, 4.0, 1) == 5
    assert level.rows_ahead("b", 1.0, 4.0, 3) == 3
    assert level.rows_ahead("b", 0.5, 4.0, 3) == 6
    assert level.rows_ahead("b", 0.1, 4.0, 3) == 10, "no more than there is"
    level.add(_request(20, due=2.0, principal="b"))
    assert level.rows_ahead("b", 1.0, 4.0, 1) == 2 + 1
    assert level.rows_ahead("b", 1.0, 1.0, 1) == 1


def test_rows_ahead_match_the_order_of_service():
    """At most one row too few for each other principal, or one turn of them too many."""
    requests = [_request(n, due=float(n), principal="abc"[n % 3], weight=1.0 + n % 3) for n in range(60)]
    for principal, weight in (("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 2.0)):
        for due in (10.0, 30.0, 61.0):
            estimate = _level(*requests).rows_ahead(principal, weight, due, 1)
            newcomer = _request(100, due=due, principal=principal, weight=weight)
            order = list(_level(*requests, newcomer).in_order(0.01))
            assert order.index(newcomer) - 2 <= estimate <= order.index(newcomer) + 6 / weight


def test_rows_ahead_are_not_underestimated_with_many_principals():
    """Beyond some number their rows are not counted individually."""
    requests = [_request(n, principal=f"p{n % 100}") for n in range(200)]
    level = _level(*requests)
    assert level.rows_ahead("p0", 1.0, math.inf, 1) == 200
    assert level.rows_ahead("new", 1.0, math.inf, 1) == 100


def test_removing_unknown_request_has_no_effect():
    """Of a principal with nothing queued, and of one with some."""
    level = _level(_request(1))
    assert not level.remove(_request(1, principal="b"), 1.0)
    assert not level.remove(_request(2), 1.0)
    assert level.rows == 1
