"""Calls that are to bring their message soon end if they do not."""

import grpc
import pytest

from inferd.rpc.stream_call import CoreStreamCall
from inferd.rpc.unary_call import CoreUnaryCall
from inferd.rpc.unread_calls import WITHIN_S, UnreadCalls
from tests.unit.rpc.fakes import Bench, FakeLoop


class Unread:
    """A call that remembers how it was ended."""

    def __init__(self):
        self.codes = []

    def abort(self, code, details, trailing_metadata=()):
        self.codes.append(code.name)
        return True


def test_each_has_the_same_time():
    """Those that are late end, the others have theirs."""
    loop = FakeLoop()
    unread = UnreadCalls(loop)
    first, second, _ = calls = [Unread() for _ in range(3)]
    for call in calls:
        unread.add(call)
        loop.clock.advance(1)
    unread.discard(second)
    (when, timer), *others = loop.timers
    assert (when, others) == (1000.0 + WITHIN_S, [])
    loop.timers.clear()
    loop.clock.now = when
    timer()
    assert [call.codes for call in calls] == [["DEADLINE_EXCEEDED"], [], []]
    loop.run_timers()
    assert [call.codes for call in calls] == [["DEADLINE_EXCEEDED"], [], ["DEADLINE_EXCEEDED"]]
    assert loop.clock.now == 1002.0 + WITHIN_S
    assert unread.until == {}
    unread.add(first)
    assert len(loop.timers) == 1


@pytest.mark.parametrize("kind", [CoreUnaryCall, CoreStreamCall])
def test_a_message_that_never_comes_ends_the_call(kind):
    """With a status that says what was expected; the core then lets go of what has come."""
    bench = Bench(kind)
    bench.call.expect_message_soon()
    bench.call.serve_unary(lambda call, request: None)
    bench.loop.run_timers()
    assert bench.recorder.ends == [(grpc.StatusCode.DEADLINE_EXCEEDED, "expected the whole request within 5 s")]


@pytest.mark.parametrize("kind", [CoreUnaryCall, CoreStreamCall])
def test_who_has_brought_it_may_take_its_time(kind):
    """Nothing of the call is kept."""
    bench = Bench(kind)
    bench.call.expect_message_soon()
    bench.call.serve_unary(lambda call, request: None)
    bench.core.complete("ReceiveMessage", message=b"request")
    assert bench.live.unread.until == {}
    bench.loop.run_timers()
    assert bench.recorder.ends == []
