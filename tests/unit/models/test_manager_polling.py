"""What poll mode loads of versions that are being written."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from inferd.config.settings import Settings
from inferd.models.catalog import Catalog, Versions
from inferd.models.model_source import ModelSource
from inferd.models.registry import ModelRegistry
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from tests.fakes import FakeClock
from tests.patience import PATIENCE_S
from tests.unit.models.managed import ScriptedLoader
from tests.unit.models.managers import manager_of
from tests.unit.models.model_files import touch


class Fixture:
    """A manager in poll mode, with a record of the states that its versions have had."""

    def __init__(self, root: Path, poll_interval_s: float) -> None:
        settings = Settings.model_validate({"repository": {"mode": "poll", "poll_interval_s": poll_interval_s}})
        self.registry = ModelRegistry()
        self.loader = ScriptedLoader(settings, FakeClock())
        self.history: list[tuple[str, ModelState, str]] = []
        self._changed = threading.Condition()
        self.manager = manager_of(
            settings, self.registry, paths=[root], clock=time.monotonic, loader=self.loader, on_state=self._on_state
        )
        self.catalog = Catalog(settings, [root])
        self.manager.start(self.catalog.scan(), lambda: None)

    def _on_state(self, version: ModelVersion) -> None:
        with self._changed:
            self.history.append((f"{version.name}/{version.version}", version.state, version.reason))
            self._changed.notify_all()

    def wait_for(self, key: str, state: ModelState) -> str:
        """Wait until the version has had this state; return the reason for it."""

        def reasons() -> list[str]:
            return [reason for each, found, reason in self.history if (each, found) == (key, state)]

        with self._changed:
            assert self._changed.wait_for(reasons, PATIENCE_S), self.history
            return reasons()[0]


@pytest.fixture
def make(tmp_path):
    made: list[Fixture] = []

    def build(poll_interval_s: float) -> Fixture:
        made.append(Fixture(tmp_path, poll_interval_s))
        return made[-1]

    yield build
    for each in made:
        each.manager.stop(PATIENCE_S)


def test_rejects_version_that_changes_while_it_is_loaded(make: Callable[..., Fixture], tmp_path: Path) -> None:
    """It is loaded again when it has stood still."""
    fixture = make(0.01)
    gate = fixture.loader.hold("a/1")
    touch(tmp_path, "a/1/model.onnx")
    assert fixture.loader.loading["a/1"].wait(PATIENCE_S)
    touch(tmp_path, "a/1/weights")
    gate.set()
    assert fixture.wait_for("a/1", ModelState.FAILED) == "its files were changed while it was loaded"
    assert fixture.loader.loaded["a/1"][0].session.closed
    fixture.wait_for("a/1", ModelState.READY)
    assert fixture.loader.loads == ["a/1", "a/1"]


class OneComplete:
    """A poller that has found one of several versions complete, and the others as they were before a change."""

    def __init__(self, versions: Versions, complete: str) -> None:
        self._versions = versions
        self._complete = complete

    def poll(self) -> dict[str, Versions]:
        return {"a": self._versions}

    def is_complete(self, source: ModelSource) -> bool:
        return source.version == self._complete


def test_loads_nothing_that_has_changed_again(make: Callable[..., Fixture], tmp_path: Path) -> None:
    """As when another version of the model is complete, or the load had to wait."""
    fixture = make(86_400)
    touch(tmp_path, "a/1/model.onnx", "a/2/model.onnx")
    poller = OneComplete(fixture.catalog.scan()["a"], "2")
    fixture.manager._loads._parts = replace(fixture.manager._parts, poller=poller)
    fixture.manager._work.put(partial(fixture.manager._poll, poller))
    fixture.wait_for("a/2", ModelState.READY)
    assert {key for key, *_ in fixture.history} == {"a/2"}


def test_nothing_leaves_for_a_version_that_has_changed_again(make: Callable[..., Fixture], tmp_path: Path) -> None:
    """What serves stays until the one that the policy wants in its place is complete."""
    touch(tmp_path, "a/1/model.onnx")
    (tmp_path / "a/model.yaml").write_text("versions: {latest: 1}\n")
    fixture = make(86_400)

    def poll(complete: str) -> None:
        poller = OneComplete(fixture.catalog.scan()["a"], complete)
        fixture.manager._loads._parts = replace(fixture.manager._parts, poller=poller)
        fixture.manager._work.put(partial(fixture.manager._poll, poller))

    poll(complete="1")
    fixture.wait_for("a/1", ModelState.READY)
    touch(tmp_path, "a/2/model.onnx")
    poll(complete="1")
    done = threading.Event()
    fixture.manager._work.put(done.set)
    assert done.wait(PATIENCE_S)
    (serving,) = fixture.registry.versions("a")
    assert serving.state is ModelState.READY
