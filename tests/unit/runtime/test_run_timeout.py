"""Stopping of trial runs with real loops, and the watchdog thread."""

import logging
import threading
import time

import numpy as np
import pytest

from inferd.config.settings import ModelSettings
from inferd.runtime.opening import declared, open_runtime_session
from inferd.runtime.run_timeout import TrialRunner, TrialTimeoutError, Watchdog
from inferd.runtime.runners import DirectRunner
from tests import onnx_models
from tests.load import busy_model
from tests.patience import PATIENCE_S


@pytest.fixture
def trials(tmp_path):
    """Yield a runner of a model that loops as often as its largest element says."""
    session = open_runtime_session(onnx_models.save(busy_model(), tmp_path / "model.onnx"), ModelSettings())
    inputs, outputs = declared(session)
    with TrialRunner(DirectRunner(session, inputs, outputs), ["y"]) as trials:
        yield trials


def test_stops_endless_run(trials):
    """Between two iterations of its loop; later runs are unaffected."""
    trials.run({"x": np.ones((1, 1), np.float32)})
    with pytest.raises(TrialTimeoutError, match="stopped after 1 s"):
        trials.run({"x": np.full((1, 1), 1e18, np.float32)})
    assert trials.run({"x": np.ones((1, 1), np.float32)})["y"] == 1


def test_propagates_model_error(trials):
    """It is not a timeout."""
    with pytest.raises(Exception, match="rank"):
        trials.run({"x": np.ones((1, 1, 1), np.float32)})


def test_limit_follows_longest_run():
    """A larger batch may take ten times as long."""

    class Runner:
        def run(self, inputs, outputs, options):
            now[0] += inputs["x"]
            return [inputs["x"]]

    now = [0.0]
    limit = TrialRunner(Runner(), ["y"], clock=lambda: now[0])
    assert limit.limit_s == 30
    for took_s, limit_s in ((0.01, 1), (0.5, 5), (0.1, 5), (4, 40)):
        limit.run({"x": took_s})
        assert limit.limit_s == limit_s


@pytest.fixture
def watchdog():
    made = Watchdog("test-watchdog")
    made.start()
    yield made
    made.stop()


def test_calls_back_in_order_of_time(watchdog):
    """Whatever the order of registration, and at once for a time in the past."""
    called, done = [], threading.Event()
    now = time.monotonic()
    watchdog.call_at(now + 0.04, done.set)
    watchdog.call_at(now + 0.02, lambda: called.append((2, time.monotonic())))
    watchdog.call_at(now - 1, lambda: called.append((1, time.monotonic())))
    assert done.wait(PATIENCE_S)
    assert [number for number, _ in called] == [1, 2]
    assert called[1][1] >= now + 0.02


def test_uses_injected_clock():
    """Not the time that the thread has slept."""
    reads, called = [], threading.Event()

    def clock():
        reads.append(None)
        return 100.0 if len(reads) == 1 else 200.0

    watchdog = Watchdog("test-watchdog", clock)
    watchdog.call_at(100.01, called.set)
    watchdog.start()
    assert called.wait(PATIENCE_S)
    watchdog.stop()


def test_failing_callback_does_not_stop_others(watchdog, caplog):
    """The thread continues."""
    called = threading.Event()
    with caplog.at_level(logging.ERROR, "inferd.runtime"):
        watchdog.call_at(0, lambda: 1 / 0)
        watchdog.call_at(1, called.set)
        assert called.wait(PATIENCE_S)
    assert "ZeroDivisionError" in caplog.text


def test_stop_ends_thread():
    """Without calling pending callbacks."""
    before = set(threading.enumerate())
    watchdog = Watchdog("test-watchdog")
    watchdog.start()
    (thread,) = set(threading.enumerate()) - before
    watchdog.call_at(time.monotonic() + 1000, lambda: None)
    watchdog.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
