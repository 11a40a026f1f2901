"""Download files of remote storage into the cache: in parts, in order, and on from where an earlier download stopped.

A file is downloaded by one process at a time; the others wait for it and find it in the cache. Nothing is in its place
before it is complete, has its size and, if that is known, its hash.
"""

import errno
import fcntl
import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as PartTimeoutError
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from inferd.remote.cache import FileCache
from inferd.remote.counts import RemoteCounts
from inferd.remote.in_use import Hold
from inferd.remote.storage import RemoteFile, Storage, StorageError, shown

_log = logging.getLogger(__name__)

#: Bytes of one request, and how many are under way at a time.
_PART_BYTES = 8 * 2**20
_PARALLEL = 4

#: How often a part is asked for, and the wait after the first failure, which doubles.
_TRIES = 3
_RETRY_S = 0.5

#: Interval between two looks at a download or lock of another process, or whether the load was cancelled.
_LOOK_S = 0.1

#: Time between two lines in the log about one download.
_LOG_S = 10.0


class DownloadError(Exception):
    """A file cannot be downloaded. The text is for an operator."""


class WrongContentError(DownloadError):
    """A file has another hash than expected. Another download of it would have the same."""


class DownloadCancelledError(Exception):
    """The load that needs the file was cancelled."""


class Downloads:
    """Brings files into ``cache``. Any thread may call `fetch`, which takes as long as the download does.

    ``checksums`` are hashes by the address of files. ``sleep`` waits between two tries of a part.
    """

    def __init__(
        self,
        cache: FileCache,
        counts: RemoteCounts,
        *,
        timeout_s: float,
        checksums: Mapping[str, str],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._cache = cache
        self._counts = counts
        self._timeout_s = timeout_s
        self._checksums = checksums
        self._sleep = sleep

    def fetch(self, storage: Storage, file: RemoteFile, is_cancelled: Callable[[], bool] = lambda: False) -> Hold:
        """Have the content of ``file`` in the cache; it stays for as long as what is returned does.

        Raises `DownloadError` and `DownloadCancelledError`.
        """
        expected = self.expected(file)
        try:
            return self._cached(file, expected) or self._download(storage, file, expected, is_cancelled)
        except DownloadError:
            self._counts.file("failed")
            raise
        except StorageError as error:
            self._counts.file("failed")
            raise DownloadError(str(error)) from error
        except OSError as error:
            self._counts.file("failed")
            raise DownloadError(f"{shown(file.address)} cannot be kept: {_why(error)}") from error

    def expected(self, file: RemoteFile) -> str:
        """Return the hash that the content of ``file`` must have; empty for any."""
        return self._checksums.get(file.address) or file.sha256

    def _cached(self, file: RemoteFile, expected: str) -> Hold | None:
        """Return what keeps the content of ``file`` if it is in the cache."""
        found = self._cache.content_of(file)
        if found is None:
            hold = self._cache.adopt(file, expected) if expected else None
        else:
            digest, hold = found
            _require(file, digest, expected)
        if hold is not None:
            self._counts.file("cached")
        return hold

    def _download(self, storage: Storage, file: RemoteFile, expected: str, is_cancelled: Callable[[], bool]) -> Hold:
        path = self._cache.partial(file)
        with _only_one(path, is_cancelled) as partial:
            # Another process may have had the lock, for this file.
            cached = self._cached(file, expected)
            if cached is not None:
                path.unlink(missing_ok=True)
                return cached
            try:
                digest = self._complete(storage, file, partial, is_cancelled)
                _require(file, digest, expected)
                _require_current(storage, file)
            except (OSError, DownloadError):
                # What is there is wrong, or fills the disk.
                path.unlink(missing_ok=True)
                raise
            hold = self._cache.store(file, path, digest)
        self._counts.set_cache_size(self._cache.size())
        self._counts.file("downloaded")
        return hold

    def _complete(self, storage: Storage, file: RemoteFile, partial: BinaryIO, is_cancelled: Callable[[], bool]) -> str:
        """Read the rest of ``file`` into ``partial``, and return the hash of the whole."""
        digest = hashlib.sha256()
        while chunk := partial.read(_PART_BYTES):
            digest.update(chunk)
        done = partial.tell()
        if done > file.size:
            msg = f"{shown(file.address)}: expected {file.size} bytes, got {done}"
            raise DownloadError(msg)
        self._cache.make_room(file.size - done)
        progress = _Progress(file, done)
        self._counts.began(file.size - done)
        try:
            for part in self._parts(storage, file, done, is_cancelled):
                # Again, as other downloads go on too.
                self._cache.make_room(file.size - done)
                _write(partial, part)
                digest.update(part)
                done += len(part)
                self._counts.received(len(part))
                progress.log(done)
            os.fsync(partial.fileno())
        finally:
            self._counts.ended(file.size - done)
        progress.end()
        return digest.hexdigest()

    def _parts(
        self, storage: Storage, file: RemoteFile, start: int, is_cancelled: Callable[[], bool]
    ) -> Iterator[bytes]:
        """Yield what comes from ``start`` on, in order; a few parts are under way meanwhile."""
        bounds = deque((at, min(at + _PART_BYTES, file.size)) for at in range(start, file.size, _PART_BYTES))
        pool = ThreadPoolExecutor(_PARALLEL, "model-download")
        waiting: deque[Future[bytes]] = deque()
        try:
            while bounds or waiting:
                while bounds and len(waiting) < _PARALLEL:
                    waiting.append(pool.submit(self._part, storage, file, *bounds.popleft()))
                yield self._result(file, waiting.popleft(), is_cancelled)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _part(self, storage: Storage, file: RemoteFile, start: int, end: int) -> bytes:
        for attempt in range(1, _TRIES):
            try:
                return storage.read(file, start, end)
            except StorageError as error:
                _log.info("reading %s again: %s", shown(file.address), error)
                self._sleep(_RETRY_S * 2 ** (attempt - 1))
        return storage.read(file, start, end)

    def _result(self, file: RemoteFile, part: Future[bytes], is_cancelled: Callable[[], bool]) -> bytes:
        deadline = time.monotonic() + self._timeout_s * _TRIES
        while not is_cancelled():
            try:
                return part.result(_LOOK_S)
            except PartTimeoutError:
                if part.done() or time.monotonic() > deadline:
                    msg = f"{shown(file.address)}: no answer within {self._timeout_s:g} s (remote.timeout_s)"
                    raise StorageError(msg) from None
        raise DownloadCancelledError


class _Progress:
    """Logs how far a download is: its beginning, every few seconds, and its end."""

    def __init__(self, file: RemoteFile, done: int) -> None:
        self._file = file
        self._resumed_from = done
        self._began = self._logged = time.monotonic()
        facts = {"file": shown(file.address), "bytes": file.size, "resumed_from": done}
        _log.info("download begins", extra=facts)

    def log(self, done: int) -> None:
        now = time.monotonic()
        if now - self._logged >= _LOG_S:
            self._logged = now
            percent = round(100 * done / max(self._file.size, 1))
            _log.info("download goes on", extra={"file": shown(self._file.address), "bytes": done, "percent": percent})

    def end(self) -> None:
        seconds = time.monotonic() - self._began
        facts = {"file": shown(self._file.address), "bytes": self._file.size - self._resumed_from}
        _log.info("download complete", extra={**facts, "seconds": round(seconds, 3)})


@contextmanager
def _only_one(path: Path, is_cancelled: Callable[[], bool]) -> Iterator[BinaryIO]:
    """Context with the partial download at ``path`` open from its beginning, which no other process has."""
    while True:
        if is_cancelled():
            raise DownloadCancelledError
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOOK_S)
                continue
            if _is_at(file, path):
                file.seek(0)
                yield file
                return


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether ``path`` still leads to ``file``: it has been moved to its place once it is complete."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _require(file: RemoteFile, digest: str, expected: str) -> None:
    if expected and digest != expected:
        msg = f"{shown(file.address)}: expected content with the SHA-256 {expected}, got {digest}"
        raise WrongContentError(msg)


def _require_current(storage: Storage, file: RemoteFile) -> None:
    # Its parts may be of two versions otherwise.
    if not storage.is_current(file):
        msg = f"{shown(file.address)} was changed while it was downloaded"
        raise DownloadError(msg)


def _write(file: BinaryIO, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _why(error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        detail = f": {error.strerror}" if error.strerror and "bytes" in error.strerror else ""
        return f"the cache is full{detail}{place}"
    return f"{error.strerror or error}{place}"
