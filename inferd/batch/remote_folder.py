"""An `OutputFolder` in remote storage, and its locks. An object exists once its upload is complete, not before.

A lock is an object that its holder writes again every few seconds. A lock that did not change for `_STALE_S`, on the
clock of the process that wants it, was left by a killed process and is taken over. A holder that was only suspended
sees that it lost the lock before it completes anything.
"""

import logging
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO

from inferd.batch.errors import BatchError, InUseError, UsageError
from inferd.batch.storage import errors_of, file_system, output_file, shown
from inferd.periodic_thread import PeriodicThread

#: Small files that are read concurrently: reading is mostly waiting.
_READ_AT_A_TIME = 16

_AGAIN = "run it again when that is fixed: it continues"

_log = logging.getLogger(__name__)
#: Seconds between two writes of a lock, without a write until it is taken over, and to wait after taking it over: a
#: process that does so at the same time deletes it just before it writes its own.
_RENEW_S, _STALE_S, _SETTLE_S = 5.0, 30.0, 2.0


class RemoteFolder:
    """A folder in remote storage."""

    def __init__(self, address: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.address = address.rstrip("/")
        with errors_of(address):
            self._system, path = file_system(address)
        self._path = path.rstrip("/")
        self._sleep = sleep
        self._locks: list[RemoteLock] = []

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Context with a file that replaces ``name`` when the context ends without an error."""
        with self._errors(name), self._no_bucket():
            file = self._system.open(self._at(name), "wb", autocommit=False)
        try:
            yield output_file(file, partial(self._errors, name))
            for lock in self._locks:
                lock.require()
            with self._errors(name), self._no_bucket():
                file.close()
                file.commit()
        except BaseException:
            _discard(file)
            raise

    def create_new(self, name: str, content: bytes) -> bool:
        """Write ``content`` to ``name`` unless it exists; return True if ``name`` has ``content``."""
        with self._errors(name), self._no_bucket():
            try:
                self._system.pipe_file(self._at(name), content, mode="create")
            # S3 has an error of its own for an object that exists, also after a first try whose response was lost.
            except OSError:
                found = self.read(name)
                if found is None:
                    raise
                return found == content
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

    def read_all(self, names: Iterable[str]) -> list[bytes]:
        """Return the contents of those files among ``names`` that exist."""
        with ThreadPoolExecutor(_READ_AT_A_TIME, thread_name_prefix="inferd-batch-notes") as threads:
            return [content for content in threads.map(self.read, names) if content is not None]

    def write(self, name: str, content: bytes) -> None:
        """Write ``content`` to ``name``."""
        with self._errors(name):
            self._system.pipe_file(self._at(name), content)

    def size(self, name: str) -> int | None:
        """Return the bytes of ``name``; None if there is no such file."""
        with self._errors(name):
            self._system.invalidate_cache()
            try:
                found = self._system.info(self._at(name))
            except FileNotFoundError:
                return None
            return int(found["size"]) if found["type"] == "file" else None

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the names and bytes of the files in ``folder``, without its subfolders."""
        prefix = f"{folder}/" if folder else ""
        with self._errors(folder):
            self._system.invalidate_cache()
            try:
                found = self._system.ls(self._at(folder), detail=True)
            except FileNotFoundError:
                return {}
            files = [(each["name"].rpartition("/")[2], each["size"]) for each in found if each["type"] == "file"]
            return {f"{prefix}{name}": int(size) for name, size in sorted(files) if name}

    def delete(self, names: Iterable[str]) -> None:
        """Delete the files among ``names`` that exist, durably."""
        for name in names:
            with self._errors(name), suppress(FileNotFoundError):
                self._system.rm_file(self._at(name))

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Context in which this process alone holds the lock ``name``. Raises `InUseError` if another holds it."""
        lock = RemoteLock(self, name, self._sleep)
        with lock.hold():
            self._locks.append(lock)
            try:
                yield
            finally:
                self._locks.remove(lock)

    def held(self, names: Iterable[str]) -> list[str]:
        """Return the locks among ``names`` that a process holds; delete those of killed processes."""
        return held(self, names, self._sleep)

    def clean(self, folder: str, stems: Container[str] | None = None) -> None:
        """Abort unfinished uploads to ``folder`` of names with these ``stems`` (up to the first dot); None aborts all.

        They are not files, but S3 keeps their data.
        """
        if not hasattr(self._system, "call_s3"):
            return
        bucket, _, prefix = self._at(folder).partition("/")
        # The permission to write does not include those to list and abort uploads.
        with suppress(BatchError), self._errors(folder):
            found = self._system.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/".lstrip("/"))
            for each in found.get("Uploads", ()):
                name = each["Key"].removeprefix(f"{prefix}/")
                if "/" not in name and (stems is None or name.partition(".")[0] in stems):
                    self._system.call_s3(
                        "abort_multipart_upload", Bucket=bucket, Key=each["Key"], UploadId=each["UploadId"]
                    )

    @contextmanager
    def _no_bucket(self) -> Iterator[None]:
        """Context of a write, in which "not found" means the bucket: folders need not exist."""
        try:
            yield
        except FileNotFoundError as error:
            raise UsageError(
                f"{shown(self.address)}: there is no such bucket; make it, or name another OUTPUT"
            ) from error

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    def _errors(self, name: str) -> AbstractContextManager[None]:
        return errors_of(f"{self.address}/{name}" if name else self.address, _AGAIN)


def _discard(file: Any) -> None:  # noqa: ANN401  (fsspec has no types)
    """Abort an upload, also one that never began."""
    # The error that led here is raised.
    with suppress(Exception):
        file.discard()
    # Else garbage collection would close it, which writes the rest. Some file systems have files without the attribute.
    with suppress(AttributeError):
        file.closed = True


class RemoteLock:
    """The lock ``name``. Threads: the holder's, and one that renews it."""

    def __init__(self, folder: RemoteFolder, name: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._folder = folder
        self._name = name
        self._sleep = sleep
        self._holder = uuid.uuid4().hex
        self._beats = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Context in which this process alone holds the lock. Raises `InUseError` if another holds it."""
        self._take()
        renewing = PeriodicThread("inferd-batch-lock", period_s=_RENEW_S, action=self.renew)
        renewing.start()
        try:
            yield
        finally:
            renewing.stop()
            # A lock that cannot be deleted becomes stale.
            with suppress(BatchError):
                if self._is_own():
                    self._folder.delete([self._name])

    def require(self) -> None:
        """Raise `InUseError` if another process has taken the lock over."""
        if not self._is_own():
            raise InUseError(f"{shown(self._folder.address)} was taken over by another run of inferd batch")

    def renew(self) -> None:
        """Write the lock again, so that it does not become stale."""
        try:
            if self._is_own():
                self._folder.write(self._name, self._beat())
        except BatchError as error:
            # Tried again later. Nothing is completed without a check of the lock.
            _log.warning("cannot renew the lock: %s", error)

    def _take(self) -> None:
        if self._folder.create_new(self._name, self._beat()):
            return
        if not held(self._folder, [self._name], self._sleep) and self._folder.create_new(self._name, self._beat()):
            self._sleep(_SETTLE_S)
            if self._is_own():
                return
        raise InUseError(f"{shown(self._folder.address)} is in use by another run of inferd batch")

    def _is_own(self) -> bool:
        content = self._folder.read(self._name)
        return content is not None and content.startswith(self._holder.encode())

    def _beat(self) -> bytes:
        self._beats += 1
        return f"{self._holder} {self._beats}".encode()


def held(folder: RemoteFolder, names: Iterable[str], sleep: Callable[[float], None] = time.sleep) -> list[str]:
    """Return the locks among ``names`` that are renewed while this waits; delete the others."""
    before = {name: content for name in names if (content := folder.read(name)) is not None}
    if not before:
        return []
    _log.warning("%s: waiting %.0f s for a sign of another run", shown(folder.address), _STALE_S)
    sleep(_STALE_S)
    now = {name: folder.read(name) for name in before}
    folder.delete([name for name in before if now[name] == before[name]])
    return [name for name in before if now[name] not in (before[name], None)]
