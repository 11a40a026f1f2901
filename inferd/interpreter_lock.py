"""The interpreter lock, which the threads of the server share.

A thread that waits for the lock asks its holder to release it after the switch interval. But a holder that makes system
calls releases it for each, and takes it again before the system runs the thread that waits, whose interval then begins
again. And a call that needs the lock several times waits for the interval each time. So a thread with much to do gives
way between its steps (docs/decisions/rpc-turns.md).
"""

import os
import time

#: About what it takes to wake a thread that runs on another core.
_WAKE_UP_S = 0.0001


def let_others_run() -> None:
    """Release the lock, and have the system run a thread that waits for this core."""
    os.sched_yield()


def let_others_wake() -> None:
    """Release the lock for long enough that a thread on any core takes it."""
    if len(os.sched_getaffinity(0)) > 1:
        time.sleep(_WAKE_UP_S)
    else:
        let_others_run()
