"""The folder that a job writes to, on this machine: each file in it is there as a whole and for good, or not at all.

A file is written under a temporary name, brought to the disk, and renamed; then its folder is brought to the disk, so
that the name outlives a crash of the machine too. Whoever has the lock may delete temporaries that others have left.
"""

import errno
import fcntl
import os
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from inferd.batch.errors import BatchError
from inferd.batch.remote_folder import RemoteFolder
from inferd.batch.storage import is_remote, shown

_TEMPORARY = ".tmp"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


class OutputFolder(Protocol):
    """Files by name, with slashes. All methods raise `BatchError`. Any thread, but one writes a name."""

    address: str

    def create(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Context with a file that is at ``name``, in place of another, when it ends without an error."""
        ...

    def create_new(self, name: str, content: bytes) -> bool:
        """Write ``content`` to ``name`` unless there is such a file; return whether it was written."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Return the file ``name`` for reading."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return the content of ``name``; None if there is no such file."""
        ...

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files in ``folder``, without those below it and without temporaries."""
        ...

    def delete(self, name: str) -> None:
        """Delete ``name`` if it is there."""
        ...

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Context in which this process alone has the lock ``name``. Raises at once if another one has it."""
        ...

    def is_locked(self, name: str) -> bool:
        """Whether a process has the lock ``name``."""
        ...

    def clean(self, folder: str, stems: Container[str] | None = None) -> None:
        """Delete temporaries of files in ``folder`` with these names up to the first dot, or all of them.

        A folder that is empty then is deleted too.
        """
        ...


def output_folder(address: str) -> OutputFolder:
    """Return the folder at ``address``."""
    return RemoteFolder(address) if is_remote(address) else LocalFolder(address)


class LocalFolder:
    """A folder of this machine."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._root = Path(address)

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Context with a file that is at ``name``, in place of another, when it ends without an error."""
        path = self._root / name
        temporary = path.with_name(f"{path.name}{_TEMPORARY}")
        with self._errors(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync(path.parent)

    def create_new(self, name: str, content: bytes) -> bool:
        """Write ``content`` to ``name`` unless there is such a file; return whether it was written."""
        path = self._root / name
        # Several processes may try at a time.
        temporary = path.with_name(f"{path.name}.{os.getpid()}{_TEMPORARY}")
        with self._errors(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                path.hardlink_to(temporary)
            except FileExistsError:
                return False
            finally:
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

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files in ``folder``, without those below it and without temporaries."""
        with self._errors(folder):
            try:
                found = sorted((self._root / folder).iterdir())
            except FileNotFoundError:
                return []
            files = [path for path in found if path.is_file() and path.suffix != _TEMPORARY]
            return [str(path.relative_to(self._root)) for path in files]

    def delete(self, name: str) -> None:
        """Delete ``name`` if it is there."""
        with self._errors(name):
            (self._root / name).unlink(missing_ok=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Context in which this process alone has the lock ``name``. Raises at once if another one has it."""
        path = self._root / name
        with self._errors(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = _locked(path)
        if descriptor is None:
            raise BatchError(f"{shown(self.address)} is in use by another run of inferd batch")
        try:
            yield
        finally:
            # While it is held, so that nobody locks a file that is no longer there.
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def is_locked(self, name: str) -> bool:
        """Whether a process has the lock ``name``."""
        with self._errors(name):
            try:
                descriptor = os.open(self._root / name, os.O_RDONLY)
            except FileNotFoundError:
                return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def clean(self, folder: str, stems: Container[str] | None = None) -> None:
        """Delete temporaries of files in ``folder`` with these names up to the first dot, or all of them.

        A folder that is empty then is deleted too.
        """
        root = self._root / folder
        with self._errors(folder):
            if not root.is_dir():
                return
            for path in root.iterdir():
                if path.suffix == _TEMPORARY and (stems is None or path.name.partition(".")[0] in stems):
                    path.unlink(missing_ok=True)
            if root != self._root and not any(root.iterdir()):
                root.rmdir()

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
    """Return a descriptor that holds the lock on ``path``; None if another one does."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        try:
            # The one before may have deleted it in between.
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
