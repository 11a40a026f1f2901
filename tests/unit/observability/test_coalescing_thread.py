"""Queued work is processed, whenever it is queued."""

import threading

from inferd.observability.coalescing_thread import CoalescingThread
from tests.patience import PATIENCE_S

TIMEOUT_S = PATIENCE_S


class Work:
    """Returns the given results, one for each call, and then False."""

    def __init__(self, *found: bool) -> None:
        self._found = list(found)
        self.done = threading.Event()
        self.goes = 0

    def __call__(self) -> bool:
        self.goes += 1
        found = self._found.pop(0) if self._found else False
        if not self._found:
            self.done.set()
        return found


def test_waits_for_start() -> None:
    """Work is kept until then."""
    work = Work(True)
    thread = CoalescingThread("test", work, delay_s=0)
    thread.wake()
    assert thread.is_awake
    assert (work.goes, thread.has_started) == (0, False)
    thread.start()
    assert work.done.wait(TIMEOUT_S)
    assert thread.stop(TIMEOUT_S)
    assert not thread.is_awake


def test_processes_work_queued_while_it_falls_asleep() -> None:
    """The producer finds the thread awake, and so does not wake it."""
    work = Work(True, False, True, False, False)
    thread = CoalescingThread("test", work, delay_s=0)
    thread.start()
    thread.wake()
    assert work.done.wait(TIMEOUT_S)
    assert thread.stop(TIMEOUT_S)


def test_stop_does_not_wait_for_the_delay() -> None:
    """Queued work is processed at once."""
    work = Work(True, True, True)
    thread = CoalescingThread("test", work, delay_s=3600)
    thread.start()
    thread.wake()
    assert thread.stop(TIMEOUT_S)
    assert work.goes > 3


def test_stop_has_a_timeout() -> None:
    """Work may be stuck."""
    stuck, entered = threading.Event(), threading.Event()

    def work() -> bool:
        entered.set()
        stuck.wait()
        return False

    thread = CoalescingThread("test", work, delay_s=0)
    thread.start()
    thread.wake()
    assert entered.wait(TIMEOUT_S)
    assert not thread.stop(0.01)
    stuck.set()
    assert thread.stop(TIMEOUT_S)
