"""The watchdog of the shutdown."""

import logging
import subprocess
import sys
import threading

import pytest

from inferd.app.shutdown_watchdog import ShutdownWatchdog
from tests.patience import PATIENCE_S


@pytest.fixture
def watch():
    """A function that makes a watchdog which records the exit status instead of exiting."""
    made = []

    def make(**options):
        arguments = {"describe": lambda: {"models": ["m 1"]}, "flush": lambda: None, **options}
        statuses, exited = [], threading.Event()

        def end(status):
            statuses.append(status)
            exited.set()

        made.append(ShutdownWatchdog(**arguments, end=end))
        return made[-1], statuses, exited

    yield make
    for each in made:
        each.disarm()


def test_exits_and_logs_what_hangs(watch, caplog):
    """Models and threads are logged, and flushed before the exit."""
    flushed = []
    watchdog, statuses, exited = watch(flush=lambda: flushed.append(caplog.records[-1]))
    with caplog.at_level(logging.CRITICAL):
        watchdog.arm(0.01)
        assert exited.wait(PATIENCE_S)
    assert statuses == [1]
    assert flushed[0].models == ["m 1"]
    assert any(thread.startswith("MainThread: ") for thread in flushed[0].threads)


def test_disarmed_in_time(watch, caplog):
    """The thread ends, and nothing is logged."""
    watchdog, statuses, _ = watch()
    watchdog.arm(1000)
    (thread,) = [each for each in threading.enumerate() if each.name == "shutdown-watchdog"]
    watchdog.disarm()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert statuses == []
    assert caplog.records == []


@pytest.mark.parametrize("hanging", ["describe", "flush"])
def test_hanging_log_does_not_delay_the_exit(watch, hanging):
    """Writing the report has a timeout."""
    never = threading.Event()
    watchdog, statuses, exited = watch(**{hanging: lambda: never.wait() and {}})
    watchdog.arm(0.01)
    assert exited.wait(PATIENCE_S)
    assert statuses == [1]
    never.set()


def test_thread_that_holds_the_interpreter_lock():
    """No Python thread can run; the interpreter exits with a traceback on standard error."""
    program = (
        "import ctypes, threading\n"
        "from inferd.app.shutdown_watchdog import ShutdownWatchdog\n"
        "ShutdownWatchdog(describe=dict, flush=lambda: None).arm(0.1)\n"
        "ctypes.PyDLL(None).sleep(1000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr
