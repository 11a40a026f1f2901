"""Changed files are noticed, and bad ones change nothing."""

import logging
import threading
from pathlib import Path

import pytest

from inferd.security.files import BadFileError, FileWatcher
from tests.fakes import FakeClock
from tests.patience import PATIENCE_S


@pytest.fixture
def told() -> list[str]:
    return []


def test_nothing_is_told_of_files_that_stay_as_they_are(tmp_path: Path, told: list[str]) -> None:
    """Neither the first look nor later ones count as a change."""
    file = tmp_path / "file"
    file.write_text("a")
    watcher = FileWatcher()
    watcher.watch("tokens", [file], lambda: told.append("changed"))
    watcher.poll()
    watcher.poll()
    assert told == []


def test_a_new_content_of_the_same_size_is_told_once(tmp_path: Path, told: list[str]) -> None:
    """Written in place or put in place: both count."""
    file, new = tmp_path / "file", tmp_path / "new"
    file.write_text("a")
    new.write_text("b")
    watcher = FileWatcher()
    watcher.watch("tokens", [file], lambda: told.append(file.read_text()))
    new.replace(file)
    for _ in range(4):
        watcher.poll()
    assert told == ["b"]


def test_files_that_are_still_being_written_are_left_alone(tmp_path: Path, told: list[str]) -> None:
    """A certificate comes and its key a moment later: they are read once, together."""
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    watcher = FileWatcher()
    watcher.watch("tls", [certificate, key], lambda: told.append(certificate.read_text() + key.read_text()))
    certificate.write_text("a")
    watcher.poll()
    key.write_text("b")
    watcher.poll()
    assert told == []
    watcher.poll()
    assert told == ["ab"]


def test_a_change_that_is_taken_back_is_none(tmp_path: Path, told: list[str]) -> None:
    """Nothing is read of a file that came and went between two looks that count."""
    file = tmp_path / "file"
    watcher = FileWatcher()
    watcher.watch("tokens", [file], lambda: told.append("changed"))
    file.write_text("a")
    watcher.poll()
    file.unlink()
    watcher.poll()
    watcher.poll()
    assert told == []


def test_swapped_links_of_kubernetes_are_told(tmp_path: Path, told: list[str]) -> None:
    """A mounted Secret is a link to a link of a folder that is replaced; the new files may be as old as the others."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(name)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "key").symlink_to("..data/key")
    watcher = FileWatcher()
    watcher.watch("tls", [tmp_path / "key"], lambda: told.append((tmp_path / "key").read_text()))
    (tmp_path / "..tmp").symlink_to("two")
    (tmp_path / "..tmp").replace(tmp_path / "..data")
    watcher.poll()
    watcher.poll()
    assert told == ["two"]


def test_a_file_that_comes_and_goes_is_told(tmp_path: Path, told: list[str]) -> None:
    """It may be missing for a moment while it is replaced."""
    file = tmp_path / "file"
    watcher = FileWatcher()
    watcher.watch("tokens", [file], lambda: told.append("there" if file.exists() else "gone"))
    file.write_text("a")
    watcher.poll()
    watcher.poll()
    file.unlink()
    watcher.poll()
    watcher.poll()
    assert told == ["there", "gone"]


def test_a_bad_file_is_logged_and_counted_once_per_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is not read again and again, and others are still told of theirs."""
    bad, good, told = tmp_path / "bad", tmp_path / "good", []

    def refuse() -> None:
        raise BadFileError("tokens: expected a list, got a number")

    watcher = FileWatcher()
    watcher.watch("tokens", [bad], refuse)
    watcher.watch("policy", [good], lambda: told.append("good"))
    bad.write_text("1")
    good.write_text("1")
    with caplog.at_level(logging.ERROR):
        for _ in range(4):
            watcher.poll()
    assert (told, dict(watcher.failures)) == (["good"], {"tokens": 1, "policy": 0})
    assert [record.reason for record in caplog.records] == ["tokens: expected a list, got a number"]


def test_what_was_refused_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What stood in the way may be gone without a change of the file; the log has each reason and the end once."""
    file, clock = tmp_path / "file", FakeClock()
    outcomes = [OSError("busy"), OSError("busy"), BadFileError("bad"), None]
    watcher = FileWatcher(clock=clock)

    def reload() -> None:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    watcher.watch("tokens", [file], reload)
    file.write_text("a")
    with caplog.at_level(logging.INFO):
        for left in (3, 2, 1, 0, 0):
            for _ in range(4):
                watcher.poll()
            assert len(outcomes) == left
            clock.advance(5)
    assert [getattr(record, "reason", "") for record in caplog.records] == ["busy", "bad", ""]
    assert watcher.failures == {"tokens": 2}


def test_the_thread_looks_by_itself_until_it_is_stopped(tmp_path: Path) -> None:
    """As started by the server."""
    file, noticed = tmp_path / "file", threading.Event()
    watcher = FileWatcher(period_s=0.001)
    watcher.watch("tokens", [file], noticed.set)
    watcher.start()
    file.write_text("a")
    assert noticed.wait(PATIENCE_S)
    watcher.stop()
    assert not any(thread.name == "inferd-files" for thread in threading.enumerate())


def test_a_reload_that_fails_in_any_way_is_counted(
    tmp_path: Path, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """And told in one line; the others are looked at all the same."""

    def fail() -> None:
        raise KeyError("secret")

    file = tmp_path / "file"
    watcher = FileWatcher()
    watcher.watch("tokens", [file], fail)
    watcher.watch("policy", [file], lambda: told.append("changed"))
    file.write_text("a")
    with caplog.at_level(logging.ERROR):
        watcher.poll()
        watcher.poll()
    assert (watcher.failures["tokens"], told) == (1, ["changed"])
    (record,) = caplog.records
    assert (record.reason, record.exc_info) == ("unexpected KeyError", None)
