"""The loop of the poll thread, on a queue and clocks that go when told to."""

import gc
import logging
import queue
import threading
import weakref
from collections import deque
from functools import partial

import pytest

from inferd.rpc.poll_loop import PollLoop
from tests.patience import PATIENCE_S
from tests.unit.rpc.fakes import EPOCH_AHEAD_S, FakeEvent, LoopBench


@pytest.fixture
def bench():
    return LoopBench()


def test_tags_are_called_with_their_event(bench):
    """Every event runs its tag."""
    seen = []
    event = FakeEvent(seen.append)
    bench.queue.events.append(event)
    bench.loop.step()
    assert seen == [event]


@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(1), KeyboardInterrupt()])
def test_nothing_raised_leaves_the_loop(bench, caplog, error):
    """Rule 9: no exception may leave the loop, be it a tag's or a timer's; it is logged."""

    def fail(*_):
        raise error

    bench.queue.events.append(FakeEvent(fail))
    bench.loop.call_soon(fail)
    with caplog.at_level(logging.ERROR, logger="inferd.rpc"):
        bench.loop.step()
    assert [record.getMessage() for record in caplog.records] == ["a callback on the poll thread failed"] * 2


def test_events_are_dropped_before_the_loop_sleeps(bench):
    """Rule 9: an event holds its call, which must not live on while the loop sleeps."""
    bench.loop.wake_by(bench.core_call)
    bench.loop.call_at(1001.0, bench.note("timer"))
    poll, references, alive = bench.queue.poll, [], []

    def watch(deadline):
        if deadline != 0.0:
            gc.collect()
            alive.append([reference() is not None for reference in references])
        return poll(deadline)

    for _ in range(2):
        event = FakeEvent(lambda _event: None)
        references.append(weakref.ref(event))
        bench.queue.events.append(event)
    del event
    bench.queue.poll = watch
    bench.loop.step()
    bench.loop.step()
    assert alive == [[True, True], [False, False]]


def test_timers_run_in_order_when_due_and_not_before(bench):
    """Rule 10: timers are poll deadlines."""
    bench.loop.wake_by(bench.core_call)
    bench.loop.call_at(1002.0, bench.note("second"))
    bench.loop.call_at(1001.0, bench.note("first"))
    bench.loop.call_at(1002.0, bench.note("third"))
    bench.loop.step()
    assert (bench.log, bench.clock.now) == (["first"], 1001.0)
    bench.loop.step()
    assert (bench.log, bench.clock.now) == (["first", "second", "third"], 1002.0)


def test_poll_deadlines_are_in_epoch_seconds(bench):
    """Rule 8: the core waits by the wall clock."""
    bench.loop.wake_by(bench.core_call)
    bench.loop.call_at(1007.5, bench.note("timer"))
    bench.loop.step()
    assert bench.queue.deadlines == [1007.5 + EPOCH_AHEAD_S]


def test_an_idle_loop_sleeps_without_end(bench):
    """With something to wake it and nothing to wait for, it polls without a deadline."""
    bench.loop.wake_by(bench.core_call)
    bench.queue.events.append(FakeEvent())
    bench.loop.step()
    assert bench.queue.deadlines == [None]


def test_a_loop_that_nothing_can_wake_looks_up_often(bench):
    """Before the first call there is nothing to carry a wake-up, so the sleep is short."""
    bench.loop.step()
    bench.loop.step()
    assert bench.queue.deadlines[1] - bench.queue.deadlines[0] == EPOCH_AHEAD_S + 1000.05
    bench.loop.call_soon(bench.note("soon"))
    bench.loop.step()
    assert bench.log == ["soon"]


def test_another_thread_wakes_the_loop_with_an_empty_batch(bench):
    """Rule 10: an empty batch on a call is the wake-up, and only for a timer that is earlier than those known."""
    bench.loop.wake_by(bench.core_call)
    bench.loop.call_at(1005.0, bench.note("later"))
    assert [batch.kinds for batch in bench.core_call.started] == [[]]
    bench.loop.call_at(1006.0, bench.note("last"))
    assert len(bench.core_call.started) == 1
    bench.loop.call_at(1001.0, bench.note("sooner"))
    assert len(bench.core_call.started) == 2


def test_the_poll_thread_does_not_wake_itself(bench):
    """A callback that sets a timer costs no event."""
    bench.loop.wake_by(bench.core_call)

    def in_loop(_event):
        bench.loop.call_at(1001.0, bench.note("timer"))
        bench.loop.run_until(lambda: bool(bench.log))

    bench.queue.events.append(FakeEvent(in_loop))
    bench.loop.run()
    assert (bench.log, bench.core_call.started) == (["timer"], [])


def test_call_after_queued_goes_behind_ready_events(bench):
    """It is carried by an event, so that what was ready before comes first."""
    bench.loop.wake_by(bench.core_call)
    bench.queue.events.append(FakeEvent(bench.note("ready")))
    bench.loop.call_after_queued(bench.note("after"))
    (carrier,) = bench.core_call.started
    bench.queue.events.append(FakeEvent(carrier.tag))
    bench.loop.step()
    assert bench.log == ["ready", "after"]


def test_call_after_queued_works_with_nothing_to_carry_it(bench):
    """Without a call, or when the core refuses, it is called soon."""
    bench.loop.call_after_queued(bench.note("no call"))
    bench.loop.step()
    bench.loop.wake_by(bench.core_call)
    bench.core_call.refuse = 1
    bench.loop.call_after_queued(bench.note("refused"))
    bench.queue.events.append(FakeEvent())
    bench.loop.step()
    assert bench.log == ["no call", "refused"]


def test_the_loop_ends_only_when_its_own_events_are_back(bench):
    """Rule 13: a wake-up that is still to arrive is pending on the queue."""
    bench.loop.wake_by(bench.core_call)
    bench.loop.run_until(lambda: True)
    bench.loop.call_at(1001.0, bench.note("timer"))
    (carrier,) = bench.core_call.started

    def arrive(event):
        bench.log.append("wake-up")
        carrier.tag(event)

    bench.queue.events.append(FakeEvent(arrive))
    bench.loop.run()
    assert bench.log == ["wake-up"]


def test_nothing_is_started_once_the_loop_has_ended(bench):
    """Rule 13: a batch on a queue that was shut down aborts the process, so a late timer must not start one."""
    bench.loop.wake_by(bench.core_call)
    bench.loop.run_until(lambda: True)
    bench.loop.run()
    bench.loop.call_soon(bench.note("late"))
    bench.loop.call_after_queued(bench.note("late"))
    assert (bench.core_call.started, bench.log) == ([], [])


def test_knows_its_own_thread(bench):
    """`in_poll_thread` is true inside the loop only."""
    inside = []

    def look(_event):
        inside.append(bench.loop.in_poll_thread)
        bench.loop.run_until(lambda: True)

    bench.queue.events.append(FakeEvent(look))
    thread = threading.Thread(target=bench.loop.run)
    thread.start()
    thread.join()
    assert (inside, bench.loop.in_poll_thread) == ([True], False)


def test_what_fails_when_idle_does_not_leave_the_loop(bench, caplog):
    """Rule 9, as for tags and timers."""
    bench.loop.call_when_idle(lambda: 1 / 0)
    bench.loop.call_when_idle(bench.note("idle"))
    with caplog.at_level(logging.ERROR, logger="inferd.rpc"):
        bench.loop.step()
    assert bench.log == ["idle"]
    assert [record.getMessage() for record in caplog.records] == ["a callback on the poll thread failed"]


def during_poll(bench, act):
    """Have ``act`` called while the loop waits for an event, as another thread would."""
    poll = bench.queue.poll

    def watch(deadline):
        bench.queue.poll = poll
        act()
        return poll(deadline)

    bench.queue.poll = watch


def test_call_soon_from_another_thread_wakes_a_loop_that_sleeps(bench):
    """An empty batch on a call is the wake-up, and what was asked for comes with it."""
    bench.loop.wake_by(bench.core_call)

    def act():
        bench.loop.call_soon(bench.note("soon"))
        (carrier,) = bench.core_call.started
        assert carrier.kinds == []
        bench.queue.events.append(FakeEvent(carrier.tag))

    during_poll(bench, act)
    bench.loop.step()
    assert (bench.log, bench.queue.deadlines[0]) == (["soon"], None)


def test_call_soon_costs_no_event_while_the_loop_does_not_sleep(bench):
    """Neither while an event is handled nor while the loop only looks whether one is ready."""
    bench.loop.wake_by(bench.core_call)
    bench.queue.events.append(FakeEvent(lambda _event: bench.loop.call_soon(bench.note("during an event"))))
    bench.loop.step()
    assert bench.log == ["during an event"]

    bench.loop.call_when_idle(bench.note("idle"))
    during_poll(bench, lambda: bench.loop.call_soon(bench.note("during a look")))
    bench.loop.step()
    assert set(bench.queue.deadlines[1:]) == {0.0}
    assert bench.log == ["during an event", "during a look", "idle"]
    assert bench.core_call.started == []


def test_what_was_left_before_the_loop_looks_is_done_without_sleeping(bench):
    """Added between two steps: the loop looks before it sleeps."""
    bench.loop.wake_by(bench.core_call)
    bench.queue.events.append(FakeEvent(bench.note("event")))
    bench.loop.step()
    bench.loop.call_soon(bench.note("soon"))
    bench.loop.step()
    assert (bench.log, bench.queue.deadlines[1]) == (["event", "soon"], 0.0)


def test_what_comes_between_the_look_and_the_sleep_wakes_the_loop(bench):
    """The loop has just seen that there is nothing, and would sleep on what is added now."""

    class Looked(deque):
        """Another thread adds something right behind the first look."""

        looks = 0

        def __len__(self):
            seen = super().__len__()
            self.looks += 1
            if self.looks == 1:
                bench.loop.call_soon(bench.note("soon"))
            return seen

    bench.loop.wake_by(bench.core_call)
    bench.queue.events.append(FakeEvent())
    bench.loop.step()
    bench.loop._soon = Looked()
    bench.queue.events.append(FakeEvent())
    bench.loop.step()
    assert [batch.kinds for batch in bench.core_call.started] == [[]]
    assert bench.log == ["soon"]


def test_what_is_called_soon_comes_before_timers_and_idle_callbacks(bench):
    """Answers that are ready do not wait for anything else."""
    bench.loop.call_at(1000.0, bench.note("timer"))
    bench.loop.call_when_idle(bench.note("idle"))
    bench.loop.call_soon(bench.note("soon"))
    bench.loop.step()
    assert bench.log[0] == "soon"
    assert sorted(bench.log) == ["idle", "soon", "timer"]


def test_what_a_callback_adds_comes_after_the_next_events(bench):
    """However much calls itself again, events get their turn, and the loop does not sleep on what is left."""

    def first():
        bench.note("first")()
        bench.loop.call_soon(bench.note("added by first"))
        bench.queue.events.append(FakeEvent(bench.note("next event")))

    bench.loop.wake_by(bench.core_call)
    bench.loop.call_soon(first)
    bench.loop.call_soon(bench.note("second"))
    wake_ups = len(bench.core_call.started)
    bench.queue.events.append(FakeEvent(bench.note("event")))
    bench.loop.step()
    assert bench.log == ["event", "first", "second"]
    bench.loop.step()
    assert bench.log == ["event", "first", "second", "next event", "added by first"]
    assert set(bench.queue.deadlines) == {0.0}
    assert len(bench.core_call.started) == wake_ups


def test_a_callback_that_fails_leaves_the_others(bench, caplog):
    """Rule 9: they belong to different calls."""
    bench.loop.call_soon(lambda: 1 / 0)
    bench.loop.call_soon(bench.note("other"))
    with caplog.at_level(logging.ERROR, logger="inferd.rpc"):
        bench.loop.step()
    assert bench.log == ["other"]
    assert [record.getMessage() for record in caplog.records] == ["a callback on the poll thread failed"]


class RealQueue:
    """A queue that sleeps until there is an event, and the call that events come from."""

    def __init__(self):
        self._events = queue.SimpleQueue()

    def poll(self, deadline):
        try:
            return self._events.get(block=deadline is None, timeout=PATIENCE_S)
        except queue.Empty:
            assert deadline is not None, "nobody woke the loop"
            return FakeEvent()

    def start_server_batch(self, operations, tag):
        self._events.put(FakeEvent(tag))
        return 0


def test_no_callback_of_any_thread_is_slept_on():
    """Each either finds the loop awake or wakes it, at whatever moment it comes; and those of a thread keep order."""
    events, done = RealQueue(), []
    loop = PollLoop(events)
    loop.wake_by(events)
    loop.run_until(lambda: len(done) == 4 * 500)

    def ask(name):
        # Two in a row, and then nothing until they are done, so that the loop goes to sleep again and again.
        for number in range(0, 500, 2):
            came_back = threading.Event()
            loop.call_soon(partial(done.append, (name, number)))
            loop.call_soon(partial(done.append, (name, number + 1)))
            loop.call_soon(came_back.set)
            came_back.wait(PATIENCE_S)

    threads = [threading.Thread(target=ask, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    loop.run()
    for thread in threads:
        thread.join()
    for name in range(4):
        assert [number for who, number in done if who == name] == list(range(500))


def _looks_that_find_nothing(bench, passed_s):
    """Let a step handle one event after ``passed_s`` of others, and return how often it looked for more in vain."""
    bench.clock.advance(passed_s)
    bench.queue.events.append(FakeEvent(lambda _event: None))
    bench.queue.deadlines.clear()
    bench.loop.step()
    return len(bench.queue.deadlines) - 1


def test_a_busy_loop_lets_the_core_read_from_all_sockets_now_and_then(bench):
    """A look that finds nothing reads from one; those who send without a pause would keep all others out."""
    bench.loop.wake_by(bench.core_call)
    looks = [_looks_that_find_nothing(bench, 0.0003) for _ in range(40)]
    assert set(looks) == {1, 16}
    assert looks.count(16) == pytest.approx(40 * 0.0003 / 0.002, abs=2)


def test_a_loop_that_waits_need_not_look_again(bench):
    """While it waits, the core reads from all of them."""
    bench.loop.wake_by(bench.core_call)
    _looks_that_find_nothing(bench, 0.0)
    poll = bench.queue.poll

    def waiting(deadline):
        if deadline != 0.0:
            bench.clock.advance(0.01)
        return poll(deadline)

    bench.queue.poll = waiting
    assert [_looks_that_find_nothing(bench, 0.0) for _ in range(5)][1:] == [1] * 4
