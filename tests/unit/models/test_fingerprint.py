"""Fingerprints of real files, which differ once one of them does."""

import os
from pathlib import Path

import pytest

from inferd.models.fingerprint import Fingerprint, fingerprint_of
from inferd.models.model_source import ModelSource
from inferd.models.repository import resolve


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The directory of a model with one version."""
    write(tmp_path / "ranker/1/model.onnx", "model")
    write(tmp_path / "ranker/1/weights.bin", "weights")
    write(tmp_path / "ranker/model.yaml", "{}")
    return tmp_path / "ranker"


def test_every_change_of_a_file_changes_fingerprint(model: Path) -> None:
    """In the version's directory and below, and in that of the model: its settings, labels, inputs for warm-up."""
    seen = {fingerprint(model)}
    for name in ("1/weights.bin", "1/sub/folder/more.bin", "model.yaml", "config.pbtxt", "labels.txt", "warmup/input"):
        write(model / name, "new")
        seen.add(fingerprint(model))
        (model / name).unlink()
        seen.add(fingerprint(model))
        write(model / name, "again")
        seen.add(fingerprint(model))
    assert len(seen) == 1 + 6 * 3 - 4  # those new at first are as unknown after they are deleted
    assert fingerprint(model) == fingerprint(model)


def test_write_in_place_that_keeps_size_and_time_changes_fingerprint(model: Path) -> None:
    """As a copy that preserves times does."""
    file = model / "1/model.onnx"
    before, times = fingerprint(model), file.stat()
    wait_for_next_tick(model)
    with file.open("r+") as opened:
        opened.write("M")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_mtime_ns == times.st_mtime_ns
    assert fingerprint(model) != before


def test_renamed_file_changes_fingerprint(model: Path) -> None:
    """Even one with the size and the time of the file whose place it takes."""
    file, other = model / "1/model.onnx", write(model.parent / "other", "MODEL")
    before, times = fingerprint(model), file.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    wait_for_next_tick(model)
    other.rename(file)
    assert fingerprint(model) != before


def test_permission_given_later_changes_fingerprint(model: Path) -> None:
    """A load that failed for the lack of it is worth another attempt."""
    (model / "1/model.onnx").chmod(0)
    before = fingerprint(model)
    wait_for_next_tick(model)
    (model / "1/model.onnx").chmod(0o644)
    assert fingerprint(model) != before


def test_reading_and_hidden_files_do_not_change_fingerprint(model: Path) -> None:
    """Uploads have hidden names before they are renamed."""
    before = fingerprint(model)
    (model / "1/model.onnx").read_bytes()
    write(model / "1/.model.onnx.Xy12", "half")
    write(model / ".git/index", "")
    assert fingerprint(model) == before


def test_swapped_links_of_a_config_map_change_fingerprint(tmp_path: Path) -> None:
    """The kubelet writes a hidden directory, and renames a link to it in place of the old one."""
    folder = tmp_path / "ranker/1"
    for number in (1, 2):
        write(folder / f"..{number}/model.onnx", "same")
    (folder / "..data").symlink_to("..1")
    (folder / "model.onnx").symlink_to("..data/model.onnx")
    before = fingerprint(tmp_path / "ranker")
    assert len(before) == 1
    wait_for_next_tick(tmp_path)
    write(folder / "..2/model.onnx", "size")
    assert fingerprint(tmp_path / "ranker") == before
    (folder / "..new").symlink_to("..2")
    (folder / "..new").rename(folder / "..data")
    assert fingerprint(tmp_path / "ranker") != before


def test_directory_replaced_by_link_changes_fingerprint(model: Path) -> None:
    wait_for_next_tick(model)
    other = write(model.parent / "elsewhere/model.onnx", "model").parent
    write(other / "weights.bin", "weights")
    before = fingerprint(model)
    (model / "1").rename(model / "old")
    (model / "1").symlink_to(other)
    assert fingerprint(model) != before


def test_unreadable_entries_are_part_of_fingerprint(model: Path) -> None:
    """Dangling links, and links in a circle; a link to a directory above ends there."""
    before = fingerprint(model)
    (model / "1/dangling").symlink_to("nowhere")
    (model / "1/circle").symlink_to("circle")
    (model / "1/above").symlink_to("..")
    found = fingerprint(model)
    assert found > before
    assert {Path(name).name for name, size, *_ in found if size < 0} == {"dangling", "circle"}
    assert fingerprint(model) == found


def test_directory_that_cannot_be_listed_is_part_of_fingerprint(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not as if its files were deleted."""
    before = fingerprint(model)
    source = source_of(model)
    iterate = Path.iterdir

    def fail(path: Path) -> object:
        if path.name == "1":
            raise PermissionError(13, "Permission denied")
        return iterate(path)

    monkeypatch.setattr(Path, "iterdir", fail)
    found = fingerprint_of(source)
    assert found != before
    assert str(model / "1") in {name for name, *_ in found}


def test_number_of_files_is_limited(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link may lead to a whole disk."""
    monkeypatch.setattr("inferd.models.fingerprint._MAX_FILES", 3)
    for number in range(5):
        write(model / f"1/{number}", "")
    assert len(fingerprint(model)) <= 3


def test_models_in_one_directory_are_told_apart_by_name(tmp_path: Path) -> None:
    """Their weights may have any name, but usually have the model's at the beginning."""
    for name in ("a.onnx", "a.onnx.data", "b.onnx", "b.weights"):
        write(tmp_path / name, "")
    (only,) = resolve([tmp_path / "a.onnx"])
    assert names(fingerprint_of(only)) == {"a.onnx", "a.onnx.data"}
    (tmp_path / "b.onnx").unlink()
    assert names(fingerprint_of(only)) == {"a.onnx", "a.onnx.data", "b.weights"}


def source_of(model: Path) -> ModelSource:
    (source,) = resolve([model])
    return source


def fingerprint(model: Path) -> Fingerprint:
    return fingerprint_of(source_of(model))


def names(found: Fingerprint) -> set[str]:
    return {Path(name).name for name, *_ in found}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def wait_for_next_tick(folder: Path) -> None:
    """Wait until files that are written from now on have later times: their resolution is a few milliseconds."""
    file = folder / ".tick"
    file.touch()
    first = file.stat().st_ctime_ns
    while file.stat().st_ctime_ns == first:
        file.touch()
