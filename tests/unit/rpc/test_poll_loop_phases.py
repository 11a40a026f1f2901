"""The phases of a round: events, callbacks, deferred batches, idle callbacks."""

import logging
from itertools import pairwise

import pytest

from tests.unit.rpc.fakes import FakeEvent, LoopBench


@pytest.fixture
def bench():
    return LoopBench()


class FakeStarter:
    """A call that records the batches it starts."""

    def __init__(self, log):
        self._log = log

    @property
    def core_call(self):
        return self

    def start_server_batch(self, batch, tag):
        self._log.append(f"start {batch}")
        tag(None)
        return 0


def test_starts_batches_after_all_ready_events(bench):
    """First the events in order, then `call_soon`, then the deferred batches."""
    starter = FakeStarter(bench.log)

    def handle(number):
        def tag(_event):
            bench.log.append(f"event {number}")
            bench.loop.defer_batch((starter, number, lambda _: None))
            bench.loop.call_soon(bench.note(f"soon {number}"))

        return FakeEvent(tag)

    bench.queue.events.extend(handle(number) for number in range(3))
    bench.loop.step()
    expected = [f"{what} {number}" for what in ("event", "soon", "start") for number in range(3)]
    assert bench.log == expected
    assert bench.queue.deadlines[1:] == [0.0] * 3, "once something is there, the loop only looks for more"


def test_takes_a_bounded_number_of_events_in_a_round(bench):
    """In a flood, the first calls are answered before the next are taken."""
    count = 1000
    starter = FakeStarter(bench.log)
    bench.queue.events.extend(
        FakeEvent(lambda _event: bench.loop.defer_batch((starter, 0, lambda _: None))) for _ in range(count)
    )
    bench.loop.step()
    assert 1 < len(bench.log) < count / 10
    assert len(bench.log) + len(bench.queue.events) == count


def rounds(bench, count, *, more=lambda: None):
    """Run ``count`` rounds, each with an event, and return when each began."""
    began = []
    for _ in range(count):
        began.append(bench.clock())
        bench.queue.events.append(FakeEvent(lambda _event: more()))
        bench.loop.step()
    return began


def test_gathers_events_after_a_rejection(bench):
    """Rounds begin 3 ms apart, take all events that are there, and read all sockets, until no call was rejected."""
    bench.loop.call_rejected(bench.clock())
    rounds(bench, 1)
    bench.queue.events.extend(FakeEvent(bench.note("event")) for _ in range(400))
    polls = len(bench.queue.deadlines)
    bench.loop.step()
    assert len(bench.log) == 400, "at once"
    assert len(bench.queue.deadlines) - polls == 400 + 16, "polls without an event read a socket each"
    began = rounds(bench, 5)
    distances = [later - earlier for earlier, later in pairwise(began)]
    assert distances == pytest.approx([0.003] * 4)
    bench.clock.advance(0.1)
    bench.sleeps.clear()
    rounds(bench, 5)
    assert bench.sleeps == []


def test_reads_all_sockets_now_and_then_while_rounds_are_full(bench):
    """Full rounds need no gathering, and are cheaper if they are small; but no socket is read while events are left."""

    def again(_event):
        # As the core does when calls wait in it: handled ones are replaced.
        bench.queue.events.append(FakeEvent(again))

    bench.loop.call_rejected(bench.clock())
    bench.queue.events.extend(FakeEvent(again) for _ in range(200))
    taken = []
    for _ in range(20):
        before = len(bench.queue.deadlines)
        bench.loop.step()
        taken.append(len(bench.queue.deadlines) - before)
    assert taken == [64] * 8 + [200 + 16] + [64] * 7 + [200 + 16] + [64] * 3
    assert bench.sleeps == []


@pytest.mark.parametrize("ask", ["call_when_idle", "call_soon"])
def test_gathers_nothing_while_callbacks_wait(bench, ask):
    """They may be answers, or the run of a model."""
    bench.loop.call_rejected(bench.clock())
    rounds(bench, 1)
    # Twice, because callbacks of this round run in this round.
    again = getattr(bench.loop, ask)
    rounds(bench, 3, more=lambda: again(lambda: again(bench.note("called"))))
    assert bench.sleeps == []


@pytest.mark.parametrize("ask", ["call_when_idle", "call_soon", "call_at"])
def test_starts_batches_of_callbacks_before_sleeping(bench, ask):
    """A batch left for the next round would wait for an event that may never come."""

    def start():
        bench.loop.defer_batch((FakeStarter(bench.log), 1, lambda _: None))

    bench.loop.wake_by(bench.core_call)
    arguments = (1000.0, start) if ask == "call_at" else (start,)
    getattr(bench.loop, ask)(*arguments)
    bench.loop.step()
    assert bench.log == ["start 1"]


def test_does_not_sleep_on_the_result_of_a_start(bench):
    """A refused batch is handled by a callback, whose batches are started too."""
    starter = FakeStarter(bench.log)

    def refused(_event):
        bench.loop.call_soon(lambda: bench.loop.defer_batch((starter, 2, lambda _: None)))

    bench.loop.wake_by(bench.core_call)
    bench.queue.events.append(FakeEvent(lambda _event: bench.loop.defer_batch((starter, 1, refused))))
    bench.loop.step()
    bench.loop.step()
    assert bench.log == ["start 1", "start 2"]
    assert bench.queue.deadlines[-1] == 0.0


def test_failed_start_does_not_stop_the_others(bench, caplog):
    """They belong to different calls."""

    class Broken:
        @property
        def core_call(self):
            raise MemoryError

    def tag(_event):
        bench.loop.defer_batch((Broken(), 1, lambda _: None))
        bench.loop.defer_batch((FakeStarter(bench.log), 2, lambda _: None))

    bench.queue.events.append(FakeEvent(tag))
    with caplog.at_level(logging.ERROR, logger="inferd.rpc"):
        bench.loop.step()
    assert bench.log == ["start 2"]
    assert [record.getMessage() for record in caplog.records] == ["a callback on the poll thread failed"]


def test_idle_callbacks_run_after_ready_events(bench):
    """And then without any delay."""

    def first(_event):
        bench.note("first")()
        bench.loop.call_when_idle(bench.note("idle"))

    bench.queue.events.extend([FakeEvent(first), FakeEvent(bench.note("second"))])
    before = bench.clock()
    bench.loop.step()
    assert bench.log == ["first", "second", "idle"]
    assert bench.clock() == before


def test_idle_callbacks_wait_for_the_next_round_of_events(bench):
    """More events are ready than one round takes."""
    bench.loop.call_when_idle(bench.note("idle"))
    bench.queue.events.extend(FakeEvent(bench.note("event")) for _ in range(100))
    bench.loop.step()
    assert "idle" not in bench.log
    bench.loop.step()
    assert bench.log == ["event"] * 100 + ["idle"]


def test_idle_callbacks_run_under_constant_load(bench):
    """A loop that is never idle must not delay them without end."""

    def slow(_event):
        bench.note("event")()
        bench.clock.advance(0.0006)

    bench.loop.call_when_idle(bench.note("idle"))
    bench.queue.events.extend(FakeEvent(slow) for _ in range(1000))
    bench.loop.step()
    assert bench.log[-1] == "idle"
    assert bench.queue.events


def test_idle_callbacks_wait_for_batches_just_started(bench):
    """The next message of a stream may be there already, but shows only after it is requested."""

    def asks_for_the_next(_event):
        bench.log.append("message 1")
        bench.loop.call_when_idle(bench.note("idle"))
        next_message = FakeEvent(bench.note("message 2"))
        bench.loop.defer_batch((Arrives(bench.queue, next_message), "receive", lambda _: None))

    bench.queue.events.append(FakeEvent(asks_for_the_next))
    for _ in range(3):
        bench.loop.step()
    assert bench.log == ["message 1", "message 2", "idle"]


class Arrives:
    """A call whose event is ready as soon as its batch starts."""

    def __init__(self, queue, event):
        self._queue, self._event = queue, event

    @property
    def core_call(self):
        return self

    def start_server_batch(self, _batch, _tag):
        self._queue.events.append(self._event)
        return 0


class FakeCorks:
    """Records which answers are to leave together."""

    def __init__(self, log):
        self._log = log

    def put(self, peers):
        self._log.append(f"cork {peers}")
        return [7] if peers else []

    def remove(self, corked):
        self._log.append(f"uncork {corked}")


def test_batches_start_without_corks(caplog):
    """Whatever is wrong with them."""
    bench = LoopBench(FakeCorks)
    starter = FakeStarter(bench.log)  # has no peer
    for _ in range(2):
        bench.loop.defer_batch((starter, ("headers", "status"), lambda _: None))
    bench.queue.events.append(FakeEvent(lambda _: None))
    with caplog.at_level(logging.ERROR, logger="inferd.rpc"):
        bench.loop.step()
    assert bench.log == ["start ('headers', 'status')"] * 2
    assert "raw_peer" in caplog.text


def test_answers_of_a_round_leave_together():
    """Receives do not count; and a batch that fails does not leave a connection corked."""
    bench = LoopBench(FakeCorks)
    starter = FakeStarter(bench.log)
    starter.raw_peer = b"a"

    def fail(_):
        raise ValueError

    for batch, tag in ((("receive",), fail), (("headers", "status"), fail), (("headers", "answer", "status"), fail)):
        bench.loop.defer_batch((starter, batch, tag))
    bench.queue.events.append(FakeEvent(lambda _: None))
    bench.loop.step()
    assert bench.log[0] == "cork [b'a', b'a']"
    assert bench.log[-1] == "uncork [7]"
    assert len(bench.log) == 5


def share(bench, *, has_work=True):
    """Have calls of both protocols come; the http thread may have work."""
    bench.turns.poll_thread.used()
    bench.turns.http_used()
    bench.turns.http_waits = lambda: has_work


@pytest.mark.parametrize("has_work", [True, False])
def test_gives_way_to_http_between_events_and_batches(bench, has_work):
    """After every four, if the http thread has work; a round has up to 16 events then."""
    share(bench, has_work=has_work)
    starter = FakeStarter(bench.log)

    def tag(_event):
        bench.log.append("event")
        bench.loop.defer_batch((starter, 0, lambda _: None))

    bench.queue.events.extend(FakeEvent(tag) for _ in range(100))
    bench.loop.step()
    bench.log.clear()
    bench.loop.step()
    turn = ["turn"] if has_work else []
    assert bench.log == [*["event"] * 4, *turn] * 4 + [*["start 0"] * 4, *turn] * 4


def test_ends_round_early_for_http(bench):
    """After four events; it comes next, and the others of the round follow in their order."""
    share(bench)

    def arrive(_event):
        bench.turns.http_arrived = True
        bench.loop.call_soon(lambda: (bench.log.append("http"), setattr(bench.turns, "http_arrived", False)))

    bench.queue.events.extend(FakeEvent(lambda _, number=number: bench.log.append(number)) for number in range(3))
    bench.queue.events.append(FakeEvent(arrive))
    bench.queue.events.extend(FakeEvent(lambda _, number=number: bench.log.append(number)) for number in range(3, 6))
    bench.loop.step()
    bench.loop.step()
    assert [entry for entry in bench.log if entry != "turn"] == [0, 1, 2, "http", 3, 4, 5]


def test_batches_alone_count_as_calls_over_grpc(bench):
    """Callbacks of another protocol come as events, too."""
    bench.turns.http_used()
    bench.loop.call_when_idle(bench.note("idle"))
    bench.queue.events.append(FakeEvent(bench.note("event")))
    bench.loop.step()
    assert not bench.turns.are_shared
    bench.loop.defer_batch((FakeStarter(bench.log), 0, lambda _: None))
    bench.loop.step()
    assert bench.turns.are_shared


@pytest.mark.parametrize("is_shared", [True, False])
def test_idle_callbacks_wait_for_a_millisecond_at_most(bench, is_shared):
    """Events go on; while calls of both protocols come, the callbacks do not wait for longer than a round."""
    if is_shared:
        share(bench)

    def again(_event):
        bench.clock.advance(0.00001)
        bench.queue.events.append(FakeEvent(again))

    bench.queue.events.extend(FakeEvent(again) for _ in range(200))
    bench.loop.call_when_idle(bench.note("idle"))
    begun_at = bench.clock()
    while "idle" not in bench.log:
        bench.loop.step()
        if is_shared:
            share(bench)
    waited_s = bench.clock() - begun_at
    assert waited_s < 0.0009 if is_shared else 0.001 <= waited_s < 0.002


def test_callbacks_at_the_end_follow_all_others_of_the_round(bench):
    """Even those that an idle callback or a timer asks for."""
    bench.loop.call_soon(lambda: bench.loop.call_at_end(bench.note("end 1")))
    bench.loop.call_when_idle(lambda: bench.loop.call_at_end(bench.note("end 2")))
    bench.loop.call_at(1000.0, lambda: (bench.loop.call_at_end(bench.note("end 3")), bench.log.append("timer")))
    bench.loop.step()
    assert bench.log == ["timer", "end 1", "end 2", "end 3"]
