"""Which models poll mode finds changed, on real files with clocks that the test advances."""

import errno
import time
from pathlib import Path

import pytest

from inferd.config.settings import Settings
from inferd.models.catalog import Catalog
from inferd.models.poller import Poller
from tests.fakes import FakeClock
from tests.unit.models.model_files import touch

INTERVAL_S = 15.0


class Fixture:
    def __init__(self, root: Path, *, started_after_s: float = 1000.0) -> None:
        self.clock = FakeClock()
        catalog = Catalog(Settings(), [root])
        self.poller = Poller(
            catalog,
            interval_s=INTERVAL_S,
            clock=self.clock,
            # Files have real times of change.
            wall_clock=lambda: time.time() + started_after_s,
        )
        self.at_start = names(self.poller.complete_at_start(catalog.scan()))

    def poll(self) -> dict[str, list[str]]:
        self.clock.advance(INTERVAL_S)
        return names(self.poller.poll())


def names(found) -> dict[str, list[str]]:
    return {name: sorted(versions) for name, versions in found.items()}


@pytest.fixture
def root(tmp_path) -> Path:
    return touch(tmp_path, "a/1/model.onnx", "b/1/model.onnx")


def test_old_files_are_complete_at_start(root):
    """They are not reported again."""
    fixture = Fixture(root)
    assert fixture.at_start == {"a": ["1"], "b": ["1"]}
    assert fixture.poll() == fixture.poll() == {}


def test_new_files_wait_for_two_looks(root):
    """At start as later."""
    fixture = Fixture(root, started_after_s=0.0)
    assert fixture.at_start == {}
    assert fixture.poll() == {}
    assert fixture.poll() == {"a": ["1"], "b": ["1"]}


def test_new_version(root):
    """The model is reported with all its complete versions, once the new one has stood still."""
    fixture = Fixture(root)
    touch(root, "a/2/model.onnx")
    assert fixture.poll() == {}
    (root / "a/2/model.onnx").write_bytes(b"more")
    assert fixture.poll() == {}
    assert fixture.poll() == {"a": ["1", "2"]}
    assert fixture.poll() == {}


def test_incomplete_version_beside_a_change(root):
    """It is not among those to choose from."""
    fixture = Fixture(root)
    touch(root, "a/2/model.onnx")
    assert fixture.poll() == {}
    touch(root, "a/3/model.onnx")
    assert fixture.poll() == {"a": ["1", "2"]}
    assert fixture.poll() == {"a": ["1", "2", "3"]}


def test_deleted_version_and_model(root):
    """After two looks, as it may be replaced."""
    fixture = Fixture(root)
    touch(root, "a/2/model.onnx")
    fixture.poll()
    fixture.poll()
    (root / "a/1/model.onnx").unlink()
    (root / "b/1/model.onnx").unlink()
    assert fixture.poll() == {}
    assert fixture.poll() == {"a": ["2"], "b": []}


@pytest.mark.parametrize("unreadable", ["", "a", "a/1"])
def test_unreadable_directory_is_not_empty(root, monkeypatch, unreadable):
    """As while a network file system does not answer: its versions are not gone, only changed at most."""
    fixture = Fixture(root)
    iterate = Path.iterdir

    def fail(path: Path):
        if path == root / unreadable:
            raise OSError(errno.EIO, "Input/output error")
        return iterate(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", fail)
        for _ in range(3):
            assert all(fixture.poll().values())
    for _ in range(3):
        assert all(fixture.poll().values())


def test_absent_repository_is_not_empty(root):
    """As while a volume is not mounted: its versions are not gone, and need not be loaded again when it is back."""
    fixture = Fixture(root)
    away = root.with_name("away")
    root.rename(away)
    for _ in range(3):
        assert all(fixture.poll().values())
    away.rename(root)
    for _ in range(3):
        assert all(fixture.poll().values())


def test_settings_belong_to_every_version(root):
    """A changed model.yaml is a change of each."""
    fixture = Fixture(root)
    (root / "a/model.yaml").write_text("batching:\n  max_batch_size: 2\n")
    assert fixture.poll() == {}
    assert fixture.poll() == {"a": ["1"]}
