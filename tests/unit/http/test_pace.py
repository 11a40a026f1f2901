"""The CPU budget of a thread."""

import pytest

from inferd.http.pace import Pace
from tests.fakes import FakeClock

SHARE, BURST_S, LONGEST_S = 0.25, 0.1, 0.5


class Thread:
    """A thread that works and waits as the test says."""

    def __init__(self) -> None:
        self.wall, self.cpu = FakeClock(), FakeClock()
        self._pace = Pace(SHARE, burst_s=BURST_S, longest_s=LONGEST_S, clock=self.wall, cpu_clock=self.cpu)

    def works(self, seconds: float, *, while_others_run_s: float = 0.0) -> float:
        """Use this much CPU time, and return the wait that follows."""
        self.cpu.advance(seconds)
        self.wall.advance(seconds + while_others_run_s)
        return self._pace.wait_s()


def test_no_wait_within_burst():
    """A scrape now and then is answered at once; passing time refills the budget."""
    thread = Thread()
    for _ in range(100):
        assert thread.works(0.05) == 0.0
        thread.wall.advance(0.15)


def test_busy_thread_gets_its_share():
    """And no less: waiting time counts in its favour."""
    thread, took_s = Thread(), 0.0
    began_at = thread.wall()
    for _ in range(1000):
        thread.wall.advance(thread.works(0.01))
        took_s += 0.01
    assert took_s == pytest.approx(BURST_S + SHARE * (thread.wall() - began_at), abs=0.01)


def test_time_of_other_threads_is_not_counted():
    """Waiting for the interpreter lock is no work."""
    assert Thread().works(0.1, while_others_run_s=10.0) == 0.0


def test_idle_time_saves_at_most_burst():
    """However long."""
    thread = Thread()
    thread.wall.advance(1000)
    assert thread.works(BURST_S + 0.01) == pytest.approx(0.01 / SHARE)


def test_wait_is_limited():
    """Debt beyond it is forgiven."""
    thread = Thread()
    assert thread.works(60) == LONGEST_S
    thread.wall.advance(LONGEST_S)
    assert thread.works(0.0) == 0.0
