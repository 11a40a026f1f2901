"""Folders and archives of pictures as rows."""

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import fsspec
import pyarrow as pa
import pytest

from inferd.batch.errors import BatchError, UnreadableFileError
from inferd.batch.ports import SourceFile
from inferd.batch.sources import images
from inferd.batch.sources.finding import find_sources
from inferd.batch.sources.images import ImagesReader
from inferd.batch.sources.tar import TarReader
from tests.unit.batch.sources.files import rows_of, source

CONTENTS = {f"{row:02}.jpg": bytes([row]) * (100 + 512 * (row % 3)) for row in range(20)}


def folder(path: Path) -> SourceFile:
    """Return a folder of pictures, and what is none."""
    for name, content in CONTENTS.items():
        place = path / ("a" if name < "05" else "b") / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    (path / "b" / "notes.md").write_text("no picture")
    [file] = find_sources([str(path)], None)
    return file


def test_folder_reads_pictures_by_address(tmp_path: Path) -> None:
    """The rows of a folder are its pictures with their addresses, in any range."""
    file = folder(tmp_path)
    reader = ImagesReader()
    assert reader.spans(file) == [20]
    assert reader.schema(file) == pa.schema([("path", pa.string()), ("image", pa.binary())])
    values, errors = rows_of(reader, file, start=3, stop=20, rows=6)
    assert list(values) == list(range(3, 20))
    assert values[4] == (str(tmp_path / "a/04.jpg"), CONTENTS["04.jpg"])
    assert values[5] == (str(tmp_path / "b/05.jpg"), CONTENTS["05.jpg"])
    assert not errors


def test_unwanted_pictures_are_not_read(tmp_path: Path) -> None:
    """Who asks for addresses only has no file opened."""
    file = folder(tmp_path)
    ImagesReader().spans(file)
    (tmp_path / "a/00.jpg").unlink()
    values, _ = rows_of(ImagesReader(), file, pa.schema([("path", pa.string())]), 0, 2)
    assert values[0] == (str(tmp_path / "a/00.jpg"),)


def test_missing_picture_ends_job(tmp_path: Path) -> None:
    """Storage that loses a picture is no fault of a row, and a folder that has changed is not read."""
    file = folder(tmp_path)
    ImagesReader().spans(file)
    (tmp_path / "a/00.jpg").unlink()
    with pytest.raises(BatchError, match=r"00\.jpg: there is no such file"):
        rows_of(ImagesReader(), file)
    [changed] = find_sources([str(tmp_path)], None)
    (tmp_path / "a/01.jpg").unlink()
    with pytest.raises(BatchError, match="have changed"):
        ImagesReader().spans(changed)


def test_chunks_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk ends when it has its bytes; a picture beyond all measure is an error, and is not read."""
    monkeypatch.setattr(images, "_CHUNK_BYTES", 1500)
    monkeypatch.setattr(images, "MOST_BYTES", 1000)
    file = folder(tmp_path)
    reader = ImagesReader()
    sizes = [len(chunk.rows) for chunk in reader.read(file, reader.schema(file), 0, 20, 100)]
    assert sizes == [5, 5, 4]
    values, errors = rows_of(reader, file)
    assert list(errors) == [row for row in range(20) if row % 3 == 2]
    assert errors[2] == f"expected a picture of at most 0 MiB, got {tmp_path / 'a/02.jpg'}"
    assert len(values) == 20 - len(errors)


def archive(path: Path, contents: Mapping[str, bytes], *, compressed: bool = False) -> bytes:
    """Write an archive, and return its bytes."""
    with path.open("wb") as file:
        _write_archive(file, contents, compressed=compressed)
    return path.read_bytes()


def _write_archive(file: BinaryIO, contents: Mapping[str, bytes], *, compressed: bool) -> None:
    with tarfile.open(fileobj=file, mode="w:gz" if compressed else "w") as made:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
        made.addfile(tarfile.TarInfo("a_folder.jpg/"))
        link = tarfile.TarInfo("link.jpg")
        link.type = tarfile.SYMTYPE
        link.linkname = "00.jpg"
        made.addfile(link)


@pytest.mark.parametrize("compressed", [False, True])
def test_archive_reads_pictures_in_order(tmp_path: Path, *, compressed: bool) -> None:
    """The rows of an archive are its pictures, in parts that follow each other or not; nothing else in it is."""
    path = tmp_path / "a.tar"
    archive(path, {"notes.txt": b"x", "._00.jpg": b"x", "n" * 150 + ".png": b"long", **CONTENTS}, compressed=compressed)
    file, reader = source(path, "tar"), TarReader()
    wanted = [("n" * 150 + ".png", b"long"), *CONTENTS.items()]
    assert reader.spans(file) == [21]
    for start, stop in ((0, 5), (5, 6), (9, 21), (2, 4)):
        values, errors = rows_of(reader, file, start=start, stop=stop, rows=2)
        assert values == {row: wanted[row] for row in range(start, stop)}
        assert not errors
    values, _ = rows_of(reader, file, pa.schema([("path", pa.string())]))
    assert [name for (name,) in values.values()] == [name for name, _ in wanted]


def test_archive_without_pictures_has_no_rows(tmp_path: Path) -> None:
    """An archive may be empty; what is no archive is an error of the file."""
    path = tmp_path / "a.tar"
    archive(path, {})
    assert TarReader().spans(source(path, "tar")) == [0]
    for content in (b"", b"no archive" * 100):
        path = tmp_path / f"{len(content)}.tar"
        path.write_bytes(content)
        with pytest.raises(UnreadableFileError, match="expected an archive"):
            TarReader().spans(source(path, "tar"))


@pytest.mark.parametrize("damage", ["cut in content", "cut in header", "cut between", "header", "cut compressed"])
def test_damaged_archive_loses_what_comes_after(tmp_path: Path, damage: str) -> None:
    """The pictures before the damage are read, and what is lost is an error."""
    path = tmp_path / "a.tar"
    content = bytearray(archive(path, CONTENTS, compressed=damage == "cut compressed"))
    tenth = content.find(b"10.jpg")
    match damage:
        case "cut in content":
            del content[tenth + 600 :]
        case "cut in header":
            del content[tenth + 100 :]
        case "cut between":
            del content[tenth:]
        case "header":
            content[tenth + 100] ^= 0xFF
        case "cut compressed":
            del content[len(content) // 2 :]
    path.write_bytes(content)
    file = source(path, "tar")
    values, errors = rows_of(TarReader(), file, rows=3)
    wanted = list(CONTENTS.items())
    assert 5 <= len(values) < 20
    assert all(value == wanted[row] for row, value in values.items())
    assert list(errors) == list(range(len(values), sum(TarReader().spans(file))))
    assert all(text.startswith("damaged, with what comes after it: ") for text in errors.values())


@pytest.mark.parametrize("place", ["content", "checksum"])
def test_archive_with_wrong_content_is_not_read(tmp_path: Path, place: str) -> None:
    """Compressed content that is not what was written is seen before the first row is answered."""
    path = tmp_path / "a.tar"
    # Stored as it is: only the checksum tells.
    content = bytearray(gzip.compress(archive(path, CONTENTS), 0))
    content[-6 if place == "checksum" else content.find(b"10.jpg") + 700] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match="CRC"):
        TarReader().spans(source(path, "tar"))


def test_pictures_in_remote_storage_keep_their_order() -> None:
    """Pictures that are fetched several at a time, and archives, have the same rows as here."""
    storage = fsspec.filesystem("memory")
    for name, content in CONTENTS.items():
        storage.pipe(f"/remote_pictures/{name}", content)
    [file] = find_sources(["memory://remote_pictures"], None)
    values, errors = rows_of(ImagesReader(), file, start=1)
    assert [content for _, content in values.values()] == list(CONTENTS.values())[1:]
    assert not errors
    buffer = io.BytesIO()
    _write_archive(buffer, CONTENTS, compressed=True)
    storage.pipe("/remote_archive/a.tar.gz", buffer.getvalue())
    [file] = find_sources(["memory://remote_archive/a.tar.gz"], None)
    values, errors = rows_of(TarReader(), file, start=3)
    assert list(values.values()) == list(CONTENTS.items())[3:]
    assert not errors
