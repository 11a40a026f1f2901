"""How many cores this process may really use. ONNX Runtime counts the machine's, which is wrong in a container."""

import os
from collections.abc import Iterator
from pathlib import Path

from inferd.runtime.cgroups import MEMBERSHIP, ROOT, folders, read


def usable_cores(cgroup_root: Path = ROOT, membership: Path = MEMBERSHIP) -> int:
    """Return the cores that CPU affinity and the cgroup's quota leave to this process, at least 1.

    A quota of 1.5 cores counts as 1: a second thread would use up the period's quota early and both would be stopped.
    """
    affinity = len(os.sched_getaffinity(0))
    quotas = list(_quotas(cgroup_root, membership))
    return max(1, int(min([affinity, *quotas])))


def threads_per_run(*, configured: int, on_accelerator: bool, instances: int, cores: int) -> int:
    """Return the intra-op threads of a session; ``configured`` is 0 to have them worked out."""
    if configured:
        return configured
    return 1 if on_accelerator else max(1, cores // instances)


def parallel_runs(*, threads: int, on_accelerator: bool, cores: int) -> int:
    """Return how many runs of ``threads`` each have cores of their own, at least 1; on an accelerator no more."""
    return 1 if on_accelerator else max(1, cores // threads)


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
    for folder in folders("cpu", root, membership):
        for cores in (_cpu_max(folder), _cfs_quota(folder)):
            if cores is not None:
                yield cores


def _cpu_max(folder: Path) -> float | None:
    text = read(folder / "cpu.max")
    return None if text is None else parse_cpu_max(text)


def _cfs_quota(folder: Path) -> float | None:
    quota, period = read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")
    return None if quota is None or period is None else parse_cfs_quota(quota, period)
