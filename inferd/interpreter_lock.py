"""The interpreter lock, which the threads of the server share.

A thread that waits for the lock asks its holder to release it after the switch interval. But a holder that makes system
calls releases it for each, and takes it again before the system runs the thread that waits, whose interval then begins
again. And a call that needs the lock several times waits for the interval each time. So a thread with much to do gives
way between its steps (docs/decisions/rpc-turns.md).
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

#: Longest wait for a round of an urgent thread, which may run a model meanwhile or have a flood of calls.
_MAX_ROUND_S = 0.002
#: About what it takes to wake a thread that runs on another core.
_WAKE_UP_S = 0.0001
#: A protocol counts as used for so long after its last call: without calls, few wait for its thread.
USED_S = 0.1


def let_others_run() -> None:
    """Release the lock, and have the system run a thread that waits for this core."""
    os.sched_yield()


def _has_several_cores() -> bool:
    return len(os.sched_getaffinity(0)) > 1


class UrgentThread:
    """A thread that works in short rounds, for which calls wait; other threads give way until its round ends.

    Threads: `give_way` and `is_used` are for the others, the rest is for the thread itself.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        let_run: Callable[[], object] = let_others_run,
        has_several_cores: Callable[[], bool] = _has_several_cores,
        max_round_s: float = _MAX_ROUND_S,
    ) -> None:
        self._clock = clock
        self._let_run = let_run
        self._has_several_cores = has_several_cores
        self._max_round_s = max_round_s
        self._used_until = 0.0
        self._is_working = False
        self._thread_id = 0
        #: Locks that those who wait have acquired, and acquire again to wait.
        self._waiting: deque[threading.Lock] = deque()

    def used(self) -> None:
        """Note that calls come."""
        self._used_until = self._clock() + USED_S

    @property
    def is_used(self) -> bool:
        """Whether a call has come lately."""
        return self._clock() < self._used_until

    def begin_round(self) -> None:
        """Have others wait, as there is work."""
        self._thread_id = threading.get_ident()
        self._is_working = True

    def end_round(self) -> None:
        """Let the others go on, before the thread sleeps."""
        self._is_working = False
        if self._waiting:
            self.release()

    def release(self) -> None:
        """Let those go on who wait by now; they may run beside the rest of the round."""
        waiting = self._waiting
        while waiting:
            with suppress(IndexError):  # the last one has just given up
                waiting.popleft().release()

    def give_way(self, *, may_sleep: bool) -> None:
        """Wait until the round ends, at most 2 ms; without one, let other threads run that wait for this core.

        Returns at once on the thread itself, which may do the same work as others.

        With ``may_sleep``, sleep for 0.1 ms if there is no round: nobody can see that the thread has been woken,
        perhaps on another core, and waits for the lock.
        """
        if not self._is_working:
            if may_sleep and self._has_several_cores():
                self._wait(_WAKE_UP_S)
            else:
                self._let_run()
        if self._is_working and threading.get_ident() != self._thread_id:
            self._wait(self._max_round_s)

    def _wait(self, timeout_s: float) -> None:
        lock = threading.Lock()
        lock.acquire()
        self._waiting.append(lock)
        if not lock.acquire(timeout=timeout_s):
            with suppress(ValueError):  # just released
                self._waiting.remove(lock)


#: The poll thread. Like the lock, there is one in a process; several servers in one would only wait less well.
POLL_THREAD = UrgentThread()
