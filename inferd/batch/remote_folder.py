"""The folder that a job writes to, in remote storage. An object is there when its upload is complete, not before."""

import time
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO

from inferd.batch.errors import BatchError, UsageError
from inferd.batch.output_file import output_file
from inferd.batch.remote_lock import RemoteLock, held
from inferd.batch.storage import errors_of, file_system, shown

#: Small files that are read at a time: it is mostly waiting.
_READ_AT_A_TIME = 16

_AGAIN = "run it again when that is fixed: it continues"


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
        """Context with a file that is at ``name``, in place of another, when it ends without an error."""
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
        """Write ``content`` to ``name`` unless there is another file; return whether ``content`` is there."""
        with self._errors(name), self._no_bucket():
            try:
                self._system.pipe_file(self._at(name), content, mode="create")
            # S3's answer that it is there is another error; so is that to a second try after one whose answer was lost.
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
        """Return the contents of those of the files ``names`` that are there."""
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
        """Return the names and bytes of the files in ``folder``, without those below it."""
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
        """Delete the files ``names`` where they are there, for good."""
        for name in names:
            with self._errors(name), suppress(FileNotFoundError):
                self._system.rm_file(self._at(name))

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Context in which this process alone has the lock ``name``. Raises `InUseError` if another one has it."""
        lock = RemoteLock(self, name, self._sleep)
        with lock.hold():
            self._locks.append(lock)
            try:
                yield
            finally:
                self._locks.remove(lock)

    def held(self, names: Iterable[str]) -> list[str]:
        """Return those of the locks ``names`` that a process has. Locks that killed processes had are deleted."""
        return held(self, names, self._sleep)

    def clean(self, folder: str, stems: Container[str] | None = None) -> None:
        """Give up uploads of files in ``folder`` with these names up to the first dot, or of all of them.

        They are no files, but S3 keeps what came of them.
        """
        if not hasattr(self._system, "call_s3"):
            return
        bucket, _, prefix = self._at(folder).partition("/")
        # Not everyone who may write may see or end uploads.
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
        """Context of a write, where what is not there is the bucket: folders need not be."""
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
    """Give up an upload, also one that never began."""
    # The error that led here counts.
    with suppress(Exception):
        file.discard()
    # Closing it, as its collection does, would write what is left; some file systems have another kind of file.
    with suppress(AttributeError):
        file.closed = True
