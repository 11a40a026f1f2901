"""Models that leave to make room for others; with a loader that does as it is told."""

import pytest

from inferd.models.states import ModelState
from tests.patience import PATIENCE_S

READY, FAILED, ON_DEMAND, UNLOADING = ModelState.READY, ModelState.FAILED, ModelState.ON_DEMAND, ModelState.UNLOADING
_MIB = 2**20


@pytest.fixture
def three(make):
    """Three models of 40 MiB on demand, and memory for two."""
    files = [f"{name}/1/model.onnx" for name in "abc"]
    fixture = make(*files, load=["*"], on_demand=True, memory_budget_bytes=100 * _MIB)
    fixture.loader.memory = {f"{name}/1": 40 * _MIB for name in "abc"}
    return fixture


def load(fixture, *names):
    for name in names:
        assert fixture.demand(name) is None
        fixture.clock.advance(5.0)


def batcher(fixture, name):
    return fixture.loader.loaded[f"{name}/1"][-1].batcher


def test_least_recently_used_model_leaves(three):
    """It is on demand then, and a demand loads it again."""
    three.start()
    load(three, "a", "b")
    batcher(three, "a").last_dispatch_at = three.clock()
    load(three, "c")
    assert three.states() == {"a/1": READY, "b/1": ON_DEMAND, "c/1": READY}
    assert three.loader.loaded["b/1"][0].session.closed
    load(three, "b")
    assert three.states() == {"a/1": ON_DEMAND, "b/1": READY, "c/1": READY}


@pytest.mark.parametrize("use", ["requests", "waiting"])
def test_no_model_leaves_while_it_is_used(three, use):
    """The load waits until one is idle."""
    three.start()
    load(three, "a", "b")
    for name in "ab":
        batcher(three, name).unanswered_requests = int(use == "requests")
        three.waiting[name] = int(use == "waiting")
    pending = three.begin_demand("c")
    three.load("a")  # when the control thread has done this, it has looked at the demand
    assert three.states() == {"a/1": READY, "b/1": READY, "c/1": ON_DEMAND}
    batcher(three, "b").unanswered_requests = three.waiting["b"] = 0
    assert pending.outcome() is None
    assert three.states() == {"a/1": READY, "b/1": ON_DEMAND, "c/1": READY}


def test_memory_of_a_model_that_leaves_is_used_when_it_is_free(three):
    """Not while its requests are being answered."""
    three.start()
    load(three, "a", "b")
    batcher(three, "a").finish.clear()
    pending = three.begin_demand("c")
    three.load("b")
    assert three.states() == {"a/1": UNLOADING, "b/1": READY, "c/1": ON_DEMAND}
    batcher(three, "a").finish.set()
    assert pending.outcome() is None


def test_pinned_model_stays(three):
    """Although it was used least recently."""
    (three.root / "a/model.yaml").write_text("pinned: true\n")
    three.start()
    load(three, "b", "c")
    assert three.states() == {"a/1": READY, "b/1": ON_DEMAND, "c/1": READY}


def test_model_larger_than_the_budget_fails(three):
    """Its load fails with both numbers, every time, and what serves goes on."""
    three.loader.memory["c/1"] = 120 * _MIB
    three.start()
    for tries in (1, 2, 2):
        three.clock.advance(60.0)
        assert three.demand("c").message == 'model "c" failed to load'
        assert three.loader.loads.count("c/1") == tries
        assert three.registry.versions("c")[0].reason == (
            "it takes 120.0 MiB while it is loaded and 120.0 MiB afterwards, and repository.memory_budget_bytes is"
            " 100.0 MiB"
        )
    assert all(each.session.closed for each in three.loader.loaded["c/1"])


def test_measurement_that_is_too_high_once(three):
    """Large requests to others may be the reason, so the model does not fail."""
    three.start()
    for mib in (40, 120, 40):
        three.loader.memory["a/1"] = mib * _MIB
        assert three.load("a") is None
        assert three.unload("a") is None


def test_models_that_are_not_on_demand_count(make):
    """They do not leave, and one that does not fit beside them fails."""
    fixture = make("a/1/model.onnx", "b/1/model.onnx", load=["*"], memory_budget_bytes=100 * _MIB)
    fixture.loader.memory = {"a/1": 60 * _MIB, "b/1": 60 * _MIB}
    fixture.start()
    assert sorted(state.value for state in fixture.states().values()) == ["failed", "ready"]
    (failed,) = [each for each in fixture.registry.all() if each.state is FAILED]
    assert failed.reason.endswith("100.0 MiB, of which models that never leave have left 40.0 MiB")


def test_versions_of_unknown_size_are_loaded_alone(make):
    """So that each can be measured."""
    files = [f"{name}/1/model.onnx" for name in "ab"]
    fixture = make(*files, load=["*"], on_demand=True, memory_budget_bytes=100 * _MIB).start()
    gate = fixture.loader.hold("a/1")
    first, second = fixture.begin_demand("a"), fixture.begin_demand("b")
    assert fixture.loader.loading["a/1"].wait(PATIENCE_S)
    fixture.unload("nothing")  # when the control thread has done this, it has looked at the second demand
    assert fixture.loader.loads == ["a/1"]
    gate.set()
    assert first.outcome() is None
    assert second.outcome() is None


def test_load_that_hangs_does_not_keep_others_waiting(make):
    """However long it goes on, they only wait as long as it should take."""
    files = [f"{name}/1/model.onnx" for name in "ab"]
    fixture = make(*files, load=["*"], on_demand=True, memory_budget_bytes=100 * _MIB).start()
    gate = fixture.loader.hold("a/1")
    first, second = fixture.begin_demand("a"), fixture.begin_demand("b")
    assert fixture.loader.loading["a/1"].wait(PATIENCE_S)
    fixture.clock.advance(11.0)
    assert second.outcome() is None
    gate.set()
    assert first.outcome() is None


def test_unload_by_a_call_withdraws_a_load_that_waits(three):
    """It ends at once."""
    three.start()
    load(three, "a", "b")
    for name in "ab":
        batcher(three, name).unanswered_requests = 1
    pending = three.begin_demand("c")
    assert three.unload("c") is None
    assert "the model is being unloaded" in pending.outcome().message
    assert three.loader.loads.count("c/1") == 0


@pytest.fixture
def two_versions(make):
    """A model of two versions, of which the second is damaged, and one that does not fit beside it."""
    files = ["a/1/model.onnx", "a/2/model.onnx", "b/1/model.onnx"]
    fixture = make(*files, load=["*"], on_demand=True, memory_budget_bytes=100 * _MIB)
    (fixture.root / "a/model.yaml").write_text("versions: all\n")
    (fixture.root / "a/2/model.onnx").write_text("it is damaged")
    fixture.loader.memory = {"a/1": 60 * _MIB, "a/2": 20 * _MIB, "b/1": 60 * _MIB}
    return fixture


@pytest.mark.parametrize("is_call", [True, False])
def test_model_leaves_although_another_version_of_it_waits_for_memory(two_versions, is_call):
    """Otherwise that would wait for the load before it, which waits for this model to leave."""
    two_versions.start()
    load(two_versions, "b", "a", "b", "a")
    batcher(two_versions, "a").unanswered_requests = 1
    first = two_versions.begin_demand("b")
    two_versions.unload("nothing")
    second = two_versions.begin_load("a") if is_call else two_versions.begin_demand("a")
    two_versions.unload("nothing")  # when the control thread has done this, it has looked at both
    batcher(two_versions, "a").unanswered_requests = 0
    assert first.outcome() is None
    assert two_versions.states()["b/1"] is READY
    two_versions.clock.advance(5.0)
    assert second.outcome() is None
    assert two_versions.states() == {"a/1": READY, "a/2": FAILED, "b/1": ON_DEMAND}


def test_damaged_version_does_not_keep_the_others_away(two_versions):
    """A demand loads them after each eviction, and meanwhile the model can be loaded."""
    two_versions.start()
    load(two_versions, "b", "a", "b")
    for _ in range(4):
        assert two_versions.registry.find("a").accepts_requests
        load(two_versions, "a", "b")


def test_versions_that_do_not_fit_together(make):
    """One of them serves, and does not leave for the other again and again."""
    fixture = make("a/1/model.onnx", "a/2/model.onnx", load=["*"], on_demand=True, memory_budget_bytes=100 * _MIB)
    (fixture.root / "a/model.yaml").write_text("versions: all\n")
    fixture.loader.memory = {"a/1": 60 * _MIB, "a/2": 60 * _MIB}
    fixture.start()
    for _ in range(5):
        load(fixture, "a")
        fixture.clock.advance(60.0)
        fixture.unload("nothing")
        assert fixture.states() == {"a/1": FAILED, "a/2": READY}


def test_memory_that_is_not_for_requests(three):
    """That of loaded models, and the peak of loads that go on, during which it is not steady."""
    three.start()
    load(three, "a", "b")
    assert (three.manager.memory_bytes(), three.manager.memory_is_steady()) == (80 * _MIB, True)
    gate = three.loader.hold("c/1")
    pending = three.begin_demand("c")
    assert three.loader.loading["c/1"].wait(PATIENCE_S)
    assert (three.manager.memory_bytes(), three.manager.memory_is_steady()) == (72 * _MIB, False)
    gate.set()
    assert pending.outcome() is None
    assert (three.manager.memory_bytes(), three.manager.memory_is_steady()) == (80 * _MIB, True)
