"""Message timeouts, and the one timer for all calls."""

from types import SimpleNamespace

import pytest

from inferd.rpc.call import CoreUnaryCall
from inferd.rpc.stream_call import CoreStreamCall
from inferd.rpc.upkeep import SMALL_MESSAGE_S, Upkeep
from tests.unit.rpc.fakes import Bench, receive_one

TIMEOUT_S = 20.0


class UpkeepBench:
    """A call and the upkeep of its server; `pass_time` runs its timers."""

    def __init__(self, kind, *, timeout_s=TIMEOUT_S, is_small=False):
        self.bench = Bench(kind, on_live=lambda live: self.watch(live, timeout_s))
        if is_small:
            self.bench.call.expect_small_message()

    def watch(self, live, timeout_s):
        self.upkeep = Upkeep(live, message_timeout_s=timeout_s)

    def pass_time(self, seconds):
        loop = self.bench.loop
        until = loop.clock.now + seconds
        while loop.timers and loop.timers[0][0] <= until:
            when, callback = loop.timers.pop(0)
            loop.clock.now = max(loop.clock.now, when)
            callback()
        loop.clock.now = until

    @property
    def ends(self):
        return [(code.name, details) for code, details in self.bench.recorder.ends]


def serve(watched):
    receive_one(watched.bench.call)


@pytest.mark.parametrize("kind", [CoreUnaryCall, CoreStreamCall])
@pytest.mark.parametrize(("is_small", "limit_s"), [(False, TIMEOUT_S), (True, SMALL_MESSAGE_S)])
def test_ends_call_without_a_complete_message(kind, is_small, limit_s):
    """Within half a second after its limit, with a status that names it."""
    watched = UpkeepBench(kind, is_small=is_small)
    serve(watched)
    watched.pass_time(limit_s - 0.1)
    assert watched.ends == []
    watched.pass_time(0.7)
    assert watched.ends == [("DEADLINE_EXCEEDED", f"expected the whole request within {limit_s:g} s")]
    assert watched.bench.live.refusals.counts["MESSAGE_TIMEOUT"] == 1


@pytest.mark.parametrize("kind", [CoreUnaryCall, CoreStreamCall])
def test_complete_message_has_no_timeout(kind):
    """An empty one counts as well."""
    watched = UpkeepBench(kind, is_small=True)
    serve(watched)
    watched.bench.core.complete("ReceiveMessage", message=b"")
    watched.pass_time(10 * TIMEOUT_S)
    assert watched.ends == []


@pytest.mark.parametrize(("is_small", "ends"), [(False, []), (True, ["DEADLINE_EXCEEDED"])])
def test_silent_stream_has_no_timeout(is_small, ends):
    """Except after `expect_small_message`."""
    watched = UpkeepBench(CoreStreamCall, is_small=is_small)
    watched.bench.call.serve(lambda call: SimpleNamespace(on_terminated=lambda: None))
    watched.pass_time(10 * TIMEOUT_S)
    assert [code for code, _ in watched.ends] == ends


@pytest.mark.parametrize("is_small", [True, False])
def test_no_timeout_by_default(is_small):
    """Without a timeout only small messages have one."""
    watched = UpkeepBench(CoreUnaryCall, timeout_s=None, is_small=is_small)
    serve(watched)
    watched.pass_time(1e4)
    assert len(watched.ends) == is_small


def test_has_a_timer_only_while_there_are_calls():
    """It ends with the last call and is set again by the next one."""
    watched = UpkeepBench(CoreUnaryCall)
    serve(watched)
    bench = watched.bench
    assert bench.live.on_call is None
    bench.core.complete("ReceiveMessage", message=b"request")
    bench.call.reply(b"")
    bench.core.complete("SendStatusFromServer")
    bench.core.complete("ReceiveCloseOnServer")
    assert bench.live.count == 0
    watched.pass_time(1.0)
    assert bench.loop.timers == []
    bench.live.on_call()
    assert len(bench.loop.timers) == 1
    assert bench.live.on_call is None
