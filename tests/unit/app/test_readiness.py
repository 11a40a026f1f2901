"""When a server becomes ready, and when it should exit instead."""

from collections.abc import Collection
from typing import Any, cast

import pytest

from inferd.app.readiness import Readiness
from inferd.config.settings import ModelSettings, Settings
from inferd.models.loaded import LoadedModel
from inferd.models.registry import ModelRegistry
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion

_READY, _FAILED, _LOADING, _GONE = ModelState.READY, ModelState.FAILED, ModelState.LOADING, ModelState.UNAVAILABLE


class Server:
    """A server whose models change their states when the test says; ``became_ready`` counts the calls."""

    def __init__(self, *states: ModelState, found: Collection[str] = (), **repository: object) -> None:
        self.registry = ModelRegistry()
        self.versions = [self.add(f"m{number}", state) for number, state in enumerate(states)]
        self.lag_s = 0.0
        settings = Settings.model_validate({"repository": repository})
        self.readiness = Readiness(settings, self.registry, lambda: self.lag_s, found=found)
        self.became_ready = 0

    def add(self, name: str, state: ModelState) -> ModelVersion:
        version = ModelVersion(name=name, version="1", settings=ModelSettings())
        version.state = state
        self.registry.put(version)
        return version

    def opened(self) -> "Server":
        self.readiness.open(self._on_ready)
        return self

    def become(self, number: int, state: ModelState) -> None:
        self.versions[number].state = state
        self.readiness.on_state()

    @property
    def is_ready(self) -> bool:
        return self.readiness.is_ready()

    @property
    def reason(self) -> str:
        return self.readiness.readiness().reason

    def _on_ready(self) -> None:
        self.became_ready += 1


def test_not_ready_while_models_are_loaded() -> None:
    """Even if one is ready already."""
    server = Server(_READY, _LOADING)
    server.readiness.on_state()
    assert not server.is_ready
    assert server.reason == "the models are being loaded"


def test_any() -> None:
    """By default the server is ready once all have been tried, and stays so whatever becomes of them."""
    server = Server(_READY, _FAILED).opened()
    assert (server.is_ready, server.became_ready) == (True, 1)
    server.become(0, ModelState.UNLOADING)
    server.become(0, _GONE)
    assert (server.is_ready, server.became_ready) == (True, 1)


def test_models_on_demand() -> None:
    """The server is ready without loading them, whatever it waits for, and does not exit for want of loaded ones."""
    server = Server(ModelState.ON_DEMAND, readiness="all").opened()
    assert (server.is_ready, server.readiness.why_exit()) == (True, "")


def test_all() -> None:
    """One failed model keeps the server from being ready; /readyz names it."""
    server = Server(_READY, _FAILED, readiness="all").opened()
    assert (server.is_ready, server.became_ready) == (False, 0)
    assert server.reason == "waiting for models (repository.readiness): m1 1 (failed)"
    assert server.readiness.missing() == ["m1 1 (failed)"]


def test_all_becomes_ready_later() -> None:
    """When the failed version has been loaded again; from then on it is as with ``any``."""
    server = Server(_READY, _FAILED, readiness="all", mode="poll").opened()
    server.become(1, _LOADING)
    assert not server.is_ready
    server.become(1, _READY)
    assert (server.is_ready, server.became_ready) == (True, 1)
    server.become(1, _FAILED)
    assert (server.is_ready, server.became_ready) == (True, 1)


def test_all_does_not_wait_for_unloaded_versions() -> None:
    """They are not wanted."""
    assert Server(_READY, _GONE, readiness="all").opened().is_ready


def test_polling_server_waits_for_models_that_were_just_written() -> None:
    """Without others, until one has been tried; it would be ready without a model after each start otherwise."""
    server = Server(mode="poll", found=["new", "other"]).opened()
    assert server.reason == "waiting for models (repository.readiness): new (just written), other (just written)"
    new = server.add("new", _LOADING)
    server.readiness.on_state()
    assert not server.is_ready
    new.state = _FAILED
    server.readiness.on_state()
    assert server.is_ready
    assert Server(_READY, mode="poll", found=["m0", "new"]).opened().is_ready


def test_all_waits_for_models_that_were_just_written() -> None:
    """Each of them, as far as they were there at start."""
    server = Server(_READY, mode="poll", found=["m0", "new"], readiness="all").opened()
    assert server.readiness.missing() == ["new (just written)"]
    server.add("new", _READY)
    server.readiness.on_state()
    assert server.is_ready


@pytest.mark.parametrize("mode", ["poll", "explicit"])
@pytest.mark.parametrize("readiness", ["any", "all"])
def test_ready_without_models(mode: str, readiness: str) -> None:
    """They may come later."""
    server = Server(mode=mode, readiness=readiness)
    assert server.readiness.why_exit() == ""
    assert server.opened().is_ready


def test_exit_without_models() -> None:
    """None can come later, so the process ends."""
    assert Server(_FAILED).readiness.why_exit() == "no model could be loaded"
    assert Server(_FAILED, mode="poll").readiness.why_exit() == ""
    assert Server(_FAILED, _READY).readiness.why_exit() == ""


@pytest.mark.parametrize("mode", ["none", "poll", "explicit"])
def test_exit_on_error(mode: str) -> None:
    """Of any model, which is named."""
    server = Server(_READY, _FAILED, exit_on_error=True, mode=mode)
    assert server.readiness.why_exit() == "failed to load, with repository.exit_on_error: m1 1 (failed)"
    assert Server(_READY, exit_on_error=True, mode=mode).readiness.why_exit() == ""


def test_named_model_that_is_not_found() -> None:
    """It counts as failed, until a version of it comes."""
    server = Server(_READY, mode="explicit", load=["m0", "m1"], readiness="all", exit_on_error=True)
    assert server.readiness.why_exit() == "failed to load, with repository.exit_on_error: m1 (no version)"
    server.opened()
    assert server.reason == "waiting for models (repository.readiness): m1 (no version)"
    server.add("m1", _READY)
    server.readiness.on_state()
    assert server.is_ready
    assert Server(mode="explicit", load=["*"], readiness="all").opened().is_ready


def test_models_whose_policy_chooses_nothing_are_missing() -> None:
    """As those that are in no repository."""
    server = Server(_READY, found=["m0", "m1"], readiness="all", exit_on_error=True)
    assert server.readiness.why_exit() == "failed to load, with repository.exit_on_error: m1 (no version)"
    assert not server.opened().is_ready


def test_late_poll_thread() -> None:
    """The server is not ready while it lags."""
    server = Server(_READY).opened()
    server.lag_s = 7.0
    assert not server.is_ready
    assert "7.0 s behind" in server.reason


def test_drain_is_final() -> None:
    """A model that becomes ready while the server stops does not change it."""
    server = Server(_READY, _FAILED, readiness="all").opened()
    server.readiness.drain()
    server.become(1, _READY)
    assert (server.is_ready, server.became_ready, server.reason) == (False, 0, "draining")


class _Batcher:
    why_broken = "its device failed"
    is_hopeless = False
    max_rows = 1


def test_lost_device_ends_liveness_and_not_readiness() -> None:
    """A broken model is told in the details; the process is given up when its device does not come back."""
    server = Server(_READY, _READY).opened()
    batcher = _Batcher()
    server.versions[1]._loaded = LoadedModel(session=cast("Any", None), batcher=cast("Any", batcher))
    server.readiness.on_state()
    assert server.readiness.readiness().details == ["m0 1: ready", "m1 1: ready, but runs nothing at present"]
    assert (server.is_ready, server.readiness.liveness().ok) == (True, True)
    batcher.is_hopeless = True
    server.readiness.on_state()
    assert server.readiness.liveness().reason == "the process has lost the device or the memory of m1 1"
    assert server.is_ready
    batcher.is_hopeless = False
    server.readiness.on_state()
    assert server.readiness.liveness().ok
