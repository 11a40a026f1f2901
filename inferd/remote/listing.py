"""The last listing of an address that could be made: of this process, or of an earlier one."""

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict

from inferd.remote.cache import FileCache
from inferd.remote.counts import RemoteCounts
from inferd.remote.storage import Listing, RemoteFile, Storage, StorageError, shown

_log = logging.getLogger(__name__)


class LatestListing:
    """Lists the address of ``storage``. Any thread may call `refreshed`; one listing is made at a time.

    A listing that takes longer than ``timeout_s`` continues in its thread. Until it has ended no caller waits for it
    again, so that storage that hangs delays its callers once.
    """

    def __init__(self, storage: Storage, cache: FileCache, counts: RemoteCounts, *, timeout_s: float) -> None:
        self._storage = storage
        self._cache = cache
        self._counts = counts
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._running: _Call | None = None
        self._last: Listing | None = None
        #: Why the last one failed, so that it is logged once.
        self._problem = ""

    def refreshed(self) -> Listing:
        """Return a new listing, or the last one if there is none in time. Raises `StorageError` if there never was."""
        with self._lock:
            is_late = self._running is not None
            call = self._running or _Call(self._storage.list)
            self._running = None if call.ended.wait(0.0 if is_late else self._timeout_s) else call
            if self._running is not None:
                return self._failed(f"{self._where}: not listed within {self._timeout_s:g} s (remote.timeout_s)")
            if call.listing is None:
                return self._failed(call.problem)
            return self._succeeded(call.listing)

    def _succeeded(self, listing: Listing) -> Listing:
        self._counts.listed(self._where, "listed")
        if self._problem:
            _log.info("%s is listed again", self._where)
            self._problem = ""
        if listing != self._last:
            self._last = listing
            try:
                self._cache.save_listing(self._storage.url, asdict(listing))
            except OSError as error:
                _log.warning("the listing of %s is not kept for the next start: %s", self._where, error)
        return listing

    def _failed(self, problem: str) -> Listing:
        self._counts.listed(self._where, "failed")
        if self._last is None:
            self._last = _decoded(self._cache.saved_listing(self._storage.url))
        if self._last is None:
            raise StorageError(problem)
        if problem != self._problem:
            self._problem = problem
            _log.warning("%s; what it had before counts", problem)
        return self._last

    @property
    def _where(self) -> str:
        return shown(self._storage.url)


class _Call:
    """A listing in a thread of its own."""

    def __init__(self, make: Callable[[], Listing]) -> None:
        self.listing: Listing | None = None
        self.problem = ""
        self.ended = threading.Event()
        threading.Thread(target=self._run, args=(make,), name="remote-listing", daemon=True).start()

    def _run(self, make: Callable[[], Listing]) -> None:
        try:
            self.listing = make()
        except StorageError as error:
            self.problem = str(error)
        except Exception as error:  # noqa: BLE001  (it becomes the problem of the caller)
            _log.exception("an unexpected error in a listing")
            self.problem = f"cannot be listed: {type(error).__name__}"
        finally:
            self.ended.set()


def _decoded(content: object) -> Listing | None:
    """Return the listing that `FileCache.save_listing` was given; None for anything else."""
    match content:
        case {"name": str(name), "files": [*files], "only": str(only)}:
            try:
                return Listing(name, tuple(RemoteFile(**file) for file in files), only)
            except TypeError:
                return None
    return None
