"""What the processes that share a cache have in use.

Each has a folder, which is locked while it runs, with an empty file for each name. A killed process leaves its folder,
which is not locked any more.
"""

import fcntl
import os
import shutil
import uuid
import weakref
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path


class Hold:
    """Keeps something in the cache for as long as this object is referenced."""

    __slots__ = ("__weakref__",)


class InUse:
    """What is in use, by the folders in ``folder``. All methods are called under the lock of the cache."""

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
            if process != self._own and is_unlocked(process):
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
        if self._own is None:
            own = self._folder / uuid.uuid4().hex
            own.mkdir()
            self._descriptor = os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            self._own = own
        return self._own


def is_unlocked(path: Path) -> bool:
    """Whether no process has ``path`` locked."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
        return True
    return False
