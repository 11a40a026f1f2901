"""The cgroups that this process lies in, of either version, where the limits stand that hold for it."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

#: Where Linux has them, and where it says which are this process'.
ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def folders(controller: str, root: Path = ROOT, membership: Path = MEMBERSHIP) -> Iterator[Path]:
    """Yield the folders of the cgroups that limit ``controller``, from the innermost on: the tightest limit holds.

    Not all of them need exist. Inside a container the path is often the host's and does not exist here; the mount's
    root is then the container's.
    """
    for line in (read(membership) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        inside = PurePosixPath(path.lstrip("/"))
        if not controllers:  # version 2, which has all of them in one place
            mounts = [root]
        elif controller in controllers.split(","):  # version 1, which may mount several together
            mounts = [root / controller, root / controllers]
        else:
            continue
        for mount in mounts:
            yield from (mount / folder for folder in (inside, *inside.parents))


def read(file: Path) -> str | None:
    """Return what stands in ``file``, or None if that cannot be read."""
    try:
        return file.read_text()
    except OSError:
        return None
