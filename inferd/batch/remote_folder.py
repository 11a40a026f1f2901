"""The folder that a job writes to, in remote storage. An object is there when its upload is complete, and not before.

A lock is an object that its holder writes again every few seconds. One that has not changed for a while was left by a
process that was killed, and is taken over; by the waiting time of the one who takes it, as clocks differ.
"""

import time
import uuid
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from inferd.batch.errors import BatchError
from inferd.batch.storage import errors_of, file_system, shown
from inferd.periodic_thread import PeriodicThread

#: How often a lock is written again, and after which time without that it is taken over.
_RENEW_S = 10.0
_STALE_S = 60.0


class RemoteFolder:
    """A folder in remote storage."""

    def __init__(self, address: str, *, sleep: Callable[[float], None] = time.sleep, renew_s: float = _RENEW_S) -> None:
        self.address = address.rstrip("/")
        with errors_of(address):
            self._system, path = file_system(address)
        self._path = path.rstrip("/")
        self._sleep = sleep
        self._renew_s = renew_s
        self._holder = uuid.uuid4().hex
        self._beats = 0
        self._is_lost = False

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Context with a file that is at ``name``, in place of another, when it ends without an error."""
        with self._errors(name):
            file = self._system.open(self._at(name), "wb", autocommit=False)
            try:
                yield file
                self._require_lock()
                file.close()
                file.commit()
            except BaseException:
                _discard(file)
                raise

    def create_new(self, name: str, content: bytes) -> bool:
        """Write ``content`` to ``name`` unless there is such a file; return whether it was written."""
        with self._errors(name):
            try:
                self._system.pipe_file(self._at(name), content, mode="create")
            except FileExistsError:
                return False
            # S3's answer to that is another error.
            except OSError:
                if self.read(name) is None:
                    raise
                return False
        return True

    def open(self, name: str) -> BinaryIO:
        """Return the file ``name`` for reading."""
        with self._errors(name):
            file: BinaryIO = self._system.open(self._at(name), "rb")
            return file

    def read(self, name: str) -> bytes | None:
        """Return the content of ``name``; None if there is no such file."""
        with self._errors(name):
            try:
                content: bytes = self._system.cat_file(self._at(name))
            except FileNotFoundError:
                return None
            return content

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files in ``folder``, without those below it."""
        with self._errors(folder):
            self._system.invalidate_cache()
            try:
                found = self._system.ls(self._at(folder), detail=True)
            except FileNotFoundError:
                return []
            prefix = f"{folder}/" if folder else ""
            files = [each["name"].rpartition("/")[2] for each in found if each["type"] == "file"]
            return sorted(f"{prefix}{name}" for name in files if name)

    def delete(self, name: str) -> None:
        """Delete ``name`` if it is there."""
        with self._errors(name):
            try:
                self._system.rm_file(self._at(name))
            except FileNotFoundError:
                return

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Context in which this process alone has the lock ``name``. Raises if another one has it."""
        if not self.create_new(name, self._beat()):
            self._take_over(name)
        renewing = PeriodicThread("lock", period_s=self._renew_s, action=lambda: self._renew(name))
        renewing.start()
        try:
            yield
        finally:
            renewing.stop()
            if not self._is_lost:
                self.delete(name)

    def is_locked(self, name: str) -> bool:
        """Whether there is the lock ``name``."""
        return self.read(name) is not None

    def clean(self, folder: str, stems: Container[str] | None = None) -> None:
        """Do nothing: uploads that were not completed are no files."""

    def _take_over(self, name: str) -> None:
        """Take a lock that its holder does not renew. Raises `BatchError` if it does."""
        before = self.read(name)
        if before is not None:
            self._sleep(_STALE_S)
            if self.read(name) not in (before, None):
                raise BatchError(f"{shown(self.address)} is in use by another run of inferd batch")
            self.delete(name)
        if not self.create_new(name, self._beat()):
            raise BatchError(f"{shown(self.address)} is in use by another run of inferd batch")

    def _renew(self, name: str) -> None:
        content = self.read(name)
        if content is not None and not content.startswith(self._holder.encode()):
            self._is_lost = True
            return
        with self._errors(name):
            self._system.pipe_file(self._at(name), self._beat())

    def _require_lock(self) -> None:
        if self._is_lost:
            raise BatchError(f"{shown(self.address)} was taken over by another run of inferd batch")

    def _beat(self) -> bytes:
        self._beats += 1
        return f"{self._holder} {self._beats}".encode()

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    def _errors(self, name: str) -> Any:  # noqa: ANN401  (a context manager)
        return errors_of(f"{self.address}/{name}" if name else self.address)


def _discard(file: Any) -> None:  # noqa: ANN401  (fsspec has no types)
    """Give up an upload, also one that never began."""
    # The error that led here counts.
    with suppress(Exception):
        file.discard()
    # Closing it, as its collection does, would write what is left; some file systems have another kind of file.
    with suppress(AttributeError):
        file.closed = True
