"""How many cores this process may really use. ONNX Runtime counts the machine's, which is wrong in a container."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

_CGROUP_ROOT = Path("/sys/fs/cgroup")


def usable_cores(cgroup_root: Path = _CGROUP_ROOT, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Return the cores that CPU affinity and the cgroup's quota leave to this process, at least 1.

    A quota of 1.5 cores counts as 1: a second thread would use up the period's quota early and both would be stopped.
    """
    affinity = len(os.sched_getaffinity(0))
    quotas = list(_quotas(cgroup_root, _read(membership) or ""))
    return max(1, int(min([affinity, *quotas])))


def threads_per_run(*, configured: int, on_accelerator: bool, instances: int, cores: int) -> int:
    """Return the intra-op threads of a session; ``configured`` is 0 to have them worked out."""
    if configured:
        return configured
    return 1 if on_accelerator else max(1, cores // instances)


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


def parse_membership(text: str) -> tuple[str | None, str | None]:
    """Return this process' cgroup v2 path and its path in v1's cpu hierarchy, from ``/proc/self/cgroup``."""
    v2: str | None = None
    v1: str | None = None
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            v2 = path
        elif "cpu" in controllers.split(","):
            v1 = path
    return v2, v1


def _quotas(root: Path, membership: str) -> Iterator[float]:
    v2, v1 = parse_membership(membership)
    yield from _limits(root, v2, _cpu_max)
    for mount in ("cpu", "cpu,cpuacct"):
        yield from _limits(root / mount, v1, _cfs_quota)


def _limits(mount: Path, path: str | None, read: Callable[[Path], float | None]) -> Iterator[float]:
    """Yield the limits of a cgroup and of all that it lies in: the tightest one holds.

    Inside a container the path is often the host's and does not exist here; the mount's root is then the container's.
    """
    if path is None:
        return
    inside = PurePosixPath(path.lstrip("/"))
    for folder in (inside, *inside.parents):
        limit = read(mount / folder)
        if limit is not None:
            yield limit


def _cpu_max(folder: Path) -> float | None:
    text = _read(folder / "cpu.max")
    return None if text is None else parse_cpu_max(text)


def _cfs_quota(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    return None if quota is None or period is None else parse_cfs_quota(quota, period)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
