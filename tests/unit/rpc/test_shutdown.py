"""The order of a shutdown."""

from itertools import permutations
from types import SimpleNamespace

import pytest

from inferd.rpc.call_ends import Ends
from inferd.rpc.server import Shutdown
from tests.unit.rpc.fakes import FakeEvent, FakeLoop


class FakeServer:
    def __init__(self, log):
        self.log = log
        self.tag = None

    def shutdown(self, queue, tag):
        self.log.append("shutdown")
        self.tag = tag

    def cancel_all_calls(self):
        self.log.append("cancel")


class Loop(FakeLoop):
    is_over = None

    def run_until(self, is_over):
        self.is_over = is_over


@pytest.fixture
def bench():
    log = []
    bench = SimpleNamespace(log=log, server=FakeServer(log), loop=Loop(), ends=Ends())
    bench.acceptor = SimpleNamespace(is_done=False, stop=lambda: log.append("accept no more"))
    bench.live = SimpleNamespace(count=1, loop=bench.loop, ends=bench.ends)
    bench.shutdown = Shutdown(bench.server, None, bench.acceptor, bench.live)
    return bench


def test_cancels_after_the_grace(bench):
    """No more calls and GOAWAY first; no call is cancelled before the time."""
    assert not bench.shutdown.begun.is_set()
    bench.shutdown.begin(1025.0)
    assert bench.log == ["accept no more", "shutdown"]
    assert bench.shutdown.begun.is_set()
    ((when, cancel),) = bench.loop.timers
    assert not bench.ends.is_stopped
    cancel()
    assert bench.ends.is_stopped, "so that the calls that end now are not put down to their callers"
    assert (when, bench.log) == (1025.0, ["accept no more", "shutdown", "cancel"])


def test_second_stop_can_only_cancel_earlier(bench):
    """The core is shut down once; each stop has its own time to cancel."""
    bench.shutdown.begin(1025.0)
    bench.shutdown.begin(1001.0)
    assert bench.log == ["accept no more", "shutdown"]
    assert sorted(when for when, _ in bench.loop.timers) == [1001.0, 1025.0]


@pytest.mark.parametrize("order", list(permutations(["core", "requested", "live"])))
def test_is_over_when_the_core_and_all_calls_are_done(bench, order):
    """The event of the shutdown and those of requested and live calls, in any order."""
    bench.shutdown.begin(1025.0)
    for step in order:
        assert not bench.loop.is_over()
        if step == "core":
            bench.server.tag(FakeEvent())
        elif step == "requested":
            bench.acceptor.is_done = True
        else:
            bench.live.count = 0
    assert bench.loop.is_over()
