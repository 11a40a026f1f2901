"""A thread that calls back at set times."""

import logging
import threading
import time

import pytest

from inferd.runtime.watchdog import Watchdog


@pytest.fixture
def watchdog():
    made = Watchdog("test-watchdog")
    made.start()
    yield made
    made.stop()


def test_it_calls_back_in_the_order_of_the_times(watchdog):
    """Whatever the order in which they were set, and with one that is over at once."""
    called, done = [], threading.Event()
    now = time.monotonic()
    watchdog.call_at(now + 0.04, done.set)
    watchdog.call_at(now + 0.02, lambda: called.append((2, time.monotonic())))
    watchdog.call_at(now - 1, lambda: called.append((1, time.monotonic())))
    assert done.wait(10)
    assert [number for number, _ in called] == [1, 2]
    assert called[1][1] >= now + 0.02


def test_it_goes_by_its_own_clock():
    """Not by how long it has slept."""
    reads, called = [], threading.Event()

    def clock():
        reads.append(None)
        return 100.0 if len(reads) == 1 else 200.0

    watchdog = Watchdog("test-watchdog", clock)
    watchdog.call_at(100.01, called.set)
    watchdog.start()
    assert called.wait(10)
    watchdog.stop()


def test_a_callback_that_fails_hurts_no_other(watchdog, caplog):
    """The thread goes on."""
    called = threading.Event()
    with caplog.at_level(logging.ERROR, "inferd.runtime"):
        watchdog.call_at(0, lambda: 1 / 0)
        watchdog.call_at(1, called.set)
        assert called.wait(10)
    assert "ZeroDivisionError" in caplog.text


def test_it_ends_when_it_is_stopped():
    """With what it was to do left undone."""
    before = set(threading.enumerate())
    watchdog = Watchdog("test-watchdog")
    watchdog.start()
    (thread,) = set(threading.enumerate()) - before
    watchdog.call_at(time.monotonic() + 1000, lambda: None)
    watchdog.stop()
    thread.join(10)
    assert not thread.is_alive()
