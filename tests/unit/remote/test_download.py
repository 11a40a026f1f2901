"""Downloads: complete or not there, on from where they were, and right."""

import errno
import gc
import hashlib
import threading
from pathlib import Path

import pytest

from inferd.remote import download
from inferd.remote.cache import FileCache
from inferd.remote.counts import RemoteCounts
from inferd.remote.download import DownloadCancelledError, DownloadError, Downloads
from inferd.remote.storage import RemoteFile, StorageError
from tests.patience import PATIENCE_S
from tests.unit.remote.storages import FakeStorage

_CONTENT = bytes(range(100))
_PART = 10


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PART_BYTES", _PART)
    monkeypatch.setattr(download, "_LOOK_S", 0.001)


class _Server:
    """Downloads into a cache in ``folder``; ``slept`` has the waits between tries."""

    def __init__(self, folder: Path, limit_bytes: int | None = None, **checksums: str) -> None:
        self.cache = FileCache(folder, limit_bytes=limit_bytes)
        self.counts = RemoteCounts()
        self.slept: list[float] = []
        self.downloads = Downloads(
            self.cache, self.counts, timeout_s=PATIENCE_S, checksums=checksums, sleep=self.slept.append
        )


@pytest.fixture
def server(tmp_path: Path) -> _Server:
    """A server without checksums."""
    return _Server(tmp_path)


@pytest.fixture
def storage() -> FakeStorage:
    """A file of ten parts."""
    return FakeStorage({"model.onnx": _CONTENT})


def _content(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in (folder / "blobs").iterdir()]


def _partials(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in (folder / "partial").iterdir()]


def test_downloads_once(server: _Server, storage: FakeStorage, tmp_path: Path) -> None:
    """Then it is in the cache."""
    file = storage.file("model.onnx")
    _first = server.downloads.fetch(storage, file)
    storage.is_down = True
    _second = server.downloads.fetch(storage, file)
    assert _content(tmp_path) == [_CONTENT]
    assert _partials(tmp_path) == []
    assert len(storage.reads) == 10
    assert server.counts.read().files == {"downloaded": 1, "cached": 1}
    assert server.counts.read().downloaded_bytes == 100
    assert server.counts.read().cache_bytes == 100


def test_downloads_empty_file(server: _Server, tmp_path: Path) -> None:
    """Nothing is read."""
    storage = FakeStorage({"labels.txt": b""})
    _hold = server.downloads.fetch(storage, storage.file("labels.txt"))
    assert _content(tmp_path) == [b""]
    assert storage.reads == []


def test_goes_on_where_it_was(server: _Server, storage: FakeStorage, tmp_path: Path) -> None:
    """After the storage has failed for too long, in the next load or process."""
    storage.before_read = _down_from(storage, 40)
    with pytest.raises(DownloadError, match="s3://bucket/models: ConnectionError"):
        server.downloads.fetch(storage, storage.file("model.onnx"))
    assert _partials(tmp_path) == [_CONTENT[:40]]
    assert server.counts.read().pending_bytes == 0
    assert server.counts.read().files == {"failed": 1}
    storage.before_read, storage.is_down = lambda _, __: None, False
    storage.reads.clear()
    other = _Server(tmp_path)
    _hold = other.downloads.fetch(storage, storage.file("model.onnx"))
    assert _content(tmp_path) == [_CONTENT]
    assert min(start for _, start, _ in storage.reads) == 40
    assert other.counts.read().downloaded_bytes == 60


def test_retries_part(server: _Server, storage: FakeStorage, tmp_path: Path) -> None:
    """With growing waits."""
    failures = iter([True, True])

    def fail(_: RemoteFile, start: int) -> None:
        if start == 30 and next(failures, False):
            raise StorageError("reset")

    storage.before_read = fail
    _hold = server.downloads.fetch(storage, storage.file("model.onnx"))
    assert _content(tmp_path) == [_CONTENT]
    assert server.slept == [0.5, 1.0]


def test_other_content_is_refused_by_hash(tmp_path: Path, storage: FakeStorage) -> None:
    """Before and after it is in the cache; nothing of it is left."""
    file = storage.file("model.onnx")
    expected = hashlib.sha256(b"what was approved").hexdigest()
    server = _Server(tmp_path, **{file.address: expected})
    found = hashlib.sha256(_CONTENT).hexdigest()
    with pytest.raises(DownloadError, match=f"model.onnx: expected content with the SHA-256 {expected}, got {found}"):
        server.downloads.fetch(storage, file)
    assert _content(tmp_path) == _partials(tmp_path) == []
    _hold = _Server(tmp_path).downloads.fetch(storage, file)
    with pytest.raises(DownloadError, match=expected):
        server.downloads.fetch(storage, file)


def test_known_content_is_not_read(tmp_path: Path, storage: FakeStorage) -> None:
    """The same file at another address, with its checksum."""
    _first = _Server(tmp_path).downloads.fetch(storage, storage.file("model.onnx"))
    other = FakeStorage({"model.onnx": _CONTENT}, url="s3://other")
    file = other.file("model.onnx")
    server = _Server(tmp_path, **{file.address: hashlib.sha256(_CONTENT).hexdigest()})
    _second = server.downloads.fetch(other, file)
    assert other.reads == []


def test_rejects_file_changed_meanwhile(server: _Server, storage: FakeStorage, tmp_path: Path) -> None:
    """Its parts may be of two versions."""
    file = storage.file("model.onnx")

    def change(_: RemoteFile, start: int) -> None:
        if start == 50:
            storage.contents["model.onnx"] = _CONTENT[::-1]

    storage.before_read = change
    with pytest.raises(DownloadError, match=r"s3://bucket/models/model.onnx was changed while it was downloaded"):
        server.downloads.fetch(storage, file)
    assert _content(tmp_path) == _partials(tmp_path) == []


def test_cancelled(server: _Server, storage: FakeStorage, tmp_path: Path) -> None:
    """A load that is given up does not wait for the storage, and what has come is kept."""
    blocked, cancelled = threading.Event(), threading.Event()

    def block(_: RemoteFile, start: int) -> None:
        if start == 50:
            cancelled.set()
            blocked.wait(PATIENCE_S)

    storage.before_read = block
    with pytest.raises(DownloadCancelledError):
        server.downloads.fetch(storage, storage.file("model.onnx"), cancelled.is_set)
    blocked.set()
    assert _content(tmp_path) == []
    assert all(_CONTENT.startswith(partial) for partial in _partials(tmp_path))


def test_disk_full(server: _Server, storage: FakeStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear error, and the room that the beginning took is free again."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_write", full)
    with pytest.raises(DownloadError, match=r"s3://bucket/models/model.onnx cannot be kept: the cache is full"):
        server.downloads.fetch(storage, storage.file("model.onnx"))
    assert _content(tmp_path) == _partials(tmp_path) == []
    monkeypatch.undo()
    monkeypatch.setattr(server.cache, "_free", lambda: 99)
    with pytest.raises(DownloadError, match=r"the cache is full: 100 bytes are needed, 99 are free \("):
        server.downloads.fetch(storage, storage.file("model.onnx"))
    assert storage.reads[20:] == []


def test_downloads_at_a_time_stay_within_limit(storage: FakeStorage, tmp_path: Path) -> None:
    """Each makes room for itself and for what the others have so far."""
    storage.contents = {name: name.encode() * 100 for name in "abcd"}
    server = _Server(tmp_path, limit_bytes=250)
    for name in "ab":
        server.downloads.fetch(storage, storage.file(name))
    gc.collect()
    sizes: list[int] = []

    def overtake(file: RemoteFile, start: int) -> None:
        if (file.address[-1], start) == ("c", 50):
            storage.before_read = lambda *_: sizes.append(_size(tmp_path))
            holds.append(server.downloads.fetch(storage, storage.file("d")))

    holds: list[object] = []
    storage.before_read = overtake
    holds.append(server.downloads.fetch(storage, storage.file("c")))
    assert max(sizes) <= 250
    assert len(holds) == 2


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for name in ("blobs", "partial") for path in (folder / name).iterdir())


def test_one_download_for_several_servers(storage: FakeStorage, tmp_path: Path) -> None:
    """The others wait for it."""
    begun, may_go_on = threading.Event(), threading.Event()

    def block(_: RemoteFile, __: int) -> None:
        begun.set()
        may_go_on.wait(PATIENCE_S)

    storage.before_read = block
    servers = [_Server(tmp_path), _Server(tmp_path)]
    holds: list[object] = []

    def fetch(server: _Server) -> None:
        holds.append(server.downloads.fetch(storage, storage.file("model.onnx")))

    threads = [threading.Thread(target=fetch, args=(server,)) for server in servers]
    threads[0].start()
    assert begun.wait(PATIENCE_S)
    threads[1].start()
    may_go_on.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(holds) == 2
    assert len(storage.reads) == 10
    assert sorted(next(iter(server.counts.read().files)) for server in servers) == ["cached", "downloaded"]


def _down_from(storage: FakeStorage, first: int):
    def fail(_: RemoteFile, start: int) -> None:
        if start >= first:
            raise StorageError(f"{storage.url}: ConnectionError")

    return fail
