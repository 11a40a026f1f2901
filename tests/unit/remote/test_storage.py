"""What fsspec says of files, and what of it is taken."""

import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from inferd.remote.storage import FsspecStorage, RemoteFile, StorageError, remote_file, shown, usable

_MONDAY = datetime(2026, 11, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("info", "version", "modified", "sha256"),
    [
        ({"ETag": '"5d41"', "LastModified": _MONDAY}, '"5d41"', _MONDAY.timestamp(), ""),
        ({"etag": "CJ=", "md5Hash": "XUFA", "updated": "2026-11-02T00:00:00Z"}, "CJ=", _MONDAY.timestamp(), ""),
        ({"etag": "0x8D", "last_modified": _MONDAY}, "0x8D", _MONDAY.timestamp(), ""),
        ({"blob_id": "af3", "lfs": SimpleNamespace(sha256="e" * 64)}, "af3", 0.0, "e" * 64),
        ({"blob_id": "af3", "lfs": None}, "af3", 0.0, ""),
        ({"Last-Modified": "Mon, 02 Nov 2026 00:00:00 GMT"}, "Mon, 02 Nov 2026 00:00:00 GMT", _MONDAY.timestamp(), ""),
        ({}, "", 0.0, ""),
    ],
    ids=["s3", "gs", "az", "hf", "hf small", "https without ETag", "nothing"],
)
def test_properties_of_files(info: dict, version: str, modified: float, sha256: str) -> None:
    """Each kind of storage has other words for them."""
    found = remote_file("model.onnx", "x://y/model.onnx", {"size": 3, **info})
    assert (found.version, found.modified, found.sha256, found.size) == (version, modified, sha256, 3)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a//x", "/x", "./x", ".hidden/x", "a\0b", "a/" + "b" * 256, ""])
def test_names_that_would_lead_elsewhere_are_left_out(name: str) -> None:
    """Object stores allow any name."""
    assert usable([_file(name), _file("a/b.onnx")]) == [_file("a/b.onnx")]


def test_objects_in_the_place_of_directories_are_left_out() -> None:
    """Both may be there in an object store."""
    assert usable([_file("a"), _file("a/b")]) == [_file("a/b")]


def test_secrets_are_not_shown() -> None:
    """Signed addresses have them in the query, others before the host."""
    assert shown("https://me:secret@host:1/m.onnx?X-Amz-Signature=secret#x") == "https://host:1/m.onnx"


def test_secrets_are_not_in_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries repeat the address, or what they take for a part of it."""
    storage = FsspecStorage("s3://me:secret@bucket/models?signature=secret", timeout_s=1)

    def fail() -> None:
        raise ValueError('Invalid bucket name "me:secret@bucket" in s3://me:secret@bucket/models?signature=secret')

    monkeypatch.setattr(storage, "_open", fail)
    with pytest.raises(StorageError) as error:
        storage.list()
    expected = 's3://bucket/models: ValueError: Invalid bucket name "bucket" in s3://bucket/models'
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [("az://container/models", "adlfs", "azure"), ("s3://bucket/models", "s3fs", "remote")],
)
def test_missing_package(monkeypatch: pytest.MonkeyPatch, url: str, package: str, extra: str) -> None:
    """The error says how to install it."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StorageError, match=rf":// needs the package {package}: pip install 'inferd\[{extra}\]'"):
        FsspecStorage(url, timeout_s=1).list()


@pytest.fixture
def files() -> MemoryFileSystem:
    """Files of fsspec in memory, at memory://models."""
    system = MemoryFileSystem()
    system.store.clear()
    system.pipe({"/models/a/1/model.onnx": b"model", "/models/a/model.yaml": b"{}", "/models/b.onnx": b"other"})
    return system


def test_lists_all_below_an_address(files: MemoryFileSystem) -> None:
    """By names relative to it."""
    listing = FsspecStorage("memory://models", timeout_s=1).list()
    assert [(file.name, file.size) for file in listing.files] == [
        ("a/1/model.onnx", 5),
        ("a/model.yaml", 2),
        ("b.onnx", 5),
    ]
    assert (listing.name, listing.only) == ("models", "")


def test_file_address_has_neighbors(files: MemoryFileSystem) -> None:
    """Its settings may be among them."""
    files.pipe({"/models/model.yaml": b"{}"})
    listing = FsspecStorage("memory://models/b.onnx", timeout_s=1).list()
    assert ({file.name for file in listing.files}, listing.only) == ({"b.onnx", "model.yaml"}, "b.onnx")


@pytest.mark.parametrize(("protocol", "name"), [("s3", "b@main"), ("hf", "b")])
def test_name_of_folder(files: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, protocol: str, name: str) -> None:
    """Only at Hugging Face a revision follows it."""
    files.pipe({"/a/b@main/1/model.onnx": b"model"})
    storage = FsspecStorage(f"{protocol}://a/b@main", timeout_s=1)
    monkeypatch.setattr(storage, "_open", lambda: (files, "/a/b@main"))
    assert storage.list().name == name


def test_reads_parts(files: MemoryFileSystem) -> None:
    """Of a file that must not be shorter."""
    storage = FsspecStorage("memory://models", timeout_s=1)
    model = storage.list().files[0]
    assert storage.read(model, 1, 3) == b"od"
    files.pipe({"/models/a/1/model.onnx": b"mo"})
    with pytest.raises(StorageError, match=r"a/1/model.onnx: expected 4 bytes from 1 on, got 1"):
        storage.read(model, 1, 5)


def test_nothing_there(files: MemoryFileSystem) -> None:
    """An empty listing is one."""
    assert FsspecStorage("memory://other", timeout_s=1).list().files == ()


def _file(name: str) -> RemoteFile:
    return RemoteFile(name=name, address=f"x://y/{name}", size=1, version="1")
