"""Which files a path, a folder and a glob name."""

import os
from pathlib import Path

import pytest

from inferd.batch.errors import BatchError, UsageError
from inferd.batch.storage import is_remote, list_files, open_input


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with files, some of which are no data."""
    for name in ("a.csv", "b.txt", "x/c.csv", "x/y/d.csv", "_inferd/e.csv", ".git/f.csv", "x/_g.csv", "x/.h.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["a.csv", "b.txt", "x/c.csv", "x/y/d.csv"]),
        ("a.csv", ["a.csv"]),
        ("*.csv", ["a.csv"]),
        ("*", ["a.csv", "b.txt", "x/c.csv", "x/y/d.csv"]),
        ("**", ["a.csv", "b.txt", "x/c.csv", "x/y/d.csv"]),
        ("**/*.csv", ["a.csv", "x/c.csv", "x/y/d.csv"]),
        ("x/*", ["x/c.csv", "x/y/d.csv"]),
        ("?.csv", ["a.csv"]),
        ("[ab].*", ["a.csv", "b.txt"]),
        ("_inferd", ["_inferd/e.csv"]),
        ("_inferd/*", ["_inferd/e.csv"]),
        ("x/_*", ["x/_g.csv"]),
        ("x/.h.csv", ["x/.h.csv"]),
        ("*.parquet", []),
    ],
)
def test_files_of_a_pattern(folder: Path, pattern: str, expected: list[str]) -> None:
    """Each once, by name; what is hidden only if it is named."""
    assert [os.path.relpath(each.address, folder) for each in list_files(f"{folder}/{pattern}")] == expected


def test_files_of_a_relative_pattern(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses are as the user writes them; the dot of the folder itself makes nothing visible."""
    monkeypatch.chdir(folder)
    assert [each.address for each in list_files("./x/*")] == ["./x/c.csv", "./x/y/d.csv"]
    assert [each.address for each in list_files("**/*.csv")] == ["a.csv", "x/c.csv", "x/y/d.csv"]


def test_names_with_wildcards_are_found(tmp_path: Path) -> None:
    """A file or a folder with such a name is meant before the pattern."""
    (tmp_path / "a[1]").mkdir()
    (tmp_path / "a[1]" / "b?.csv").write_text("x")
    assert len(list_files(str(tmp_path / "a[1]"))) == 1
    assert len(list_files(str(tmp_path / "a[1]" / "b?.csv"))) == 1


def test_version_differs_once_the_file_does(tmp_path: Path) -> None:
    """By its time, also when its size is the same."""
    path = tmp_path / "a.csv"
    path.write_text("one")
    [before] = list_files(str(path))
    os.utime(path, ns=(1, before_ns := path.stat().st_mtime_ns + 1))
    [after] = list_files(str(path))
    assert (before.size, before.version) != (after.size, after.version)
    assert after.version == str(before_ns)


def test_pipes_in_folders_are_no_data(tmp_path: Path) -> None:
    """Opening one would never end."""
    os.mkfifo(tmp_path / "pipe.csv")
    assert list_files(str(tmp_path)) == []


def test_missing_and_forbidden_files(tmp_path: Path) -> None:
    """The error names the file, without characters that could change a terminal."""
    with pytest.raises(UsageError, match=r"missing\.csv: there is no such file or directory"):
        list_files(str(tmp_path / "missing.csv"))
    with pytest.raises(BatchError, match=r"x\\x1b: there is no such file"):
        open_input(str(tmp_path / "x\x1b"))
    with pytest.raises(BatchError, match="Is a directory"):
        open_input(str(tmp_path))


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""

    def url_to_fs(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", url_to_fs)
    with pytest.raises(UsageError, match=r"s3:// needs the package s3fs: pip install 'inferd\[remote\]'"):
        list_files("s3://bucket/a.csv")


def test_unknown_protocol() -> None:
    """The error names it; passwords and signatures are not in it."""
    with pytest.raises(BatchError, match="nosuch://host/a: ") as raised:
        list_files("nosuch://user:secret@host/a?signature=secret")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("address", ["s3://bucket/a", "https://host/a.csv?x=1", "file:///a", "memory://a"])
def test_addresses_are_remote(address: str) -> None:
    """They have a protocol."""
    assert is_remote(address)


@pytest.mark.parametrize("path", ["/a/b", "a", "./a:b", "C:/a", "a b://c"])
def test_paths_are_not_remote(path: str) -> None:
    """They have none."""
    assert not is_remote(path)
