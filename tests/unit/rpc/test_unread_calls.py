"""Calls that have come and were not looked at yet."""

import math
from functools import partial
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from inferd.rpc.unread_calls import UnreadCalls as _UnreadCalls

_WAIT_S = 0.25


class UnreadCalls(_UnreadCalls):
    def add(self, peer, item, now, deadline=math.inf):
        super().add(peer, item, now, deadline)


def test_takes_all_in_order_of_arrival():
    """As many as fit; a connection's calls keep their order."""
    unread = UnreadCalls(_WAIT_S)
    for number in range(3):
        unread.add(b"a", number, now=0.0)
    assert list(unread.take(3)) == [0, 1, 2]
    assert unread.count == 0


def test_takes_the_latest_of_too_many():
    """The others would be late."""
    unread = UnreadCalls(_WAIT_S)
    for number in range(5):
        unread.add(b"a", number, now=0.0)
    assert list(unread.take(2)) == [4, 3]
    unread.add(b"a", 5, now=0.1)
    assert list(unread.take(2)) == [5, 2]
    assert unread.count == 2


def test_connections_take_turns():
    """One with many calls does not keep the others waiting, also from one round to the next."""
    unread = UnreadCalls(_WAIT_S)
    for number in range(100):
        unread.add(b"busy", number, now=0.0)
    unread.add(b"quiet", "first", now=0.0)
    unread.add(b"third", "second", now=0.0)
    assert list(unread.take(4)) == [99, "first", "second", 98]
    unread.add(b"quiet", "third", now=0.1)
    assert "third" in list(unread.take(2))


def test_late_calls_are_the_oldest():
    """Of all connections, as many as are asked for."""
    unread = UnreadCalls(_WAIT_S)
    for number in range(3):
        unread.add(b"a", number, now=number / 10)
        unread.add(b"b", -number, now=number / 10)
    assert list(unread.take_late(_WAIT_S - 0.01)) == []
    assert sorted(islice(unread.take_late(_WAIT_S + 0.15), 3)) == [0, 0, 1]
    assert list(unread.take_late(_WAIT_S + 0.15)) == [-1]
    assert unread.count == 2


def test_late_calls_of_connections_take_turns():
    """So that those of none wait for all of another's."""
    unread = UnreadCalls(_WAIT_S)
    for number in range(10):
        unread.add(b"busy", number, now=0.0)
    unread.add(b"quiet", "other", now=0.0)
    assert list(islice(unread.take_late(_WAIT_S), 3)) == [0, "other", 1]


def test_expired_calls_leave_before_their_turn():
    """Whatever they have waited; those behind one that has time left do later."""
    unread = UnreadCalls(_WAIT_S)
    unread.add(b"a", "expired", now=0.0, deadline=0.05)
    unread.add(b"a", "alive", now=0.0)
    unread.add(b"a", "behind", now=0.0, deadline=0.05)
    unread.add(b"b", "expired too", now=0.0, deadline=0.1)
    assert list(unread.take_expired(0.04)) == []
    assert list(unread.take_expired(0.1)) == ["expired", "expired too"]
    assert list(unread.take(2)) == ["alive", "behind"]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 3)),
            st.tuples(st.just("take"), st.integers(0, 5)),
            st.tuples(st.just("late"), st.integers(0, 5)),
            st.tuples(st.just("expired"), st.integers(0, 5)),
        )
    )
)
def test_each_call_is_taken_once(steps):
    """Nothing is lost, whatever the order."""
    unread, added, taken = UnreadCalls(_WAIT_S), [], []
    for number, (step, how) in enumerate(steps):
        now = number / 10
        if step == "add":
            added.append(number)
            unread.add(b"%d" % how, number, now, deadline=now + how)
            continue
        take = {"take": partial(unread.take, how), "late": partial(unread.take_late, now)}
        taken += islice(take.get(step, partial(unread.take_expired, now))(), how)
        assert unread.count == len(added) - len(taken)
    taken += unread.take(unread.count)
    assert sorted(taken) == added
