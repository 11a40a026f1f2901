"""Turns of the poll thread and the http thread, with a fake clock."""

import pytest

from inferd.interpreter_lock import UrgentThread
from inferd.rpc.turns import Turns
from tests.unit.rpc.fakes import FakeClock, FakeUrgentThread


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


@pytest.mark.parametrize("is_flooded", [True, False])
def test_http_thread_waits_for_a_round_only_if_it_is_flooded(is_flooded):
    """A few calls over HTTP beside a flood over gRPC are not to wait."""
    log = []
    poll_thread = FakeUrgentThread(log)
    turns = Turns(poll_thread, let_run=lambda: log.append("turn"))
    turns.let_rpc(is_flooded=is_flooded)
    assert log == ["gave way"] if is_flooded else ["turn"]
