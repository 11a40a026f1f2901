"""Count downloads, files and listings of remote storage, for the metrics."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteCount:
    """``files`` by outcome: cached, downloaded, failed. ``listings`` by repository and outcome: listed, failed.

    ``pending_bytes`` are still to be downloaded by the present loads.
    """

    downloaded_bytes: int
    pending_bytes: int
    cache_bytes: int
    files: Mapping[str, int]
    listings: Mapping[tuple[str, str], int]


class RemoteCounts:
    """Counts of one server. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._downloaded_bytes = 0
        self._pending_bytes = 0
        self._cache_bytes = 0
        self._files: Counter[str] = Counter()
        self._listings: Counter[tuple[str, str]] = Counter()

    def began(self, size: int) -> None:
        """Count a download of ``size`` bytes that begins."""
        with self._lock:
            self._pending_bytes += size

    def received(self, size: int) -> None:
        """Count received bytes of a download."""
        with self._lock:
            self._downloaded_bytes += size
            self._pending_bytes -= size

    def ended(self, unread: int) -> None:
        """Count the end of a download, of which ``unread`` bytes were not received."""
        with self._lock:
            self._pending_bytes -= unread

    def file(self, outcome: str) -> None:
        """Count a file that a load needs, by ``outcome``: cached, downloaded or failed."""
        with self._lock:
            self._files[outcome] += 1

    def listed(self, repository: str, outcome: str) -> None:
        """Count a listing by ``outcome``: listed or failed."""
        with self._lock:
            self._listings[repository, outcome] += 1

    def set_cache_size(self, size: int) -> None:
        """Record the ``size`` in bytes of all files of the cache."""
        with self._lock:
            self._cache_bytes = size

    def read(self) -> RemoteCount:
        """Return all counts."""
        with self._lock:
            return RemoteCount(
                downloaded_bytes=self._downloaded_bytes,
                pending_bytes=self._pending_bytes,
                cache_bytes=self._cache_bytes,
                files=dict(self._files),
                listings=dict(self._listings),
            )
