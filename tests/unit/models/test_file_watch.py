"""Which versions have changed and are completely written: decisions with a fake clock, fingerprints of real files."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from inferd.models.file_watch import Changes, FileWatch, Fingerprint, VersionKey, fingerprint_of
from inferd.models.model_source import ModelSource
from inferd.models.repository import resolve
from tests.fakes import FakeClock

ONE, TWO = ("ranker", "1"), ("ranker", "2")
NOTHING = Changes(settled={}, gone=frozenset())


class Watched:
    """A watch with a poll every ``interval_s``."""

    def __init__(self, interval_s: float = 15.0, still_s: float = 1.0) -> None:
        self.clock = FakeClock()
        self._watch = FileWatch(still_s=still_s, clock=self.clock)
        self._interval_s = interval_s

    def poll(self, listing: Mapping[VersionKey, Fingerprint]) -> Changes:
        changes = self._watch.poll(listing)
        self.clock.advance(self._interval_s)
        return changes


def files(**sizes: int) -> Fingerprint:
    return frozenset((name, size, 0, 0) for name, size in sizes.items())


def settled(*versions: VersionKey, of: Fingerprint) -> Changes:
    return Changes(settled=dict.fromkeys(versions, of), gone=frozenset())


def test_reports_version_that_is_the_same_in_two_polls_once() -> None:
    watch = Watched()
    listing = {ONE: files(model=5)}
    assert [watch.poll(listing) for _ in range(4)] == [NOTHING, settled(ONE, of=listing[ONE]), NOTHING, NOTHING]


def test_starts_over_with_each_change() -> None:
    watch = Watched()
    for size in range(5):
        assert watch.poll({ONE: files(model=size)}) == NOTHING
    assert watch.poll({ONE: files(model=4, weights=1)}) == NOTHING
    assert watch.poll({ONE: files(model=4, weights=1)}) == settled(ONE, of=files(model=4, weights=1))


def test_versions_settle_independently() -> None:
    watch = Watched()
    watch.poll({ONE: files(model=1), TWO: files(model=1)})
    assert watch.poll({ONE: files(model=1), TWO: files(model=2)}) == settled(ONE, of=files(model=1))
    assert watch.poll({ONE: files(model=1), TWO: files(model=2)}) == settled(TWO, of=files(model=2))


def test_reports_change_of_known_version() -> None:
    watch = Watched()
    for _ in range(2):
        watch.poll({ONE: files(model=1)})
    assert watch.poll({ONE: files(model=2)}) == NOTHING
    assert watch.poll({ONE: files(model=2)}) == settled(ONE, of=files(model=2))


def test_reports_nothing_when_change_is_taken_back() -> None:
    """Also if it is made again later: that starts over."""
    watch = Watched()
    old, new = {ONE: files(model=1)}, {ONE: files(model=2)}
    for listing in (old, old):
        watch.poll(listing)
    assert [watch.poll(listing) for listing in (new, old, new)] == [NOTHING] * 3
    assert watch.poll(new) == settled(ONE, of=files(model=2))


def test_deletion_takes_two_polls_as_well() -> None:
    watch = Watched()
    for _ in range(2):
        watch.poll({ONE: files(model=1)})
    assert watch.poll({}) == NOTHING
    assert watch.poll({}) == Changes(settled={}, gone=frozenset({ONE}))
    assert watch.poll({}) == NOTHING


def test_version_that_is_missing_for_one_poll_is_not_gone() -> None:
    """As while a directory is replaced by another."""
    watch = Watched()
    listing = {ONE: files(model=1)}
    for _ in range(2):
        watch.poll(listing)
    assert [watch.poll(each) for each in ({}, listing, {}, listing)] == [NOTHING] * 4


def test_new_version_that_disappears_is_never_reported() -> None:
    watch = Watched()
    assert [watch.poll(each) for each in ({ONE: files(model=1)}, {}, {}, {})] == [NOTHING] * 4
    assert watch.poll({ONE: files(model=1)}) == NOTHING


def test_polls_in_quick_succession_decide_nothing() -> None:
    """A file may be written twice within the resolution of its times."""
    watch = Watched(interval_s=0.3, still_s=1.0)
    listing = {ONE: files(model=1)}
    assert [watch.poll(listing) for _ in range(4)] == [NOTHING] * 4
    assert watch.poll(listing) == settled(ONE, of=files(model=1))


def test_times_of_files_are_compared_with_each_other_only() -> None:
    """The wall clock may jump: a file from the future settles, and so does one that is older than the last."""
    watch = Watched()
    for time_ns in (2**62, 5, -1):
        listing = {ONE: frozenset({("model.onnx", 1, time_ns, time_ns)})}
        assert watch.poll(listing) == NOTHING
        assert watch.poll(listing) == settled(ONE, of=listing[ONE])


# Fingerprints of real files.


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
    monkeypatch.setattr("inferd.models.file_watch._MOST_FILES", 3)
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
