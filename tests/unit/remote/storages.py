"""Remote storage in memory, which fails, stops and changes when a test says."""

import hashlib
import threading
from collections.abc import Callable, Mapping

from inferd.remote.storage import Listing, RemoteFile, StorageError


class FakeStorage:
    """The files of ``contents`` by name. ``reads`` has the bounds of all reads."""

    def __init__(self, contents: Mapping[str, bytes], *, url: str = "s3://bucket/models", only: str = "") -> None:
        self.url = url
        self.contents = dict(contents)
        self.only = only
        self.reads: list[tuple[str, int, int]] = []
        self.listings = 0
        self.is_down = False
        self.before_read: Callable[[RemoteFile, int], None] = lambda _, __: None
        self.listing_may_end = threading.Event()
        self.listing_may_end.set()

    def file(self, name: str) -> RemoteFile:
        """Return a file as it is now."""
        content = self.contents[name]
        version = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return RemoteFile(name=name, address=f"{self.url}/{name}", size=len(content), version=version, modified=1000.0)

    def list(self) -> Listing:
        """Return all files."""
        self.listings += 1
        self.listing_may_end.wait()
        self._require_up()
        return Listing(self.url.rpartition("/")[2], tuple(self.file(name) for name in sorted(self.contents)), self.only)

    def read(self, file: RemoteFile, start: int, end: int) -> bytes:
        """Return a part of a file."""
        self.before_read(file, start)
        self._require_up()
        name = self._name(file)
        self.reads.append((name, start, end))
        return self.contents[name][start:end]

    def is_current(self, file: RemoteFile) -> bool:
        """Whether a file is as it was."""
        self._require_up()
        now = self.file(self._name(file))
        return (now.size, now.version) == (file.size, file.version)

    def read_names(self) -> set[str]:
        """Return what has been read."""
        return {name for name, _, _ in self.reads}

    def _name(self, file: RemoteFile) -> str:
        return file.address.removeprefix(f"{self.url}/")

    def _require_up(self) -> None:
        if self.is_down:
            raise StorageError(f"{self.url}: ConnectionError")
