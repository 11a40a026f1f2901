"""What is brought is worked off, whenever it comes."""

import threading

from inferd.observability.coalescing_thread import CoalescingThread
from tests.patience import PATIENCE_S

TIMEOUT_S = PATIENCE_S


class Work:
    """Finds what the test says, one go after the other, and then nothing."""

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


def test_nothing_is_done_before_somebody_rouses_it() -> None:
    """It sleeps, and says so; what it is told before its start waits for that."""
    work = Work(True)
    thread = CoalescingThread("test", work, delay_s=0)
    thread.wake()
    assert thread.is_awake
    assert (work.goes, thread.has_started) == (0, False)
    thread.start()
    assert work.done.wait(TIMEOUT_S)
    assert thread.stop(TIMEOUT_S)
    assert not thread.is_awake


def test_what_comes_while_it_falls_asleep_is_not_left_behind() -> None:
    """Whoever brings it finds the thread awake, and so does not rouse it."""
    work = Work(True, False, True, False, False)
    thread = CoalescingThread("test", work, delay_s=0)
    thread.start()
    thread.wake()
    assert work.done.wait(TIMEOUT_S)
    assert thread.stop(TIMEOUT_S)


def test_the_end_does_not_wait_for_more() -> None:
    """What there is by then is worked off."""
    work = Work(True, True, True)
    thread = CoalescingThread("test", work, delay_s=3600)
    thread.start()
    thread.wake()
    assert thread.stop(TIMEOUT_S)
    assert work.goes > 3


def test_the_end_comes_no_later_than_the_timeout() -> None:
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
