"""Models that a demand loads; with a loader that does as it is told."""

import shutil
from functools import partial

import pytest

from inferd.errors import ModelUnavailableError, Retry
from inferd.models.states import ModelState
from tests.patience import eventually

READY, FAILED, ON_DEMAND, UNAVAILABLE = (
    ModelState.READY,
    ModelState.FAILED,
    ModelState.ON_DEMAND,
    ModelState.UNAVAILABLE,
)


def test_nothing_is_loaded_at_start(make):
    """But every version that the policy wants is registered."""
    fixture = make("a/1/model.onnx", "a/2/model.onnx", "b/1/model.onnx", mode="none", on_demand=True).start()
    assert fixture.states() == {"a/1": ON_DEMAND, "a/2": ON_DEMAND, "b/1": ON_DEMAND}
    assert fixture.loader.loads == []


def test_demand_loads_all_versions_of_a_model(make):
    """Those of the others stay cold."""
    fixture = make("a/1/model.onnx", "a/2/model.onnx", "b/1/model.onnx", mode="none", on_demand=True).start()
    assert fixture.demand("a") is None
    assert fixture.states() == {"a/1": READY, "a/2": READY, "b/1": ON_DEMAND}
    assert fixture.demand("a") is None
    assert sorted(fixture.loader.loads) == ["a/1", "a/2"]


@pytest.mark.parametrize("setting", ["on_demand: false", "pinned: true"])
def test_models_that_are_loaded_at_start(make, setting):
    """By their own settings."""
    fixture = make("a/1/model.onnx", "b/1/model.onnx", mode="none", on_demand=True)
    (fixture.root / "a/model.yaml").write_text(f"{setting}\n")
    assert fixture.start().states() == {"a/1": READY, "b/1": ON_DEMAND}


def test_failed_load_is_tried_again_after_a_time_that_doubles(make):
    """Until then, demands fail at once, and say how long that is."""
    fixture = make("a/1/model.onnx", mode="none", on_demand=True).start()
    (fixture.root / "a/1/model.onnx").write_text("it is damaged")
    for backoff_s in (1.0, 2.0, 4.0):
        error = fixture.demand("a")
        assert isinstance(error, ModelUnavailableError)
        assert (error.message, error.retry_after_s) == ('model "a" failed to load', backoff_s)
        assert error.retry is Retry.SOON, "no client should wait for so long without being told"
        loads = len(fixture.loader.loads)
        fixture.clock.advance(backoff_s / 2)
        assert fixture.demand("a").retry_after_s == backoff_s / 2
        assert len(fixture.loader.loads) == loads
        fixture.clock.advance(backoff_s / 2)
    assert fixture.states() == {"a/1": FAILED}
    (fixture.root / "a/1/model.onnx").write_text("")
    assert fixture.demand("a") is None


def test_one_version_of_several_fails(make):
    """The requests that wait go on, and the failed one is not tried again at once."""
    fixture = make("a/1/model.onnx", "a/2/model.onnx", mode="none", on_demand=True).start()
    (fixture.root / "a/2/model.onnx").write_text("it is damaged")
    assert fixture.demand("a") is None
    assert fixture.states() == {"a/1": READY, "a/2": FAILED}
    assert isinstance(fixture.demand("a"), ModelUnavailableError)
    assert sorted(fixture.loader.loads) == ["a/1", "a/2"]


def test_call_loads_before_the_first_request(make):
    """In every mode."""
    fixture = make("a/1/model.onnx", mode="none", on_demand=True).start()
    assert fixture.load("a") is None
    assert fixture.states() == {"a/1": READY}


def test_unload_by_a_call_ends_loads_on_demand(make):
    """It is not loaded by a demand, until a call loads it."""
    fixture = make("a/1/model.onnx", load=["*"], on_demand=True).start()
    assert fixture.unload("a") is None
    assert fixture.states() == {"a/1": UNAVAILABLE}
    assert isinstance(fixture.demand("a"), ModelUnavailableError)
    assert not fixture.registry.versions("a")[0].on_demand
    assert fixture.load("a") is None
    assert fixture.registry.versions("a")[0].on_demand


@pytest.mark.parametrize("is_call", [True, False])
def test_duration_of_a_load(make, is_call):
    """It is known after the first one, and what is left of it while one goes on."""
    fixture = make("a/1/model.onnx", load=["*"], on_demand=True).start()
    assert fixture.manager.expected_load_s("a") == 0.0
    gate = fixture.loader.hold("a/1")
    pending = fixture.begin_load("a") if is_call else fixture.begin_demand("a")
    fixture.loader.loading["a/1"].wait()
    fixture.clock.advance(4.0)
    gate.set()
    assert pending.outcome() is None
    assert fixture.manager.expected_load_s("a") == 4.0


class Changes:
    """A poller that has found all versions of the catalog complete."""

    def __init__(self, fixture):
        self._fixture = fixture

    def poll(self):
        return {name: self._fixture.catalog.scan().get(name, {}) for name in ("a", "b")}

    def is_complete(self, _):
        return True


@pytest.fixture
def polled(make):
    """Two models on demand in a repository that is polled; ``poll`` finds all changes."""
    fixture = make("a/1/model.onnx", "b/1/model.onnx", mode="none", on_demand=True, memory_budget_bytes=100 * 2**20)
    fixture.start()
    poller = Changes(fixture)

    def poll():
        fixture.manager._work.put(partial(fixture.manager._poll, poller))
        fixture.demand("nothing")  # when this has ended, the control thread has polled

    fixture.poll = poll
    return fixture


def test_change_of_a_cold_model_only_changes_its_registration(polled):
    """Also of one whose load has failed: the next demand tries the new files at once."""
    (polled.root / "a/1/model.onnx").write_text("it is damaged")
    assert polled.demand("a") is not None
    (polled.root / "a/1/model.onnx").write_text("")
    polled.touch("b/2/model.onnx")
    polled.poll()
    assert polled.states() == {"a/1": ON_DEMAND, "b/1": ON_DEMAND, "b/2": ON_DEMAND}
    assert polled.loader.loads == ["a/1"]
    assert polled.demand("a") is None


def test_cold_version_that_is_not_wanted_any_more_vanishes(polled):
    """Requests for it would load the others only."""
    polled.touch("a/2/model.onnx")
    polled.poll()
    (polled.root / "a/model.yaml").write_text("versions: {latest: 1}\n")
    polled.poll()
    assert polled.states() == {"a/2": ON_DEMAND, "b/1": ON_DEMAND}


def test_change_of_a_loaded_model_is_loaded(polled):
    """As in a server that loads all models at start."""
    assert polled.demand("a") is None
    polled.touch("a/2/model.onnx")
    polled.poll()
    assert polled.demand("a") is None
    assert polled.states() == {"a/1": READY, "a/2": READY, "b/1": ON_DEMAND}


def test_new_version_without_memory_beside_the_old_one(polled):
    """The model is unloaded, and the next request loads the new version."""
    polled.loader.memory = {"a/1": 80 * 2**20}
    assert polled.demand("a") is None
    replacement = polled.root / "new"
    replacement.touch()
    replacement.rename(polled.root / "a/1/model.onnx")
    polled.poll()
    polled.wait_gone("a/1")
    assert polled.demand("a") is None
    assert polled.loader.loads == ["a/1", "a/1"]
    assert polled.loader.loaded["a/1"][0].session.closed


def test_deleted_model_is_not_loaded_on_demand(polled):
    """A cold one vanishes, a loaded one leaves; they are not loaded on demand any more."""
    assert polled.demand("a") is None
    for name in "ab":
        shutil.rmtree(polled.root / name)
    polled.poll()
    polled.wait_gone("a/1")
    assert polled.states() == {"a/1": UNAVAILABLE}
    for name in "ab":
        assert isinstance(polled.demand(name), ModelUnavailableError)
    assert not polled.registry.versions("a")[0].on_demand


def test_demand_while_files_are_changed(make):
    """The error says so, and a demand loads them when they have stayed the same."""
    fixture = make("a/1/model.onnx", mode="poll", poll_interval_s=0.01, on_demand=True).start()

    def becomes(is_so):
        def poll():
            fixture.clock.advance(0.01)
            return is_so()

        eventually(poll, "the files have been the same in two polls")

    becomes(lambda: fixture.states() == {"a/1": ON_DEMAND})
    (fixture.root / "a/1/model.onnx").write_text("it is damaged")
    error = fixture.demand("a")
    assert (error.message, error.retry_after_s) == ('the files of model "a" are being changed or deleted', 0.01)
    becomes(lambda: fixture.demand("a").message == 'model "a" failed to load')
