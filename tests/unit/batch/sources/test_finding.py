"""Which files a job reads."""

import os

import pytest

from inferd.batch.errors import BatchError, UsageError
from inferd.batch.sources.finding import find_sources


def _touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def _names(root, *patterns, given_format=None):
    found = find_sources([str(root / pattern) for pattern in patterns], given_format)
    return [os.path.relpath(file.address, root) for file in found], {file.format for file in found}


@pytest.mark.parametrize(
    ("name", "file_format"),
    [
        ("a.parquet", "parquet"),
        ("a.PQ", "parquet"),
        ("a.feather", "arrow"),
        ("a.csv", "csv"),
        ("a.csv.gz", "csv"),
        ("a.tsv", "csv"),
        ("a.ndjson.zst", "jsonl"),
        ("a.npy", "npy"),
        ("a.npz", "npz"),
        ("a.tgz", "tar"),
        ("a.jpg", "images"),
    ],
)
def test_suffix_tells_the_format(tmp_path, name, file_format):
    """Compressed ones too, in any case of letters."""
    _touch(tmp_path, name)
    assert _names(tmp_path, name) == ([name], {file_format})


def test_folders_and_globs_in_order_and_once(tmp_path):
    """Addresses come in the user's order, files of each by name; overlapping ones give a file once."""
    _touch(tmp_path, "b/2.csv", "b/1.csv", "b/_SUCCESS", "b/.crc", "a/1.csv", "a/c/1.csv")
    assert _names(tmp_path, "b", "*/*.csv", "a/**/*.csv")[0] == ["b/1.csv", "b/2.csv", "a/1.csv", "a/c/1.csv"]


def test_nothing_is_an_error(tmp_path):
    """The error names what the user wrote."""
    with pytest.raises(UsageError, match=r"\*\.csv: expected files, got none"):
        _names(tmp_path, "*.csv")
    with pytest.raises(BatchError, match=r"a\.csv: there is no such file"):
        _names(tmp_path, "a.csv")


def test_unknown_and_mixed_formats(tmp_path):
    """What a file is must be known, and the same for all."""
    _touch(tmp_path, "a.csv", "b.jsonl", "c.txt", "p/1.png", "p/2.csv")
    with pytest.raises(UsageError, match=r"c\.txt: expected a suffix of \.parquet"):
        _names(tmp_path, "c.txt")
    with pytest.raises(UsageError, match=r"expected files of one format, got csv \(.*a\.csv\) and jsonl \(.*b"):
        _names(tmp_path, "a.csv", "b.jsonl")
    with pytest.raises(UsageError, match=r"got images \(.*p\) and csv"):
        _names(tmp_path, "p")
    assert _names(tmp_path, "a.csv", "c.txt", given_format="csv") == (["a.csv", "c.txt"], {"csv"})


def test_pictures_of_an_address_are_one_source(tmp_path):
    """Its version differs once a picture is there, gone or another; other files do not matter."""
    _touch(tmp_path, "p/1.jpg", "p/deep/2.PNG", "p/readme.txt")
    (before,) = find_sources([str(tmp_path / "p")], None)
    assert before.address == str(tmp_path / "p")
    assert before.size == 2
    _touch(tmp_path, "p/other.txt")
    assert find_sources([str(tmp_path / "p")], None) == (before,)
    _touch(tmp_path, "p/3.jpg")
    assert find_sources([str(tmp_path / "p")], None)[0].version != before.version
    with pytest.raises(UsageError, match=r"expected pictures"):
        find_sources([str(tmp_path / "p" / "readme.txt")], "images")


def test_folders_of_a_path_give_columns(tmp_path):
    """Those below the folder or the first wildcard; integers where no text is, texts decoded, Hive's null as null."""
    _touch(
        tmp_path,
        "d=0/year=2026/place=K%C3%B6ln/a.parquet",
        "d=0/year=2025/place=__HIVE_DEFAULT_PARTITION__/a.parquet",
    )
    expected = [{"year": 2025, "place": None}, {"year": 2026, "place": "Köln"}]
    for pattern in ("d=0", "d=0/year=*/*/*.parquet", "d=0/**/*.parquet"):
        assert [file.partition for file in find_sources([str(tmp_path / pattern)], None)] == expected
    one = find_sources([str(tmp_path / "d=0/year=2026/place=K%C3%B6ln/a.parquet")], None)
    assert one[0].partition == {}


def test_all_files_have_the_same_columns(tmp_path):
    """One text makes all texts, and what a path does not say is null."""
    _touch(tmp_path, "k=1/a.csv", "k=b/a.csv", "n=3/a.csv")
    found = [file.partition for file in find_sources([str(tmp_path)], None)]
    assert found == [{"k": "1", "n": None}, {"k": "b", "n": None}, {"k": None, "n": 3}]
