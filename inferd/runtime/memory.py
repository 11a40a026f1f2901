"""How much memory this process holds.

ONNX Runtime keeps statistics of its allocators and does not tell them in Python. Models are loaded one after another
and before they are called, so what the process grows by meanwhile is the model's: weights, the plan of its graph, and
with warm-up the buffers of a run.
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from inferd.runtime.cgroups import MEMBERSHIP, ROOT, folders, read

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MEMINFO = Path("/proc/meminfo")

#: Where either version of cgroups has the limit.
_LIMITS = ("memory.max", "memory.limit_in_bytes")


def resident_bytes() -> int:
    """Return how much memory this process holds now, in some microseconds."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES


def usable_bytes(cgroup_root: Path = ROOT, membership: Path = MEMBERSHIP, meminfo: Path = _MEMINFO) -> int:
    """Return how much it may hold: the cgroup's limit, as a container has one, or else the machine's memory."""
    total = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemTotal:"))
    limits = [int(total.split()[1]) * 1024]
    for folder in folders("memory", cgroup_root, membership):
        found = (read(folder / name) for name in _LIMITS)
        limits += [int(text) for text in found if text is not None and text.strip() != "max"]
    return min(limits)


#: Runs take a little more than in proportion to their rows.
_MARGIN = 1.2


class MemoryGrowth:
    """Foresees how much memory a run of so many rows will take from what those before it took.

    ``budget`` is what may be taken: a quarter of what there is, at most half of what is left.
    """

    def __init__(self, resident: Callable[[], int] = resident_bytes, usable: Callable[[], int] = usable_bytes) -> None:
        self._resident = resident
        self._before = resident()
        self.budget = min(usable() // 4, max(usable() - self._before, 0) // 2)
        self._rows = 1
        self._taken = 0

    def ran(self, rows: int) -> None:
        """Take note of a run that has ended."""
        self._rows = max(self._rows, rows)
        self._taken = max(self._taken, self._resident() - self._before)

    def expected(self, rows: int) -> int:
        """Return how many bytes a run of ``rows`` will take; 0 as long as there was none of several rows."""
        return self._taken * (rows - 1) // (self._rows - 1) if self._rows > 1 else 0

    def fits(self, rows: int) -> bool:
        """Whether a run of ``rows`` stays within the budget."""
        return self.expected(rows) * _MARGIN <= self.budget


#: A server that is short of memory from the start still has to answer.
_LEAST_BUDGET = 64 * 1024 * 1024


def request_budget(resident: int, usable: int) -> int:
    """Return how much requests may take when the models are loaded: half of what is left.

    The other half is for what models allocate while they run, and for whoever else is in the cgroup.
    """
    return max((usable - resident) // 2, _LEAST_BUDGET)


def give_back() -> None:
    """Return memory that has been freed to the system, as far as the C library keeps it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # another C library than glibc, which keeps less
        return
