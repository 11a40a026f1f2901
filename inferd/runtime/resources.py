"""CPU cores and memory available to this process: cgroup limits, affinity, resident size.

ONNX Runtime sees the cores of the whole machine, which is wrong in a container, and does not expose the statistics of
its memory allocators in Python. Models are loaded one after another and before they receive requests, so the growth of
the process during a load is the model's: weights, execution plan and, with warm-up, the buffers of a run.
"""

import ctypes
import functools
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath

from inferd.runtime.recent import Recent
from inferd.runtime.time_slices import take_long_slices

#: Mount point of the cgroup file systems, and the file that lists this process's cgroups.
CGROUP_ROOT = Path("/sys/fs/cgroup")
CGROUP_MEMBERSHIP = Path("/proc/self/cgroup")

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM = "/proc/self/statm"
_MEMINFO = Path("/proc/meminfo")

#: Memory limit files of cgroup v2 and v1.
_MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")


@functools.cache
def cgroup_directories(
    controller: str, root: Path = CGROUP_ROOT, membership: Path = CGROUP_MEMBERSHIP
) -> tuple[Path, ...]:
    """Return the cgroup directories, v1 or v2, that may limit ``controller``, innermost first; the tightest limit wins.

    A directory need not exist. Inside a container the listed path is often the host's; the limits are then in the root
    of the mount. Cached, because it is needed several times for each model; the limits themselves are read again.
    """
    return tuple(_cgroup_directories(controller, root, membership))


def _cgroup_directories(controller: str, root: Path, membership: Path) -> Iterator[Path]:
    for line in (read_file(membership) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        inside = PurePosixPath(path.lstrip("/"))
        if not controllers:  # v2: one hierarchy for all controllers
            mounts = [root]
        elif controller in controllers.split(","):  # v1: several controllers may share a mount
            mounts = [root / controller, root / controllers]
        else:
            continue
        for mount in mounts:
            yield from (mount / directory for directory in (inside, *inside.parents))


def read_file(path: Path) -> str | None:
    """Return the text of ``path``, or None if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return None


def usable_cores(cgroup_root: Path = CGROUP_ROOT, membership: Path = CGROUP_MEMBERSHIP) -> int:
    """Return the cores that CPU affinity and cgroup quota allow, at least 1.

    A quota of 1.5 cores counts as 1: a second thread would exhaust the quota early in each period and both threads
    would be throttled. The quota may be a second old, because each model asks several times while it is loaded.
    """
    affinity = len(os.sched_getaffinity(0))
    return max(1, int(min([affinity, *_recent_quotas(cgroup_root, membership)])))


def threads_per_run(*, configured: int, on_accelerator: bool, instances: int, cores: int) -> int:
    """Return the intra-op threads of a session; ``configured`` is 0 for automatic."""
    if configured:
        return configured
    return 1 if on_accelerator else max(1, cores // instances)


def parallel_runs(*, threads: int, on_accelerator: bool, cores: int) -> int:
    """Return how many runs of ``threads`` threads fit on ``cores`` without sharing, at least 1; 1 on an accelerator."""
    return 1 if on_accelerator else max(1, cores // threads)


#: By how much threads that run models give way, in steps of `nice`: their weight is 0.64 of that of other threads.
RUNS_NICE = 2
#: The same for language models, whose runs follow one another without a pause: 0.21. Short runs come first.
GENERATION_NICE = 7
#: The same for work that no request waits for. Their weight is 0.035 of that of other threads.
BACKGROUND_NICE = 15


def give_way(steps: int = RUNS_NICE) -> None:
    """Lower the priority of this thread by ``steps`` of `nice`; threads that it starts inherit that.

    From `GENERATION_NICE` on, it also yields its core at once to a thread that wakes up. The priority of single threads
    can be set on Linux only, and is not raised again.
    """
    if sys.platform != "linux":
        return
    thread = threading.get_native_id()
    with suppress(OSError):  # some sandboxes forbid it
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + steps)
        if steps >= GENERATION_NICE:
            take_long_slices()


def low_priority_thread(name: str, steps: int) -> ThreadPoolExecutor:
    """Return an executor with one thread, whose priority is lower by ``steps`` of `nice`."""
    return ThreadPoolExecutor(1, name, initializer=functools.partial(give_way, steps))


def parse_cpu_max(text: str) -> float | None:
    """Return the cores that cgroup v2's ``cpu.max`` allows, None for no limit."""
    quota, _, period = text.strip().partition(" ")
    if quota == "max":
        return None
    return int(quota) / int(period or 100_000)


def parse_cfs_quota(quota_us: str, period_us: str) -> float | None:
    """Return the cores that cgroup v1's ``cpu.cfs_quota_us`` allows, None for no limit."""
    quota = int(quota_us)
    return None if quota <= 0 else quota / int(period_us)


def _quotas(root: Path, membership: Path) -> Iterator[float]:
    for directory in cgroup_directories("cpu", root, membership):
        for cores in (_cpu_max(directory), _cfs_quota(directory)):
            if cores is not None:
                yield cores


#: Kept for a moment, because reading the files of nested cgroups takes most of a millisecond.
_recent_quotas = Recent(lambda root, membership: tuple(_quotas(root, membership)))


def _cpu_max(directory: Path) -> float | None:
    text = read_file(directory / "cpu.max")
    return None if text is None else parse_cpu_max(text)


def _cfs_quota(directory: Path) -> float | None:
    quota, period = read_file(directory / "cpu.cfs_quota_us"), read_file(directory / "cpu.cfs_period_us")
    return None if quota is None or period is None else parse_cfs_quota(quota, period)


def resident_bytes() -> int:
    """Return the resident memory of this process; takes a few microseconds."""
    # Without a file object, which would take longer than all the rest; models are tried with dozens of runs.
    descriptor = os.open(_STATM, os.O_RDONLY)
    try:
        return int(os.read(descriptor, 256).split()[1]) * _PAGE_BYTES
    finally:
        os.close(descriptor)


def usable_bytes(
    cgroup_root: Path = CGROUP_ROOT, membership: Path = CGROUP_MEMBERSHIP, meminfo: Path = _MEMINFO
) -> int:
    """Return the memory limit of this process: the tightest cgroup limit, or else the machine's memory.

    It may be a second old, as in `usable_cores`.
    """
    return _recent_memory_limit(cgroup_root, membership, meminfo)


def _memory_limit(cgroup_root: Path, membership: Path, meminfo: Path) -> int:
    total = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemTotal:"))
    limits = [int(total.split()[1]) * 1024]
    for directory in cgroup_directories("memory", cgroup_root, membership):
        found = (read_file(directory / name) for name in _MEMORY_LIMITS)
        limits += [int(text) for text in found if text is not None and text.strip() != "max"]
    return min(limits)


_recent_memory_limit = Recent(_memory_limit)


def available_bytes(resident: int, usable: int, meminfo: Path = _MEMINFO) -> int:
    """Return the memory that may still be taken: what the limit leaves of this process, and what the machine has."""
    text = read_file(meminfo) or ""
    free = [int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("MemAvailable:")]
    return max(min([usable - resident, *free]), 0)


#: What the process needs beside its models from one moment to the next: stacks of threads, messages, answers.
_RESERVE_BYTES = 64 * 1024 * 1024


def has_room(nbytes: int = _RESERVE_BYTES) -> bool:
    """Whether the process may take ``nbytes`` more, as far as the system says so beforehand: by its limits of size."""
    try:
        mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, MemoryError):
        return False
    return True


#: Memory of a run grows slightly faster than its rows.
_MARGIN = 1.2


class MemoryGrowth:
    """Extrapolates the memory of a run from the number of its rows and the memory of earlier runs.

    ``budget`` is the most that runs may allocate: a quarter of the limit, at most half of what is unused.
    """

    def __init__(self, resident: Callable[[], int] = resident_bytes, usable: Callable[[], int] = usable_bytes) -> None:
        self._resident = resident
        self._before = resident()
        limit = usable()
        self.budget = min(limit // 4, max(limit - self._before, 0) // 2)
        self._rows = 1
        self._taken = 0

    def ran(self, rows: int) -> None:
        """Record that a run of ``rows`` has ended."""
        self._rows = max(self._rows, rows)
        self._taken = max(self._taken, self._resident() - self._before)

    def expected(self, rows: int) -> int:
        """Return the bytes that a run of ``rows`` is expected to take; 0 before the first run of several rows."""
        return self._taken * (rows - 1) // (self._rows - 1) if self._rows > 1 else 0

    def fits(self, rows: int) -> bool:
        """Whether a run of ``rows`` is expected to stay within the budget."""
        return self.expected(rows) * _MARGIN <= self.budget


#: A server that is short of memory from the start must still serve requests.
_LEAST_REQUEST_BUDGET = 64 * 1024 * 1024


def request_budget(resident: int, usable: int) -> int:
    """Return the bytes that requests may hold once the models are loaded: half of what is unused.

    The other half is for allocations during runs and for other processes of the cgroup.
    """
    return max((usable - resident) // 2, _LEAST_REQUEST_BUDGET)


def trim_heap() -> None:
    """Return freed memory that the C library keeps to the operating system."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # a C library other than glibc, which keeps less
        return
