"""Turns of the poll thread and the http thread, with a fake clock."""

import threading

from inferd.interpreter_lock import UrgentThread
from inferd.rpc.turns import Turns
from tests.unit.rpc.fakes import FakeClock


def test_shared_while_calls_of_both_protocols_come():
    """For a tenth of a second after the last call of each."""
    clock = FakeClock()
    turns = Turns(UrgentThread(clock=clock), clock=clock)
    seen = [turns.are_shared]
    turns.poll_thread.used()
    seen.append(turns.are_shared)
    clock.advance(0.06)
    turns.http_used()
    seen.append(turns.are_shared)
    clock.advance(0.06)
    seen.append(turns.are_shared)
    turns.poll_thread.used()
    seen.append(turns.are_shared)
    clock.advance(0.06)
    seen.append(turns.are_shared)
    assert seen == [False, False, True, False, True, False]


def test_poll_thread_gives_way_only_if_the_other_has_work():
    """Otherwise the core would go to a thread that runs a model."""
    log = []
    turns = Turns(UrgentThread(), let_run=lambda: log.append("turn"))
    turns.let_http()
    assert log == [], "without a thread for HTTP"
    turns.http_waits = lambda: False
    turns.let_http()
    assert log == []
    turns.http_waits = lambda: True
    turns.let_http()
    assert log == ["turn"]


def test_poll_thread_releases_those_who_wait_for_it():
    """Even without a thread for HTTP: that for large messages may wait."""
    urgent = UrgentThread()
    lock = threading.Lock()
    lock.acquire()
    urgent._waiting.append(lock)
    Turns(urgent).let_http()
    assert not lock.locked()
