"""The file watcher."""

import logging
import threading
from pathlib import Path

import pytest

from inferd.security.files import BadFileError, FileWatcher
from tests.fakes import FakeClock
from tests.patience import PATIENCE_S


@pytest.fixture
def reloads() -> list[str]:
    return []


def test_unchanged_files_are_not_reloaded(tmp_path: Path, reloads: list[str]) -> None:
    """Neither by the first poll nor by later ones."""
    file = tmp_path / "file"
    file.write_text("a")
    watcher = FileWatcher()
    watcher.watch("tokens", [file], lambda: reloads.append("changed"))
    watcher.poll()
    watcher.poll()
    assert reloads == []


def test_replaced_file_is_reloaded_once(tmp_path: Path, reloads: list[str]) -> None:
    """Also if the new one has the same size."""
    file, new = tmp_path / "file", tmp_path / "new"
    file.write_text("a")
    new.write_text("b")
    watcher = FileWatcher()
    watcher.watch("tokens", [file], lambda: reloads.append(file.read_text()))
    new.replace(file)
    for _ in range(4):
        watcher.poll()
    assert reloads == ["b"]


def test_waits_until_all_files_are_written(tmp_path: Path, reloads: list[str]) -> None:
    """A certificate is followed by its key: they are read once, together."""
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    watcher = FileWatcher()
    watcher.watch("tls", [certificate, key], lambda: reloads.append(certificate.read_text() + key.read_text()))
    certificate.write_text("a")
    watcher.poll()
    key.write_text("b")
    watcher.poll()
    assert reloads == []
    watcher.poll()
    assert reloads == ["ab"]


def test_undone_change_is_not_reloaded(tmp_path: Path, reloads: list[str]) -> None:
    """A file that was created and deleted again before two polls agreed."""
    file = tmp_path / "file"
    watcher = FileWatcher()
    watcher.watch("tokens", [file], lambda: reloads.append("changed"))
    file.write_text("a")
    watcher.poll()
    file.unlink()
    watcher.poll()
    watcher.poll()
    assert reloads == []


def test_follows_swapped_links(tmp_path: Path, reloads: list[str]) -> None:
    """A mounted Kubernetes Secret is a link through a folder link that is replaced."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(name)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "key").symlink_to("..data/key")
    watcher = FileWatcher()
    watcher.watch("tls", [tmp_path / "key"], lambda: reloads.append((tmp_path / "key").read_text()))
    (tmp_path / "..tmp").symlink_to("two")
    (tmp_path / "..tmp").replace(tmp_path / "..data")
    watcher.poll()
    watcher.poll()
    assert reloads == ["two"]


def test_reloads_created_and_deleted_files(tmp_path: Path, reloads: list[str]) -> None:
    """Deletion is a change too."""
    file = tmp_path / "file"
    watcher = FileWatcher()
    watcher.watch("tokens", [file], lambda: reloads.append("there" if file.exists() else "gone"))
    file.write_text("a")
    watcher.poll()
    watcher.poll()
    file.unlink()
    watcher.poll()
    watcher.poll()
    assert reloads == ["there", "gone"]


def test_rejected_file_is_logged_and_counted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is not read at each poll, and other files are still reloaded."""
    bad, good, reloads = tmp_path / "bad", tmp_path / "good", []

    def reject() -> None:
        raise BadFileError("tokens: expected a list, got a number")

    watcher = FileWatcher()
    watcher.watch("tokens", [bad], reject)
    watcher.watch("policy", [good], lambda: reloads.append("good"))
    bad.write_text("1")
    good.write_text("1")
    with caplog.at_level(logging.ERROR):
        for _ in range(4):
            watcher.poll()
    assert (reloads, dict(watcher.failures)) == (["good"], {"tokens": 1, "policy": 0})
    assert [record.reason for record in caplog.records] == ["tokens: expected a list, got a number"]


def test_rejected_files_are_retried(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The cause may disappear without a change; each reason is logged once, and the success."""
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


def test_thread_polls_until_stopped(tmp_path: Path) -> None:
    """In a separate thread."""
    file, noticed = tmp_path / "file", threading.Event()
    watcher = FileWatcher(period_s=0.001)
    watcher.watch("tokens", [file], noticed.set)
    watcher.start()
    file.write_text("a")
    assert noticed.wait(PATIENCE_S)
    watcher.stop()
    assert not any(thread.name == "inferd-files" for thread in threading.enumerate())


def test_unexpected_error_is_counted(tmp_path: Path, reloads: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Logged in one line without the error's text; other files are still reloaded."""

    def fail() -> None:
        raise KeyError("secret")

    file = tmp_path / "file"
    watcher = FileWatcher()
    watcher.watch("tokens", [file], fail)
    watcher.watch("policy", [file], lambda: reloads.append("changed"))
    file.write_text("a")
    with caplog.at_level(logging.ERROR):
        watcher.poll()
        watcher.poll()
    assert (watcher.failures["tokens"], reloads) == (1, ["changed"])
    (record,) = caplog.records
    assert (record.reason, record.exc_info) == ("unexpected KeyError", None)
