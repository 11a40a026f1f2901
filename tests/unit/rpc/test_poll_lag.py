"""The lag of the poll thread, on a fake loop."""

from inferd.rpc.poll_lag import PollLag
from tests.unit.rpc.fakes import FakeClock, FakeLoop


def start():
    clock = FakeClock(10.0)
    loop = FakeLoop(clock)
    lag = PollLag(loop, clock)
    lag.start()
    return clock, loop, lag


def test_no_lag_before_the_first_probe():
    """Between probes nothing is late."""
    clock, _, lag = start()
    clock.advance(0.9)
    assert lag.lag_s == 0.0


def test_probe_counts_late_timers_and_queued_events():
    """The lag is the time from when the probe was due to when it is handled."""
    clock, loop, lag = start()
    (_, send) = loop.timers.pop()
    clock.advance(1.25)
    send()
    clock.advance(0.5)
    loop.run_after_queued()
    assert lag.lag_s == 0.75


def test_blocked_loop_shows_while_it_is_blocked():
    """A probe that has not arrived counts with its lag so far."""
    clock, _, lag = start()
    clock.advance(8.0)
    assert lag.lag_s == 7.0


def test_probes_repeat():
    """Each probe schedules the next, and replaces the lag."""
    clock, loop, lag = start()
    for late_s in (0.5, 0.0):
        when, send = loop.timers.pop()
        clock.now = when + late_s
        send()
        loop.run_after_queued()
        assert lag.lag_s == late_s
    assert len(loop.timers) == 1
