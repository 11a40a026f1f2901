"""Threads that give way to an urgent one, with real threads."""

import threading

import pytest

from inferd.interpreter_lock import UrgentThread
from tests.patience import PATIENCE_S, eventually
from tests.unit.rpc.fakes import FakeClock


class Bench:
    """An urgent thread, and others that give way to it; the log has when the core was yielded."""

    def __init__(self, *, has_several_cores=True, max_round_s=PATIENCE_S):
        self.log = []
        self.clock = FakeClock()
        self.urgent = UrgentThread(
            clock=self.clock,
            let_run=lambda: self.log.append("yielded"),
            has_several_cores=lambda: has_several_cores,
            max_round_s=max_round_s,
        )

    def start(self):
        """Have a thread give way, and return it when it waits."""
        thread = threading.Thread(target=self.urgent.give_way, kwargs={"may_sleep": False}, daemon=True)
        before = len(self.urgent._waiting)
        thread.start()
        eventually(lambda: len(self.urgent._waiting) == before + 1, "the thread waits")
        return thread


@pytest.mark.parametrize("end", ["end_round", "release"])
def test_others_wait_for_the_end_of_a_round(end):
    """All of them; after a release they go on while the round goes on."""
    bench = Bench()
    bench.urgent.begin_round()
    threads = [bench.start(), bench.start()]
    getattr(bench.urgent, end)()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert not bench.log


def test_gives_up_waiting_for_a_long_round():
    """Nothing of it is left afterwards."""
    bench = Bench(max_round_s=0.001)
    bench.urgent.begin_round()
    thread = threading.Thread(target=bench.urgent.give_way, kwargs={"may_sleep": False}, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert not bench.urgent._waiting
    assert not bench.log


@pytest.mark.parametrize(
    ("may_sleep", "has_several_cores", "log"),
    [(False, True, ["yielded"]), (True, False, ["yielded"]), (True, True, [])],
)
def test_without_a_round_the_core_is_yielded(may_sleep, has_several_cores, log):
    """Or the thread sleeps, if the urgent one may have been woken on another core."""
    bench = Bench(has_several_cores=has_several_cores)
    bench.urgent.begin_round()
    bench.urgent.end_round()
    bench.urgent.give_way(may_sleep=may_sleep)
    assert bench.log == log


def test_used_for_a_tenth_of_a_second():
    """After each call."""
    bench = Bench()
    seen = [bench.urgent.is_used]
    bench.urgent.used()
    for _ in range(2):
        bench.clock.advance(0.06)
        seen.append(bench.urgent.is_used)
    assert seen == [False, True, False]


def test_does_not_wait_for_itself(monkeypatch):
    """The thread may do what others do in steps, too."""
    bench = Bench()
    monkeypatch.setattr(bench.urgent, "_wait", lambda _timeout_s: bench.log.append("waited"))
    bench.urgent.begin_round()
    bench.urgent.give_way(may_sleep=True)
    assert not bench.log
