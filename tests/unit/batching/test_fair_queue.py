"""Order of service within one priority: between principals, and between the requests of one."""

import math

import pytest

from inferd.batching.fair_queue import _IDLE_FLOWS, Flow, Level
from tests.fakes import Caller


def _request(number, due=math.inf, principal="a", weight=1.0, rows=1):
    request = Caller(rows=rows, principal=principal, weight=weight).request
    request.number, request.due = number, due
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
        served.append(request.principal)
    return served


def test_earliest_deadline_is_first_and_equal_ones_are_in_order_of_arrival():
    """The order of insertion does not matter otherwise."""
    flow, (late, early, same, latest) = _flow(30.0, 10.0, 10.0, 40.0)
    assert list(flow) == [early, same, late, latest]
    assert (len(flow), flow.rows) == (4, 4)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_request_leaves_from_any_place_once(place):
    """Head, middle and end; the others stay in order and the rows are given back."""
    flow, requests = _flow(1.0, 2.0, 3.0)
    assert flow.remove(requests[place])
    assert not flow.remove(requests[place])
    assert list(flow) == [request for request in requests if request is not requests[place]]
    assert (len(flow), flow.rows) == (2, 2)


def test_order_holds_while_the_head_of_the_list_is_free():
    """Entries before the head are only released now and then; additions and removals behind it are not affected."""
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


def test_the_first_requests_are_taken_together():
    """Only if they are exactly the first ones, in this order; the others stay in order."""
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


def test_a_batch_of_a_single_principal_is_charged_at_once():
    """As if its requests had been removed one by one; with two principals it has to be one by one."""
    at_once, one_by_one = (_level(*(_request(number) for number in range(4))) for _ in range(2))
    assert at_once.take_first(list(at_once.in_order(1.0))[:3], 3, 3.0)
    _serve(one_by_one, count=3)
    for level in (at_once, one_by_one):
        level.add(_request(9, principal="b"))
        assert _serve(level, count=2) == ["b", "a"]
    both = _level(_request(1), _request(2, principal="b"))
    assert not both.take_first([next(both.in_order(1.0))], 1, 1.0)
    assert both.rows == 2


def test_rows_due_before_a_time_are_counted_or_estimated():
    """Exactly at both ends, and by the average size in between."""
    flow = Flow(1.0, 0.0)
    for number, rows in enumerate((2, 4, 6)):
        flow.add(_request(number, due=10.0 * (number + 1), rows=rows))
    assert [flow.rows_before(due) for due in (5.0, 10.0, 29.0, 30.0, math.inf)] == [0, 4, 8, 12, 12]


def test_at_most_as_many_requests_behind_are_given_as_asked_for():
    """Evenly spaced, with the rows up to each."""
    flow, requests = _flow(*range(100))
    assert [rows for rows, _ in flow.behind(89.0, 32)] == list(range(91, 101))
    spaced = list(flow.behind(36.0, 32))
    assert [request for _, request in spaced] == requests[37::2]
    assert [rows for rows, _ in spaced] == list(range(38, 101, 2))
    assert list(flow.behind(99.0, 32)) == []


def test_one_principal_is_served_by_deadline_only():
    """Nobody else has a claim."""
    late, early = _request(1, due=20.0), _request(2, due=10.0)
    assert list(_level(late, early).in_order(1.0)) == [early, late]


def test_principals_take_turns_whatever_their_deadlines():
    """A principal cannot get more by asking earlier, more often or with nearer deadlines."""
    greedy = [_request(number, due=1.0) for number in range(4)]
    patient = [_request(10 + number, due=9.0, principal="b") for number in range(2)]
    order = list(_level(*greedy, *patient).in_order(1.0))
    assert order == [greedy[0], patient[0], greedy[1], patient[1], greedy[2], greedy[3]]


def test_turns_are_counted_in_cost_not_in_requests():
    """Two requests of one row each for one of two rows."""
    small = [_request(number) for number in range(4)]
    large = [_request(10 + number, principal="b", rows=2) for number in range(2)]
    order = [request.principal for request in _level(*small, *large).in_order(0.25)]
    assert order == ["a", "b", "a", "a", "b", "a"]


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 3.0), (4.0, 1.0)])
def test_cost_is_shared_by_weight_over_many_batches(weights):
    """To within one request, while both principals have enough to do."""
    level, total = Level(), sum(weights)
    for number in range(160):
        for principal, weight in zip("ab", weights, strict=True):
            level.add(_request(number, principal=principal, weight=weight))
    served = _serve(level, 0.01, count=100)
    for principal, weight in zip("ab", weights, strict=True):
        assert served.count(principal) == pytest.approx(100 * weight / total, abs=1)


def test_the_planned_order_is_the_order_in_which_turns_are_charged():
    """What one batch takes is what batches of one request would have taken, so batch size does not affect shares."""
    requests = [_request(number, principal="abc"[number % 3], weight=1.0 + number % 3) for number in range(60)]
    planned = [request.principal for request in _level(*requests).in_order(0.01)]
    served = _serve(_level(*requests), 0.01, count=30)
    assert {name: served.count(name) for name in "abc"} == {name: planned[:30].count(name) for name in "abc"}


def test_an_idle_principal_gets_no_credit():
    """Who comes after a long time shares evenly from then on, and does not catch up."""
    level = _level(*(_request(number) for number in range(100)))
    level.add(_request(100, principal="b"))
    _serve(level, count=51)
    for number in range(20):
        level.add(_request(200 + number, principal="b"))
    assert _serve(level, count=20).count("b") == pytest.approx(10, abs=1)


def test_a_principal_that_leaves_and_returns_is_still_charged():
    """Sending one request at a time, each after the answer to the last, is no way to get more."""
    level = _level(*(_request(number) for number in range(100)))
    level.add(_request(100, principal="b"))
    served = []
    for number in range(40):
        served += _serve(level)
        if served[-1] == "b":
            level.add(_request(200 + number, principal="b"))
    assert served.count("b") == 20


def test_nothing_is_owed_after_the_level_was_empty():
    """All principals start equal, whatever they had before."""
    level = _level(*(_request(number) for number in range(10)), _request(10, principal="b"))
    _serve(level, count=11)
    assert (level.rows, level.flows) == (0, {})
    level.add(_request(20, principal="a"))
    level.add(_request(21, principal="b"))
    assert [request.principal for request in level.in_order(1.0)] == ["a", "b"]


def test_principals_that_were_served_no_more_than_others_are_forgotten():
    """There may be any number of principals; only those that had more than their turn matter."""
    level = _level(_request(0, principal="always"))
    for number in range(10 * _IDLE_FLOWS):
        level.add(_request(number, principal=f"p{number}"))
        level.add(_request(1 + number, principal="always"))
        _serve(level, count=2)
    assert len(level._idle_tags) <= _IDLE_FLOWS


def test_ever_new_principals_do_not_starve_one_that_waits():
    """Each of them is new and has had nothing yet; the number that is remembered is bounded all the same."""
    level = _level(*(_request(number, principal="waits") for number in range(3)))
    served = []
    for number in range(4 * _IDLE_FLOWS):
        level.add(_request(10 + number, principal=f"p{number}"))
        served += _serve(level)
    assert served.count("waits") == 3
    assert len(level._idle_tags) <= _IDLE_FLOWS


def test_victims_come_from_the_principal_with_most_rows_for_its_weight():
    """Until it has no more than others; within a principal what is due first."""
    large = [_request(number, due=float(9 - number)) for number in range(4)]
    small = [_request(10 + number, principal="b") for number in range(2)]
    victims = list(_level(*large, *small).victims())
    assert victims[:2] == [large[3], large[2]]
    assert {request.principal for request in victims[2:4]} == {"a", "b"}
    heavy = [_request(number, weight=4.0) for number in range(4)]
    assert next(_level(*heavy, *small).victims()) is small[0]


def test_victims_of_one_principal_are_by_deadline():
    """Nobody else is there to take them from."""
    late, early = _request(1, due=20.0), _request(2, due=10.0)
    assert list(_level(late, early).victims()) == [early, late]


def test_rows_ahead_are_those_due_before_and_the_share_of_others():
    """A newcomer of a new principal waits for as much of others as it has itself; one of a busy one for its own too."""
    level = _level(*(_request(number, due=float(number)) for number in range(10)))
    assert level.rows_ahead("a", 1.0, 4.0, 1) == 5
    assert level.rows_ahead("b", 1.0, 4.0, 3) == 3
    assert level.rows_ahead("b", 0.5, 4.0, 3) == 6
    assert level.rows_ahead("b", 0.1, 4.0, 3) == 10, "no more than there is"
    level.add(_request(20, due=2.0, principal="b"))
    assert level.rows_ahead("b", 1.0, 4.0, 1) == 2 + 1
    assert level.rows_ahead("b", 1.0, 1.0, 1) == 1


def test_rows_ahead_are_about_what_is_served_before():
    """To within one for each of the others, or more by a turn of them, the most that may go before its end."""
    requests = [_request(n, due=float(n), principal="abc"[n % 3], weight=1.0 + n % 3) for n in range(60)]
    for principal, weight in (("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 2.0)):
        for due in (10.0, 30.0, 61.0):
            estimate = _level(*requests).rows_ahead(principal, weight, due, 1)
            newcomer = _request(100, due=due, principal=principal, weight=weight)
            order = list(_level(*requests, newcomer).in_order(0.01))
            assert order.index(newcomer) - 2 <= estimate <= order.index(newcomer) + 6 / weight


def test_rows_ahead_of_very_many_principals_are_not_underestimated():
    """Beyond some number, what each of them has is not counted."""
    requests = [_request(n, principal=f"p{n % 100}") for n in range(200)]
    level = _level(*requests)
    assert level.rows_ahead("p0", 1.0, math.inf, 1) == 200
    assert level.rows_ahead("new", 1.0, math.inf, 1) == 100


def test_removing_what_is_not_there_changes_nothing():
    """Neither of a principal that has nothing waiting, nor of one that has."""
    level = _level(_request(1))
    assert not level.remove(_request(1, principal="b"), 1.0)
    assert not level.remove(_request(2), 1.0)
    assert level.rows == 1
