"""What the cache keeps, for whom, and for how long."""

import errno
import fcntl
import gc
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inferd.remote.cache import FileCache
from inferd.remote.in_use import Hold
from inferd.remote.storage import RemoteFile


def _file(name: str = "1/model.onnx", content: bytes = b"model", version: str = "a") -> RemoteFile:
    return RemoteFile(name=name, address=f"s3://bucket/{name}", size=len(content), version=version)


def _store(cache: FileCache, file: RemoteFile, content: bytes) -> Hold:
    partial = cache.partial(file)
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(content)
    return cache.store(file, partial, hashlib.sha256(content).hexdigest())


@pytest.fixture
def cache(tmp_path: Path) -> FileCache:
    """A cache without limit."""
    return FileCache(tmp_path / "cache", limit_bytes=None)


def _limited(tmp_path: Path, limit: int) -> FileCache:
    return FileCache(tmp_path / "cache", limit_bytes=limit)


def test_tree_has_all_names(cache: FileCache) -> None:
    """Files that are not downloaded are empty."""
    folder, _ = cache.tree("digits", [_file(), _file("model.yaml")])
    assert folder.name == "digits"
    assert (folder / "1" / "model.onnx").read_bytes() == (folder / "model.yaml").read_bytes() == b""


def test_content_appears_at_its_names(cache: FileCache) -> None:
    """In every directory that has the file."""
    folder, _hold = cache.tree("digits", [_file()])
    content = _store(cache, _file(), b"model")
    assert (folder / "1" / "model.onnx").read_bytes() == b"model"
    assert cache.content_of(_file())[0] == hashlib.sha256(b"model").hexdigest()
    del content


def test_another_version_is_another_file(cache: FileCache) -> None:
    """What a loaded version reads never changes."""
    old, _old = cache.tree("digits", [_file()])
    _keep = _store(cache, _file(), b"model")
    new, _new = cache.tree("digits", [_file(version="b")])
    _kept = _store(cache, _file(version="b"), b"MODEL")
    assert (old / "1" / "model.onnx").read_bytes() == b"model"
    assert (new / "1" / "model.onnx").read_bytes() == b"MODEL"


def test_paths_follow_from_what_a_model_has(tmp_path: Path, cache: FileCache) -> None:
    """So they are the same after a restart, and other caches know the files again."""
    first, _first = cache.tree("digits", [_file()])
    again, _again = FileCache(tmp_path / "cache", limit_bytes=None).tree("digits", [_file()])
    other, _other = cache.tree("digits", [_file(version="b")])
    assert first == again != other


def test_times_follow_from_content(cache: FileCache) -> None:
    """A file that is downloaded again has the size and time that it had."""
    _first = _store(cache, _file(), b"model")
    _second = _store(cache, _file("2/model.onnx"), b"MODEL")
    blobs = {path.name: path.stat().st_mtime_ns for path in _blobs(cache)}
    assert blobs == {path.name: int(path.name[:15], 16) for path in _blobs(cache)}
    assert len(set(blobs.values())) == 2


def test_equal_contents_are_kept_once(cache: FileCache) -> None:
    """Two versions with the same weights."""
    _first = _store(cache, _file(), b"model")
    assert cache.adopt(_file("2/model.onnx"), hashlib.sha256(b"model").hexdigest()) is not None
    assert cache.adopt(_file("2/model.onnx"), hashlib.sha256(b"other").hexdigest()) is None
    assert len(_blobs(cache)) == 1


def test_evicts_least_recently_used(tmp_path: Path) -> None:
    """Until there is room for what comes."""
    cache = _limited(tmp_path, 15)
    for version in "abc":
        _store(cache, _file(version=version), f"mode{version}".encode())
    gc.collect()
    _use(cache, "a", 3), _use(cache, "b", 1), _use(cache, "c", 2)
    cache.make_room(10)
    assert [cache.content_of(_file(version=version)) is not None for version in "abc"] == [True, False, False]


def test_keeps_content_in_use(tmp_path: Path) -> None:
    """Even if the rest is not enough, and whichever process uses it."""
    cache, other = _limited(tmp_path, 10), _limited(tmp_path, 10)
    _store(cache, _file(version="a"), b"modea")
    held = other.content_of(_file(version="a"))
    gc.collect()
    cache.make_room(100)
    assert len(_blobs(cache)) == 1
    del held
    gc.collect()
    other.make_room(100)
    assert _blobs(cache) == []


def test_evicted_file_is_empty(tmp_path: Path) -> None:
    """A directory that has its name goes on having it."""
    cache = _limited(tmp_path, 5)
    folder, _hold = cache.tree("digits", [_file()])
    _store(cache, _file(), b"model")
    gc.collect()
    cache.make_room(5)
    assert (folder / "1" / "model.onnx").read_bytes() == b""


def test_processes_that_have_ended_use_nothing(tmp_path: Path) -> None:
    """A killed one has no lock any more."""
    cache, killed = _limited(tmp_path, 5), _limited(tmp_path, 5)
    hold = _store(killed, _file(), b"model")
    cache.make_room(5)
    assert cache.content_of(_file()) is not None
    _kill(killed)
    cache.make_room(5)
    assert cache.content_of(_file()) is None
    assert hold is not None


def test_network_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those lock only what is open for writing, such as no directory."""
    lock = fcntl.flock

    def lock_as_nfs(file: Any, how: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", lock_as_nfs)
    cache, killed = _limited(tmp_path, 5), _limited(tmp_path, 5)
    hold = _store(killed, _file(), b"model")
    _kill(killed)
    cache.make_room(5)
    assert (cache.content_of(_file()), hold is None) == (None, False)


def test_leftovers_are_deleted(tmp_path: Path, cache: FileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that nobody uses, and downloads of another boot; not contents, and not what is in use."""
    killed = FileCache(tmp_path / "cache", limit_bytes=None)
    gone, _gone = killed.tree("gone", [_file("gone")])
    kept, _kept = cache.tree("kept", [_file("kept")])
    _store(cache, _file(), b"model")
    cache.partial(_file("now")).touch()
    _kill(killed)
    monkeypatch.setattr("inferd.remote.cache._boot", lambda: "earlier")
    cache.partial(_file("then")).touch()
    monkeypatch.undo()
    cache.delete_leftovers()
    assert (gone.exists(), kept.exists()) == (False, True)
    assert [path.name for path in (tmp_path / "cache" / "partial").iterdir()] == [cache.partial(_file("now")).name]
    assert cache.content_of(_file()) is not None
    assert len(list((tmp_path / "cache" / "files").iterdir())) == 2


def test_download_stays_open_until_it_is_in_its_place(cache: FileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an error or the end of the process leaves can be continued by users that are not root."""
    partial = cache.partial(_file())

    def fail(*_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="quota"):
        _store(cache, _file(), b"model")
    assert partial.stat().st_mode & 0o200
    monkeypatch.undo()
    _hold = _store(cache, _file(), b"model")
    assert [path.stat().st_mode & 0o777 for path in _blobs(cache)] == [0o444]


def test_downloads_that_are_not_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave after a day, or when the disk is full; those that go on stay."""
    cache = FileCache(tmp_path / "cache", limit_bytes=None, epoch_s=lambda: 100 * 3600.0)
    for name, hour in (("old", 75), ("interrupted", 77), ("going on", 77)):
        partial = cache.partial(_file(name))
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        os.utime(partial, (hour * 3600.0,) * 2)
    cache.delete_leftovers()
    assert [cache.partial(_file(name)).exists() for name in ("old", "interrupted")] == [False, True]
    with cache.partial(_file("going on")).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=7, f_frsize=1))
        with pytest.raises(OSError, match="8 bytes are needed"):
            cache.make_room(8)
    assert [cache.partial(_file(name)).exists() for name in ("interrupted", "going on")] == [False, True]


def test_damaged_content_is_as_good_as_none(cache: FileCache) -> None:
    """Its size tells."""
    _store(cache, _file(), b"model")
    (blob,) = _blobs(cache)
    blob.chmod(0o644)
    blob.write_bytes(b"mod")
    assert cache.content_of(_file()) is None
    assert _blobs(cache) == []


def test_full_disk(cache: FileCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody uses leaves; then the error says what is missing."""
    _store(cache, _file(), b"model")
    gc.collect()
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=7, f_frsize=1))
    cache.make_room(7)
    with pytest.raises(OSError, match="8 bytes are needed, 7 are free") as error:
        cache.make_room(8)
    assert error.value.errno == errno.ENOSPC
    assert _blobs(cache) == []


def test_listings_are_kept(cache: FileCache) -> None:
    """By address."""
    assert cache.saved_listing("s3://bucket") is None
    cache.save_listing("s3://bucket", {"files": []})
    assert cache.saved_listing("s3://bucket") == {"files": []}


def test_listings_are_private(tmp_path: Path, cache: FileCache) -> None:
    """Signed addresses are in them."""
    cache.save_listing("https://host/m.onnx?signature=secret", {"files": []})
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "cache" / "listings").iterdir()] == [0o600]


def _blobs(cache: FileCache) -> list[Path]:
    return list((cache.partial(_file()).parents[1] / "blobs").iterdir())


def _use(cache: FileCache, version: str, at: int) -> None:
    blob = cache.partial(_file()).parents[1] / "blobs" / hashlib.sha256(f"mode{version}".encode()).hexdigest()
    os.utime(blob, ns=(at, blob.stat().st_mtime_ns))


def _kill(cache: FileCache) -> None:
    """Have the locks that the end of a process leaves: none."""
    os.close(cache._in_use._descriptor)
