"""How late refusals are that a caller causes itself."""

import math
import threading

import pytest

from inferd.call_context import CallContext
from inferd.rpc.refusals import Refusals
from tests.unit.rpc.fakes import FakeLoop


class Bench:
    """Refusals on a loop whose timers the test runs; ``late`` has the delay of each that was answered, in ms."""

    def __init__(self):
        self.loop = FakeLoop()
        self.refusals = Refusals(self.loop)
        self.late = []
        self.gathered = []

    def refuse(self, principal="a", *, deadline=math.inf, held_bytes=0):
        context, since = CallContext(), self.loop.now()
        context.principal = principal

        def answer():
            self.late.append(round((self.loop.now() - since) * 1000, 3))
            self.gathered.append(self.loop.may_gather)

        self.refusals.end(context, deadline, held_bytes, answer)


@pytest.fixture
def bench():
    """Nothing refused so far."""
    return Bench()


def test_answers_a_lone_refusal_at_once(bench):
    """A caller with a mistake in its request waits for nothing."""
    for _ in range(3):
        bench.refuse()
        bench.loop.clock.advance(0.001)
    assert bench.late == [0.0, 0.0, 0.0]


def test_answers_one_per_millisecond(bench):
    """Of refusals that come together, the n-th is n milliseconds late."""
    for _ in range(5):
        bench.refuse()
    bench.loop.run_timers()
    assert bench.late == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_no_refusal_is_later_than_a_tenth_of_a_second(bench):
    """However many come."""
    for _ in range(250):
        bench.refuse()
    bench.loop.run_timers()
    assert len(bench.late) == 250
    assert max(bench.late) == 100.0


def test_a_flood_does_not_delay_the_refusals_of_others(bench):
    """Each principal has its own pace, callers without one share theirs."""
    for _ in range(50):
        bench.refuse("flood")
    bench.late.clear()
    bench.refuse("other")
    bench.refuse(None)
    assert bench.late == [0.0, 0.0]


def test_answers_before_the_deadline(bench):
    """So that the caller learns the reason."""
    for _ in range(50):
        bench.refuse()
    bench.loop.timers.clear()
    bench.late.clear()
    bench.refuse(deadline=bench.loop.now() + 0.01)
    bench.loop.run_timers()
    assert bench.late == [5.0]


def test_few_refusals_wait(bench):
    """The others are answered at once: calls that wait count among the open ones."""
    for _ in range(400):
        bench.refuse()
    assert len(bench.loop.timers) == 256
    assert len(bench.late) == 400 - 256


def test_large_messages_do_not_wait(bench):
    """Their memory is given back."""
    bench.refuse()
    bench.refuse(held_bytes=100_000)
    assert bench.late == [0.0, 0.0]


def test_forgets_principals(bench):
    """Callers that make up principals take no memory."""
    for number in range(5000):
        bench.refuse(str(number))
    assert len(bench.refusals._due_at) <= 1024


def test_gathers_no_rounds(bench):
    """Paced refusals are too few for that."""
    bench.refuse()
    bench.refuse()
    bench.loop.run_timers()
    assert bench.gathered == [False, False]
    assert bench.loop.may_gather


def test_other_threads_refuse_on_the_poll_thread(bench):
    """They may: messages are decoded by several threads."""
    thread = threading.Thread(target=bench.refuse)
    thread.start()
    thread.join()
    assert bench.late == []
    bench.loop.run_soon()
    assert bench.late == [0.0]
