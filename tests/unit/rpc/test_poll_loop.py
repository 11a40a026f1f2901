"""The poll loop on a fake queue and fake clocks."""

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


def test_calls_tags_with_their_event(bench):
    """Each event runs its tag."""
    seen = []
    event = FakeEvent(seen.append)
    bench.queue.events.append(event)
    bench.loop.step()
    assert seen == [event]


@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(1), KeyboardInterrupt()])
def test_survives_exceptions(bench, caplog, error):
    """An exception of a tag or a timer is logged and does not leave the loop."""

    def fail(*_):
        raise error

    bench.queue.events.append(FakeEvent(fail))
    bench.loop.call_soon(fail)
    with caplog.at_level(logging.ERROR, logger="inferd.rpc"):
        bench.loop.step()
    assert [record.getMessage() for record in caplog.records] == ["a callback on the poll thread failed"] * 2


def test_releases_events_before_sleeping(bench):
    """An event refers to its call, which must not stay alive while the loop sleeps."""
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


def test_runs_timers_in_order_when_due(bench):
    """Timers set the deadline of the poll."""
    bench.loop.wake_by(bench.core_call)
    bench.loop.call_at(1002.0, bench.note("second"))
    bench.loop.call_at(1001.0, bench.note("first"))
    bench.loop.call_at(1002.0, bench.note("third"))
    bench.loop.step()
    assert (bench.log, bench.clock.now) == (["first"], 1001.0)
    bench.loop.step()
    assert (bench.log, bench.clock.now) == (["first", "second", "third"], 1002.0)


def test_poll_deadlines_are_in_epoch_seconds(bench):
    """The core waits by the wall clock."""
    bench.loop.wake_by(bench.core_call)
    bench.loop.call_at(1007.5, bench.note("timer"))
    bench.loop.step()
    assert bench.queue.deadlines == [1007.5 + EPOCH_AHEAD_S]


def test_idle_loop_sleeps_without_deadline(bench):
    """With a waker and no timer, it polls without a deadline."""
    bench.loop.wake_by(bench.core_call)
    bench.queue.events.append(FakeEvent())
    bench.loop.step()
    assert bench.queue.deadlines == [None]


def test_sleeps_briefly_without_a_waker(bench):
    """Before the first call no event can carry a wake-up."""
    bench.loop.step()
    bench.loop.step()
    assert bench.queue.deadlines[1] - bench.queue.deadlines[0] == EPOCH_AHEAD_S + 1000.05
    bench.loop.call_soon(bench.note("soon"))
    bench.loop.step()
    assert bench.log == ["soon"]


def test_earlier_timer_of_another_thread_wakes_the_loop(bench):
    """An empty batch on a call is the wake-up; a later timer posts none."""
    bench.loop.wake_by(bench.core_call)
    bench.loop.call_at(1005.0, bench.note("later"))
    assert [batch.kinds for batch in bench.core_call.started] == [[]]
    bench.loop.call_at(1006.0, bench.note("last"))
    assert len(bench.core_call.started) == 1
    bench.loop.call_at(1001.0, bench.note("sooner"))
    assert len(bench.core_call.started) == 2


def test_poll_thread_posts_no_wake_up(bench):
    """A callback that sets a timer costs no event."""
    bench.loop.wake_by(bench.core_call)

    def in_loop(_event):
        bench.loop.call_at(1001.0, bench.note("timer"))
        bench.loop.run_until(lambda: bool(bench.log))

    bench.queue.events.append(FakeEvent(in_loop))
    bench.loop.run()
    assert (bench.log, bench.core_call.started) == (["timer"], [])


def test_call_after_queued_runs_after_ready_events(bench):
    """An event carries it, behind those that were ready before."""
    bench.loop.wake_by(bench.core_call)
    bench.queue.events.append(FakeEvent(bench.note("ready")))
    bench.loop.call_after_queued(bench.note("after"))
    (carrier,) = bench.core_call.started
    bench.queue.events.append(FakeEvent(carrier.tag))
    bench.loop.step()
    assert bench.log == ["ready", "after"]


def test_call_after_queued_runs_soon_without_a_waker(bench):
    """Without a call, or if the core refuses the batch."""
    bench.loop.call_after_queued(bench.note("no call"))
    bench.loop.step()
    bench.loop.wake_by(bench.core_call)
    bench.core_call.refuse = 1
    bench.loop.call_after_queued(bench.note("refused"))
    bench.queue.events.append(FakeEvent())
    bench.loop.step()
    assert bench.log == ["no call", "refused"]


def test_ends_only_when_no_wake_up_is_pending(bench):
    """A wake-up that has not arrived is pending on the queue."""
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


def test_starts_no_batch_after_the_end(bench):
    """A batch on a queue that was shut down aborts the process, so a late timer must not start one."""
    bench.loop.wake_by(bench.core_call)
    bench.loop.run_until(lambda: True)
    bench.loop.run()
    bench.loop.call_soon(bench.note("late"))
    bench.loop.call_after_queued(bench.note("late"))
    assert (bench.core_call.started, bench.log) == ([], [])


def test_in_poll_thread_is_true_inside_the_loop_only(bench):
    """`in_poll_thread` compares the thread."""
    inside = []

    def look(_event):
        inside.append(bench.loop.in_poll_thread)
        bench.loop.run_until(lambda: True)

    bench.queue.events.append(FakeEvent(look))
    thread = threading.Thread(target=bench.loop.run)
    thread.start()
    thread.join()
    assert (inside, bench.loop.in_poll_thread) == ([True], False)


def test_survives_exceptions_of_idle_callbacks(bench, caplog):
    """As for tags and timers."""
    bench.loop.call_when_idle(lambda: 1 / 0)
    bench.loop.call_when_idle(bench.note("idle"))
    with caplog.at_level(logging.ERROR, logger="inferd.rpc"):
        bench.loop.step()
    assert bench.log == ["idle"]
    assert [record.getMessage() for record in caplog.records] == ["a callback on the poll thread failed"]


def during_poll(bench, act):
    """Call ``act`` while the loop waits for an event, as another thread would."""
    poll = bench.queue.poll

    def watch(deadline):
        bench.queue.poll = poll
        act()
        return poll(deadline)

    bench.queue.poll = watch


def test_call_soon_of_another_thread_wakes_a_sleeping_loop(bench):
    """An empty batch is the wake-up, and the callback runs in that round."""
    bench.loop.wake_by(bench.core_call)

    def act():
        bench.loop.call_soon(bench.note("soon"))
        (carrier,) = bench.core_call.started
        assert carrier.kinds == []
        bench.queue.events.append(FakeEvent(carrier.tag))

    during_poll(bench, act)
    bench.loop.step()
    assert (bench.log, bench.queue.deadlines[0]) == (["soon"], None)


def test_call_soon_posts_no_wake_up_while_the_loop_is_awake(bench):
    """Neither while an event is handled nor while the loop polls without waiting."""
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


def test_runs_callback_added_between_rounds_without_sleeping(bench):
    """The loop checks for callbacks before it sleeps."""
    bench.loop.wake_by(bench.core_call)
    bench.queue.events.append(FakeEvent(bench.note("event")))
    bench.loop.step()
    bench.loop.call_soon(bench.note("soon"))
    bench.loop.step()
    assert (bench.log, bench.queue.deadlines[1]) == (["event", "soon"], 0.0)


def test_callback_added_after_the_check_wakes_the_loop(bench):
    """The loop has just found no callback, and would sleep on the one added now."""

    class Looked(deque):
        """Another thread adds a callback right after the check."""

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


def test_call_soon_precedes_timers_and_idle_callbacks(bench):
    """Answers that are ready wait for nothing else."""
    bench.loop.call_at(1000.0, bench.note("timer"))
    bench.loop.call_when_idle(bench.note("idle"))
    bench.loop.call_soon(bench.note("soon"))
    bench.loop.step()
    assert bench.log[0] == "soon"
    assert sorted(bench.log) == ["idle", "soon", "timer"]


def test_callbacks_added_by_callbacks_run_in_the_next_round(bench):
    """Events get their turn, and the loop does not sleep on the rest."""

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


def test_failed_callback_does_not_stop_the_others(bench, caplog):
    """They belong to different calls."""
    bench.loop.call_soon(lambda: 1 / 0)
    bench.loop.call_soon(bench.note("other"))
    with caplog.at_level(logging.ERROR, logger="inferd.rpc"):
        bench.loop.step()
    assert bench.log == ["other"]
    assert [record.getMessage() for record in caplog.records] == ["a callback on the poll thread failed"]


class RealQueue:
    """A queue that sleeps until an event comes, and the call that posts events."""

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


def test_no_wake_up_is_lost_with_many_threads():
    """Each callback finds the loop awake or wakes it; those of one thread keep their order."""
    events, done = RealQueue(), []
    loop = PollLoop(events)
    loop.wake_by(events)
    loop.run_until(lambda: len(done) == 4 * 500)

    def ask(name):
        # Two in a row, then wait for both, so that the loop sleeps often.
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
    """Run a round with one event after ``passed_s`` of others; return its number of empty polls."""
    bench.clock.advance(passed_s)
    bench.queue.events.append(FakeEvent(lambda _event: None))
    bench.queue.deadlines.clear()
    bench.loop.step()
    return len(bench.queue.deadlines) - 1


def test_busy_loop_reads_all_sockets_periodically(bench):
    """A poll without an event reads one socket; callers that send without a pause would starve the others."""
    bench.loop.wake_by(bench.core_call)
    looks = [_looks_that_find_nothing(bench, 0.0003) for _ in range(40)]
    assert set(looks) == {1, 16}
    assert looks.count(16) == pytest.approx(40 * 0.0003 / 0.002, abs=2)


def test_sleeping_loop_needs_no_extra_polls(bench):
    """While it waits, the core reads all sockets."""
    bench.loop.wake_by(bench.core_call)
    _looks_that_find_nothing(bench, 0.0)
    poll = bench.queue.poll

    def waiting(deadline):
        if deadline != 0.0:
            bench.clock.advance(0.01)
        return poll(deadline)

    bench.queue.poll = waiting
    assert [_looks_that_find_nothing(bench, 0.0) for _ in range(5)][1:] == [1] * 4
