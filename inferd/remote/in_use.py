"""Track which files of a shared cache each process uses.

Each has a folder with an empty file for each name, and the file ``lock``, which is locked while it runs. A killed
process leaves its folder, whose lock is free.
"""

import fcntl
import os
import shutil
import uuid
import weakref
from collections import Counter, deque
from pathlib import Path

_LOCK = "lock"


class Hold:
    """Keeps something in the cache for as long as this object is referenced."""

    __slots__ = ("__weakref__",)


class InUse:
    """The names in use by all processes, each with a folder in ``folder``. Called under the lock of the cache."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own: Path | None = None
        self._descriptor = -1
        self._counts: Counter[str] = Counter()
        #: What is not in use any more. A finalizer may run at any moment in any thread, so it takes no lock.
        self._released: deque[str] = deque()

    def hold(self, name: str) -> Hold:
        """Return what keeps ``name``. Raises `OSError`."""
        own = self._own_folder()
        self._take_back(own)
        if not self._counts[name]:
            (own / name).touch()
        self._counts[name] += 1
        hold = Hold()
        weakref.finalize(hold, self._released.append, name).atexit = False
        return hold

    def names(self) -> frozenset[str]:
        """Return what any process has in use; deletes the folders of those that have ended. Raises `OSError`."""
        if self._own is not None:
            self._take_back(self._own)
        names: set[str] = set()
        for process in self._folder.iterdir():
            if process != self._own and is_unlocked(process / _LOCK):
                shutil.rmtree(process, ignore_errors=True)
            else:
                names.update(entry.name for entry in process.iterdir())
        return frozenset(names)

    def _take_back(self, own: Path) -> None:
        while self._released:
            name = self._released.popleft()
            self._counts[name] -= 1
            if not self._counts[name]:
                del self._counts[name]
                (own / name).unlink(missing_ok=True)

    def _own_folder(self) -> Path:
        # The cache may have been emptied.
        if self._own is None or not (self._own / _LOCK).exists():
            own = self._folder / uuid.uuid4().hex
            own.mkdir()
            descriptor = os.open(own / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for name in self._counts:
                (own / name).touch()
            if self._own is not None:
                os.close(self._descriptor)
            self._own, self._descriptor = own, descriptor
        return self._own


def is_unlocked(path: Path) -> bool:
    """Whether no process has the file at ``path`` locked."""
    try:
        # Network file systems lock what is open for writing only.
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
