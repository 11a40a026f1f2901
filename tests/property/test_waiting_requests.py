"""The waiting requests of a queue against plain lists, over any sequence of additions and removals."""

from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.batching.waiting import WaitingRequests
from tests.fakes import Caller

_LEVELS = 3
_WEIGHTS = {"": 1.0, "a": 1.0, "b": 2.0, "c": 0.25}


@st.composite
def _requests(draw):
    principal = draw(st.sampled_from(sorted(_WEIGHTS)))
    request = Caller(
        rows=draw(st.integers(1, 5)),
        nbytes=draw(st.integers(0, 9)),
        priority=draw(st.integers(1, _LEVELS + 1)),
        principal=principal,
        weight=_WEIGHTS[principal],
        deadline=100.0 + draw(st.sampled_from([0.1, 0.2, 0.2, 0.9, 5.0, float("inf")])),
    ).request
    request.enqueued_at = 100.0 + draw(st.sampled_from([0.0, 0.05]))
    return request


_STEPS = st.lists(
    st.one_of(
        _requests(),
        st.tuples(st.sampled_from(["remove", "take", "take others", "evict"]), st.integers(0, 11)),
    ),
    max_size=60,
)


def _check(waiting, present):
    """Compare counts and orders with the requests that are present."""
    assert (waiting.count, waiting.rows) == (len(present), sum(request.rows for request in present))
    assert waiting.nbytes == sum(request.nbytes for request in present)
    online = [request for request in present if request.priority <= _LEVELS]
    victims = list(waiting.victims())
    for order, expected in (
        (list(waiting), present),
        (victims, present),
        (list(waiting.in_order()), online),
        ([*waiting.in_order(), *waiting.scavengers_in_order()], present),
    ):
        assert len(order) == len(set(order)) == len(expected)
        assert set(order) == set(expected)
    assert [request.priority for request in victims] == sorted((request.priority for request in victims), reverse=True)
    for order in (waiting, victims, waiting.in_order()):
        flows = {}
        for request in order:
            flows.setdefault((request.priority, request.principal), []).append(request.edf_key)
        # Except for those that ageing puts first, which are the first ones of their flows.
        assert all(flow == sorted(flow) for flow in flows.values())


@settings(max_examples=200, deadline=None)
@given(steps=_STEPS, low_share=st.sampled_from([0.0, 0.3]))
def test_orders_are_permutations_and_counts_are_right(steps, low_share):
    """Whatever comes and goes, from whichever place: nothing is lost or counted twice, and each flow is by deadline."""
    waiting = WaitingRequests(max_rows=10**6, max_bytes=10**6, priority_levels=_LEVELS, low_share=low_share)
    present = []
    for step in steps:
        if not isinstance(step, tuple):
            waiting.add(step)
            present.append(step)
        elif present:
            what, number = step
            if what == "remove":
                request = present.pop(number % len(present))
                assert waiting.remove(request)
                assert not waiting.remove(request)
            else:
                _take(waiting, present, what, number)
        _check(waiting, present)
    for request in list(waiting):
        assert waiting.remove(request)
    assert (waiting.count, waiting.rows, waiting.nbytes, list(waiting)) == (0, 0, 0, [])


def _take(waiting, present, what, number):
    """Take the first requests, every other one of them as if the others could not be stacked, or evict some."""
    online = list(waiting.in_order()) or list(waiting.scavengers_in_order())
    batch = online[: number + 1] if what == "take" else online[: number + 1 : 2]
    if what == "evict":
        for victim in list(waiting.victims())[:number]:
            assert waiting.remove(victim)
            present.remove(victim)
        return
    waiting.take(batch, sum(request.rows for request in batch), 0.01)
    for request in batch:
        present.remove(request)
