"""The folder that a job writes to. Each file in it exists completely and durably, or not at all.

A file is written under a temporary name, synced, and renamed; then its folder is synced, so that the name survives a
crash of the machine. The temporary name of a file is always the same, so a new temporary replaces an old one.
"""

import errno
import fcntl
import os
import uuid
from collections.abc import Container, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from inferd.batch.errors import BatchError, InUseError
from inferd.batch.remote_folder import RemoteFolder
from inferd.batch.storage import is_remote, output_file, shown

_TEMPORARY = ".tmp"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
#: Errors of file systems on which folders cannot be synced, and need not be.
_NO_SYNC = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES}


class OutputFolder(Protocol):
    """Files by name, with slashes. All methods raise `BatchError`. Threads: any; each name is written by one."""

    address: str

    def create(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Context with a file that replaces ``name`` when the context ends without an error."""
        ...

    def create_new(self, name: str, content: bytes) -> bool:
        """Write ``content`` to ``name`` unless it exists; return True if ``name`` has ``content``."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Return the file ``name`` for reading."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return the content of ``name``; None if there is no such file."""
        ...

    def read_all(self, names: Iterable[str]) -> list[bytes]:
        """Return the contents of those files among ``names`` that exist."""
        ...

    def size(self, name: str) -> int | None:
        """Return the bytes of ``name``; None if there is no such file."""
        ...

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the names and bytes of the files in ``folder``, without its subfolders and temporaries."""
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Delete the files among ``names`` that exist, durably."""
        ...

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Context in which this process alone holds the lock ``name``. Raises `InUseError` if another holds it."""
        ...

    def held(self, names: Iterable[str]) -> list[str]:
        """Return the locks among ``names`` that a process holds; delete those of killed processes."""
        ...

    def clean(self, folder: str, stems: Container[str] | None = None) -> None:
        """Delete the temporaries in ``folder`` of names with these ``stems`` (up to the first dot).

        None deletes all of them, and the folder if it is empty then; no other process may write there.
        """
        ...


def output_folder(address: str) -> OutputFolder:
    """Return the folder at ``address``."""
    return RemoteFolder(address) if is_remote(address) else LocalFolder(address)


class LocalFolder:
    """A folder on this machine."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._root = Path(address)
        self._made: set[Path] = set()
        #: The locks that this process holds, with their file descriptors.
        self._locks: dict[Path, int] = {}

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Context with a file that replaces ``name`` when the context ends without an error."""
        path = self._root / name
        temporary = path.with_name(f"{path.name}{_TEMPORARY}")
        with self._errors(name):
            self._require_locks()
            self._make(path.parent)
            file = temporary.open("wb")
        try:
            yield output_file(file, partial(self._errors, name))
            with self._errors(name):
                _close(file)
                self._require_locks()
                temporary.replace(path)
                _sync(path.parent)
        except BaseException:
            # The error that led here is raised, not one of closing the file.
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def create_new(self, name: str, content: bytes) -> bool:
        """Write ``content`` to ``name`` unless it exists; return True if ``name`` has ``content``."""
        path = self._root / name
        # Several processes may try at the same time.
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_TEMPORARY}")
        with self._errors(name):
            self._make(path.parent)
            try:
                with temporary.open("wb") as file:
                    file.write(content)
                    _close(file)
                path.hardlink_to(temporary)
            except FileExistsError:
                return path.read_bytes() == content
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
            _sync(path.parent)
        return True

    def open(self, name: str) -> BinaryIO:
        """Return the file ``name`` for reading."""
        with self._errors(name):
            return (self._root / name).open("rb")

    def read(self, name: str) -> bytes | None:
        """Return the content of ``name``; None if there is no such file."""
        with self._errors(name):
            try:
                return (self._root / name).read_bytes()
            except FileNotFoundError:
                return None

    def read_all(self, names: Iterable[str]) -> list[bytes]:
        """Return the contents of those files among ``names`` that exist."""
        return [content for name in names if (content := self.read(name)) is not None]

    def size(self, name: str) -> int | None:
        """Return the bytes of ``name``; None if there is no such file."""
        with self._errors(name):
            try:
                return (self._root / name).stat().st_size
            except FileNotFoundError:
                return None

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the names and bytes of the files in ``folder``, without its subfolders and temporaries."""
        prefix = f"{folder}/" if folder else ""
        with self._errors(folder):
            try:
                found = sorted((self._root / folder).iterdir())
            except FileNotFoundError:
                return {}
            files = [path for path in found if path.suffix != _TEMPORARY and path.is_file()]
            return {f"{prefix}{path.name}": path.stat().st_size for path in files}

    def delete(self, names: Iterable[str]) -> None:
        """Delete the files among ``names`` that exist, durably."""
        folders = set()
        for name in names:
            path = self._root / name
            with self._errors(name), suppress(FileNotFoundError):
                path.unlink()
                folders.add(path.parent)
        for folder in folders:
            with self._errors(""):
                _sync(folder)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Context in which this process alone holds the lock ``name``. Raises `InUseError` if another holds it."""
        path = self._root / name
        with self._errors(name):
            descriptor = _locked(path)
        if descriptor is None:
            raise InUseError(f"{shown(self.address)} is in use by another run of inferd batch")
        self._locks[path] = descriptor
        try:
            yield
        finally:
            del self._locks[path]
            # Deleted while it is held, so that no process locks a deleted file.
            with suppress(OSError):
                path.unlink(missing_ok=True)
            os.close(descriptor)
            # If nothing was written, no empty folder is left.
            if path.parent != self._root:
                with suppress(OSError):
                    path.parent.rmdir()
                    self._made.discard(path.parent)

    def held(self, names: Iterable[str]) -> list[str]:
        """Return the locks among ``names`` that a process holds; delete those of killed processes."""
        found = []
        for name in names:
            try:
                with self.lock(name):
                    pass
            except InUseError:
                found.append(name)
        return found

    def clean(self, folder: str, stems: Container[str] | None = None) -> None:
        """Delete the temporaries in ``folder`` of names with these ``stems`` (up to the first dot).

        None deletes all of them, and the folder if it is empty then; no other process may write there.
        """
        root = self._root / folder
        with self._errors(folder):
            if not root.is_dir():
                return
            for path in root.iterdir():
                if path.suffix == _TEMPORARY and (stems is None or path.name.partition(".")[0] in stems):
                    path.unlink(missing_ok=True)
            if stems is None and root != self._root and not any(root.iterdir()):
                root.rmdir()
                self._made.discard(root)

    def _require_locks(self) -> None:
        """Raise `InUseError` if a lock file was deleted, as with the folder: another run may write there now."""
        for path, descriptor in self._locks.items():
            if not _is_at(descriptor, path):
                raise InUseError(f"{shown(self.address)} was deleted while inferd batch wrote to it; run it again")

    def _make(self, folder: Path) -> None:
        """Make ``folder`` and its parents, durably, also where a killed process made a folder without syncing it."""
        if folder in self._made:
            return
        chain = (folder, *folder.parents)
        new = [each for each in chain if each.is_relative_to(self._root) or not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for each in new:
            _sync(each.parent)
        self._made.add(folder)

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = shown(os.path.join(self.address, name))  # noqa: PTH118  (as the user wrote it)
            if error.errno in _NO_SPACE:
                text = f"{where}: the disk is full; free some space and run it again: it continues"
                raise BatchError(text) from error
            raise BatchError(f"{where}: {error.strerror or error}") from error


def _locked(path: Path) -> int | None:
    """Return a file descriptor that holds the lock on ``path``; None if another process holds it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The process that held it before may delete it and its folder at any moment.
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, path):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Return True if ``descriptor`` has the file at ``path`` open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _close(file: BinaryIO) -> None:
    """Sync ``file`` to the disk, and close it."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _sync(folder: Path) -> None:
    """Sync the names in ``folder`` to the disk."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
