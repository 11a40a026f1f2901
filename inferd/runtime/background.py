"""How a process gives way to all others: by its priority, and by long time slices on Linux."""

import os

from inferd.runtime.resources import BACKGROUND_NICE
from inferd.runtime.time_slices import take_long_slices


def step_back() -> None:
    """Let all other processes go first; threads that are started from now on do so too."""
    os.nice(BACKGROUND_NICE)
    take_long_slices()
