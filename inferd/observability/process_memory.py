"""How much of the memory that it may use this process has."""

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class MemoryShare:
    """Reads the share from the kernel at each call, in some microseconds; the limit is read once.

    The limit is the cgroup's, as a container sees it, or else the machine's memory.
    """

    def __init__(self, cgroup: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> None:
        self._statm = proc / "self" / "statm"
        limits = [_total_bytes(proc / "meminfo")]
        for file in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):
            try:
                limits.append(int(file.read_text()))
            except (OSError, ValueError):  # not there, or "max"
                continue
        self._limit_bytes = min(limits)

    def __call__(self) -> float:
        """Return the share, from 0."""
        return int(self._statm.read_text().split()[1]) * _PAGE_BYTES / self._limit_bytes


def _total_bytes(meminfo: Path) -> int:
    """Return the machine's memory in bytes."""
    total = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemTotal:"))
    return int(total.split()[1]) * 1024
