"""How much memory this process holds.

ONNX Runtime keeps statistics of its allocators and does not tell them in Python. Models are loaded one after another
and before they are called, so what the process grows by meanwhile is the model's: weights, the plan of its graph, and
with warm-up the buffers of a run.
"""

import os
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
