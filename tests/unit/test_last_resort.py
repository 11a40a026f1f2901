"""The end of a process whose orderly end does not come."""

import logging
import subprocess
import sys
import threading

import pytest

from inferd.last_resort import LastResort
from tests.patience import PATIENCE_S


@pytest.fixture
def ended():
    """A function that makes one that only says that it would have ended the process."""
    made = []

    def make(**what):
        facts = {"describe": lambda: {"models": ["m 1"]}, "flush": lambda: None, **what}
        statuses, happened = [], threading.Event()

        def end(status):
            statuses.append(status)
            happened.set()

        made.append(LastResort(**facts, end=end))
        return made[-1], statuses, happened

    yield make
    for each in made:
        each.disarm()


def test_the_process_ends_and_the_log_says_what_hangs(ended, caplog):
    """Which models, and where each thread is; and that is written before."""
    flushed = []
    resort, statuses, happened = ended(flush=lambda: flushed.append(caplog.records[-1]))
    with caplog.at_level(logging.CRITICAL):
        resort.arm(0.01)
        assert happened.wait(PATIENCE_S)
    assert statuses == [1]
    assert flushed[0].models == ["m 1"]
    assert any(thread.startswith("MainThread: ") for thread in flushed[0].threads)


def test_nothing_happens_if_the_end_comes_in_time(ended, caplog):
    """The thread is gone then."""
    resort, statuses, _ = ended()
    resort.arm(1000)
    (thread,) = [each for each in threading.enumerate() if each.name == "last-resort"]
    resort.disarm()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert statuses == []
    assert caplog.records == []


@pytest.mark.parametrize("hanging", ["describe", "flush"])
def test_a_log_that_hangs_does_not_keep_the_process(ended, hanging):
    """It is given up after a while."""
    never = threading.Event()
    resort, statuses, happened = ended(**{hanging: lambda: never.wait() and {}})
    resort.arm(0.01)
    assert happened.wait(PATIENCE_S)
    assert statuses == [1]
    never.set()


def test_a_thread_that_keeps_the_interpreter_does_not_keep_the_process():
    """No thread of Python's can run then; the traceback stands on standard error."""
    program = (
        "import ctypes, threading\n"
        "from inferd.last_resort import LastResort\n"
        "LastResort(describe=dict, flush=lambda: None).arm(0.1)\n"
        "ctypes.PyDLL(None).sleep(1000)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
