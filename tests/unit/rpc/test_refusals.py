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
        self.refusals = Refusals(self.loop, random=lambda: 0.5)
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


def test_large_messages_take_longer(bench):
    """Reading 1 MB in vain costs as much as 50 small messages."""
    for _ in range(3):
        bench.refuse(held_bytes=1_000_000)
    bench.loop.run_timers()
    assert bench.late == [0.0, 51.0, 102.0]


def test_no_refusal_is_later_than_a_second(bench):
    """Those that would be are spread over the second half."""
    for _ in range(30):
        bench.refuse(held_bytes=1_000_000)
    due = [round((when - bench.loop.now()) * 1000, 3) for when, _ in bench.loop.timers]
    assert due == [51.0 * number for number in range(1, 20)] + [750.0] * 10


def test_flood_delays_no_other_principal(bench):
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
    assert bench.late == [3.75]


def test_few_refusals_wait(bench):
    """The others are answered at once: calls that wait count among the open ones."""
    for _ in range(400):
        bench.refuse()
    assert len(bench.loop.timers) == 256
    assert len(bench.late) == 400 - 256


def test_few_bytes_wait(bench):
    """Refusals of larger messages are answered at once, as the memory is needed."""
    bench.refuse()
    for _ in range(10):
        bench.refuse(held_bytes=10 * 2**20)
    assert len(bench.loop.timers) == 6
    assert bench.late == [0.0] * 5


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
