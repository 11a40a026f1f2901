"""Time slices of threads on Linux.

A thread that wakes up takes a core at once from one whose time slice is longer, but not from one whose slice is as
long, however low the priority of that is: it may then wait for milliseconds.
"""

import ctypes
import os
import platform
import struct
import sys
from contextlib import suppress

#: Numbers of the system call sched_setattr, for which most C libraries have no function.
_SYSTEM_CALLS = {"x86_64": 314, "aarch64": 274}

#: ``struct sched_attr`` in its first form: size, policy, flags, nice, priority, runtime, deadline, period.
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")

#: The longest that there is.
_SLICE_NS = 100_000_000


def take_long_slices() -> None:
    """Let this thread yield its core at once to any that wakes up; threads that it starts inherit that.

    What the system lacks or forbids is left out: kernels before 6.12 have no slices of threads.
    """
    number = _SYSTEM_CALLS.get(platform.machine())
    # Any other policy is the operator's choice.
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, _SLICE_NS, 0, 0)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).syscall(number, 0, attributes, 0)
