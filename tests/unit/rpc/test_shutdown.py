"""The order of a shutdown."""

import pytest

from inferd.rpc.call_ends import Ends
from inferd.rpc.server import Shutdown
from tests.unit.rpc.fakes import FakeEvent, FakeLoop


class FakeServer:
    def __init__(self):
        self.log = []
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
    class Bench:
        server, loop, ends = FakeServer(), Loop(), Ends()
        idle = False

    bench = Bench()
    bench.shutdown = Shutdown(bench.server, None, bench.loop, lambda: bench.idle, bench.ends)
    return bench


def test_cancels_after_the_grace(bench):
    """GOAWAY first; no call is cancelled before the time."""
    bench.shutdown.begin(1025.0)
    assert bench.server.log == ["shutdown"]
    ((when, cancel),) = bench.loop.timers
    assert not bench.ends.is_stopped
    cancel()
    assert bench.ends.is_stopped, "so that the calls that end now are not put down to their callers"
    assert (when, bench.server.log) == (1025.0, ["shutdown", "cancel"])


def test_second_stop_can_only_cancel_earlier(bench):
    """The core is shut down once; each stop has its own time to cancel."""
    bench.shutdown.begin(1025.0)
    bench.shutdown.begin(1001.0)
    assert bench.server.log == ["shutdown"]
    assert sorted(when for when, _ in bench.loop.timers) == [1001.0, 1025.0]


@pytest.mark.parametrize("first", ["core", "calls"])
def test_is_over_when_the_core_and_all_calls_are_done(bench, first):
    """The event of the shutdown and those of requested and live calls, in either order."""
    bench.shutdown.begin(1025.0)
    assert not bench.loop.is_over()
    for step in (first, "calls" if first == "core" else "core"):
        assert not bench.loop.is_over()
        if step == "core":
            bench.server.tag(FakeEvent())
        else:
            bench.idle = True
    assert bench.loop.is_over()
