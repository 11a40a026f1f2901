"""A disk that fails: a process that is killed, a machine that loses its power, or an error, at each call in turn.

It counts what the process asks of the system below one folder: to make, rename, link and delete files and folders, to
bring them to the disk, and to open them for writing. Nothing is brought to the disk really; what would be is kept.
"""

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock


class Killed(BaseException):
    """The process is dead: it does nothing more."""


class Disk:
    """The calls below ``root``. At call ``at``, from 0, it fails: for good by `Killed`, or once by ``error``."""

    def __init__(self, root: Path, at: int = -1, error: int | None = None) -> None:
        self.root = root
        self.calls = 0
        self.failed = ""
        self._at: int | None = at
        self._error = error
        self._opened: set[int] = set()
        #: What is on the disk: of files their content, by inode, and of folders their names.
        self._contents: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context of the process: it may end by `Killed`. Its files and locks are closed then."""
        faults = {
            "mkdir": self._counted(os.mkdir),
            "replace": self._counted(os.replace),
            "link": self._counted(os.link),
            "unlink": self._counted(os.unlink),
            "rmdir": self._counted(os.rmdir),
            "open": self._counted(os.open, self._opened.add),
            "close": self._close(os.close),
            "fsync": self._fsync,
        }
        try:
            with mock.patch.multiple(os, **faults), mock.patch.object(io, "open", self._open(builtins.open)):
                yield
        finally:
            self._at = None
            for descriptor in self._opened:
                os.close(descriptor)

    def lose_power(self, *, undone: str = "") -> None:
        """Leave no content that was not brought to the disk, and in the folder ``undone`` below the root no names.

        The other changes of names were brought there, by whatever means; with ``undone`` "*", none of them.
        """
        kept: list[tuple[Path, bytes | None]] = []
        self._collect(self.root, kept, undone)
        for path in sorted(self.root.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        for path, content in kept:
            if content is None:
                path.mkdir()
            else:
                path.write_bytes(content)

    def _collect(self, folder: Path, kept: list[tuple[Path, bytes | None]], undone: str) -> None:
        names = _listing(folder) if folder.exists() else {}
        if undone in ("*", str(folder.relative_to(self.root))):
            folders = {name: inode for name, inode in names.items() if inode < 0 and undone != "*"}
            names = self._names.get(folder, {}) | folders
        for name, inode in names.items():
            path = folder / name
            if inode < 0:
                kept.append((path, None))
                self._collect(path, kept, undone)
            else:
                kept.append((path, self._contents.get(inode, b"")))

    def _counted(self, call: Callable[..., object], then: Callable[..., object] = bool) -> Callable[..., object]:
        def counted(path: object, *rest: object, **named: object) -> object:
            if self._is_below(Path(os.fspath(path))):
                self._count(f"{call.__name__} {path}")
                result = call(path, *rest, **named)
                then(result)
                return result
            return call(path, *rest, **named)

        return counted

    def _open(self, call: Callable[..., object]) -> Callable[..., object]:
        def opened(path: object, mode: str = "r", *rest: object, **named: object) -> object:
            if mode == "wb" and self._is_below(Path(os.fspath(path))):
                self._count(f"open {path}")
                file = call(path, mode, *rest, **named)
                self._contents.pop(os.fstat(file.fileno()).st_ino, None)
                return file
            return call(path, mode, *rest, **named)

        return opened

    def _close(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def close(descriptor: int) -> None:
            self._opened.discard(descriptor)
            call(descriptor)

        return close

    def _fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not self._is_below(path):
            return
        self._count(f"fsync {path}")
        if path.is_dir():
            self._names[path] = _listing(path)
        else:
            self._contents[os.fstat(descriptor).st_ino] = path.read_bytes()

    def _count(self, call: str) -> None:
        at, self.calls = self.calls, self.calls + 1
        if self._at is None or not 0 <= self._at <= at:
            return
        if self._error is None:
            self.failed = self.failed or call
            raise Killed(call)
        if at == self._at:
            self.failed = call
            raise OSError(self._error, errno.errorcode[self._error])

    def _is_below(self, path: Path) -> bool:
        return path == self.root or path.is_relative_to(self.root)


def _listing(folder: Path) -> dict[str, int]:
    """Return the names in ``folder`` with their inodes, or -1 for folders."""
    return {each.name: -1 if each.is_dir() else each.stat().st_ino for each in folder.iterdir()}


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return the files below ``folder`` with their contents, and its folders with None."""
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}
