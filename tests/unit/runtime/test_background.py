"""Work that other processes or other threads come before."""

import ctypes
import os
import platform
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from inferd.runtime.background import step_back
from inferd.runtime.resources import BACKGROUND_NICE, GENERATION_NICE, RUNS_NICE, give_way

_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
_KERNEL_WITH_SLICES = (6, 12)


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.release().split(".")[:2])


def _slice_ns() -> int:
    """Return the slice of this thread, in nanoseconds."""
    attributes = ctypes.create_string_buffer(56)
    assert ctypes.CDLL(None).syscall(_SCHED_GETATTR[platform.machine()], 0, attributes, len(attributes), 0) == 0
    return int(struct.unpack_from("=IIQiIQ", attributes)[5])


needs_slices = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in _SCHED_GETATTR or _kernel() < _KERNEL_WITH_SLICES,
    reason="threads have no slices of their own",
)


@needs_slices
def test_threads_have_low_priority_and_long_slices():
    """Those of one that has stepped back too; on Linux, both are properties of threads."""

    def threads_slice_ns() -> int:
        step_back()
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(os.getpriority, os.PRIO_PROCESS, 0).result() >= BACKGROUND_NICE
            return thread.submit(_slice_ns).result()

    with ThreadPoolExecutor(1) as thread:
        ordinary = thread.submit(_slice_ns).result()
        assert thread.submit(threads_slice_ns).result() > 10 * ordinary


@needs_slices
def test_threads_that_generate_yield_their_core():
    """Their slices are long, and those of threads that make short runs are not."""

    def slice_after(steps: int) -> int:
        give_way(steps)
        return _slice_ns()

    with ThreadPoolExecutor(1) as runs, ThreadPoolExecutor(1) as generating:
        ordinary = runs.submit(slice_after, RUNS_NICE).result()
        assert generating.submit(slice_after, GENERATION_NICE).result() > 10 * ordinary
