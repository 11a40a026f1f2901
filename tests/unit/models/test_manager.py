"""What is loaded, switched and unloaded, by calls and at start; with a loader that does as it is told."""

import threading
from contextlib import contextmanager

import pytest

from inferd.errors import ModelControlError, ModelLoadFailedError, ModelNotFoundError
from inferd.models import lifecycle as lifecycle_module
from inferd.models.states import ModelState
from tests.patience import PATIENCE_S

READY, UNAVAILABLE, FAILED = ModelState.READY, ModelState.UNAVAILABLE, ModelState.FAILED


def test_none_loads_everything_at_start(make):
    """And allows no control."""
    fixture = make("a/1/model.onnx", "a/2/model.onnx", "b/1/model.onnx", mode="none").start()
    assert fixture.states() == {"a/1": READY, "a/2": READY, "b/1": READY}
    for outcome in (fixture.load("a"), fixture.unload("a")):
        assert isinstance(outcome, ModelControlError)
        assert outcome.message == "explicit model load / unload is not allowed if polling is enabled"


def test_explicit_loads_what_is_listed(make):
    """The rest is in the index, without a version."""
    fixture = make("a/1/model.onnx", "b/1/model.onnx", load=["b"]).start()
    assert fixture.states() == {"b/1": READY}
    assert [(each.name, each.version, each.state) for each in fixture.manager.index()] == [
        ("a", "", UNAVAILABLE),
        ("b", "1", READY),
    ]


@pytest.mark.parametrize(
    ("policy", "ready"),
    [("all", ["3", "2", "1"]), ({"latest": 2}, ["3", "2"]), ([1, 3, 9], ["3", "1"])],
)
def test_version_policy(make, policy, ready):
    """Of the server; a model.yaml may have its own."""
    fixture = make("a/1/model.onnx", "a/2/model.onnx", "a/3/model.onnx", load=["*"], versions=policy).start()
    assert [each.version for each in fixture.registry.versions("a")] == ready


def test_policy_of_a_model(make):
    """It precedes the server's."""
    fixture = make("a/1/model.onnx", "a/2/model.onnx", "b/1/model.onnx", "b/2/model.onnx", load=["*"])
    (fixture.root / "a" / "model.yaml").write_text("versions: {latest: 1}\n")
    assert fixture.start().states() == {"a/2": READY, "b/1": READY, "b/2": READY}


def test_policy_that_serves_nothing(make):
    """It is an error, and what serves goes on."""
    fixture = make("a/1/model.onnx", load=["a"]).start()
    (fixture.root / "a/model.yaml").write_text("versions: [9]\n")
    error = fixture.load("a")
    assert isinstance(error, ModelLoadFailedError)
    assert error.message == (
        "failed to load 'a', no version is available: its policy (versions) serves none of those in the model"
        " repository: 1"
    )
    assert fixture.states() == {"a/1": READY}


def test_new_version_is_ready_before_the_old_one_leaves(make):
    """With "latest 1"; the old one is closed when its requests are answered."""
    fixture = make("a/1/model.onnx", load=["a"], versions={"latest": 1}).start()
    (old,) = fixture.loader.loaded["a/1"]
    old.batcher.finish.clear()
    fixture.touch("a/2/model.onnx")
    assert fixture.load("a") is None
    assert fixture.registry.get("a").version == "2"
    assert fixture.states() == {"a/2": READY, "a/1": ModelState.UNLOADING}
    assert not old.session.closed
    old.batcher.finish.set()
    fixture.wait_gone("a/1")
    assert old.session.closed
    assert fixture.history.index(("a/2", READY)) < fixture.history.index(("a/1", ModelState.UNLOADING))


def test_queue_is_closed_when_requests_on_their_way_have_arrived(make):
    """A request that has found the version must not meet a closed queue."""
    fixture = make("a/1/model.onnx", load=["a"]).start()
    (loaded,) = fixture.loader.loaded["a/1"]
    fixture.settle_at_once = False
    pending = fixture.begin_unload("a")
    assert fixture.settling.wait(PATIENCE_S)
    assert fixture.states() == {"a/1": ModelState.UNLOADING}
    assert not loaded.batcher.stopped
    fixture.settled.pop()()
    assert pending.outcome() is None
    assert loaded.batcher.stopped


def test_failed_load_leaves_what_serves(make):
    """The old version stays although the policy wants the new one only."""
    fixture = make("a/1/model.onnx", load=["a"], versions={"latest": 1}).start()
    fixture.touch("a/2/model.onnx")
    (fixture.root / "a/2/model.onnx").write_text("it is damaged")
    error = fixture.load("a")
    assert isinstance(error, ModelLoadFailedError)
    assert error.message == "failed to load 'a', no version is available: it is damaged"
    assert fixture.states() == {"a/2": FAILED, "a/1": READY}
    assert fixture.registry.get("a").version == "1"


def test_unchanged_versions_are_not_loaded_again(make):
    """Changed ones are, beside the one that serves."""
    fixture = make("a/1/model.onnx", "a/2/model.onnx", load=["a"]).start()
    assert fixture.load("a") is None
    assert sorted(fixture.loader.loads) == ["a/1", "a/2"]
    old = fixture.registry.get("a", "2")
    replacement = fixture.root / "new"
    replacement.touch()
    replacement.rename(fixture.root / "a/2/model.onnx")
    gate = fixture.loader.hold("a/2")
    pending = fixture.begin_load("a")
    assert fixture.loader.loading["a/2"].wait(PATIENCE_S)
    assert fixture.registry.get("a", "2") is old
    gate.set()
    assert pending.outcome() is None
    assert fixture.registry.get("a", "2") is not old
    fixture.wait_gone("a/2")
    assert fixture.loader.loads[2:] == ["a/2"]


def test_failed_reload_keeps_the_old_one(make):
    """The index says why."""
    fixture = make("a/1/model.onnx", load=["a"]).start()
    (fixture.root / "a/1/model.onnx").write_text("it is damaged")
    assert isinstance(fixture.load("a"), ModelLoadFailedError)
    (entry,) = fixture.manager.index()
    assert (entry.state, entry.reason) == (READY, "loading it again failed: it is damaged")


def test_failed_versions_are_tried_again(make):
    """Whether or not the files have changed."""
    fixture = make("a/1/model.onnx")
    (fixture.root / "a/1/model.onnx").write_text("it is damaged")
    fixture.start()
    for _ in range(2):
        assert isinstance(fixture.load("a"), ModelLoadFailedError)
    assert fixture.loader.loads == ["a/1", "a/1"]


def test_one_version_of_several_fails(make):
    """The call succeeds, as one version is available."""
    fixture = make("a/1/model.onnx", "a/2/model.onnx")
    (fixture.root / "a/2/model.onnx").write_text("it is damaged")
    fixture.start()
    assert fixture.load("a") is None
    assert fixture.states() == {"a/2": FAILED, "a/1": READY}


@pytest.mark.parametrize(
    ("name", "version", "text"),
    [
        ("b", "", "failed to load 'b', failed to poll from model repository"),
        ("a", "7", "failed to load 'a', version 7 is not in the model repository"),
    ],
)
def test_load_of_what_is_not_there(make, name, version, text):
    """In Triton's words for a model."""
    error = make("a/1/model.onnx").start().load(name, version=version)
    assert isinstance(error, ModelLoadFailedError)
    assert error.message == text


def test_single_versions(make):
    """They are loaded and unloaded beside the others, whatever the policy."""
    fixture = make("a/1/model.onnx", "a/2/model.onnx", "a/3/model.onnx", load=["a"], versions={"latest": 1}).start()
    assert fixture.load("a", version="1") is None
    assert fixture.states() == {"a/3": READY, "a/1": READY}
    assert fixture.unload("a", "3") is None
    assert fixture.states() == {"a/3": UNAVAILABLE, "a/1": READY}
    assert fixture.registry.get("a").version == "1"


def test_unload(make):
    """All versions; the index keeps them. A model that is not there cannot be unloaded."""
    fixture = make("a/1/model.onnx", "a/2/model.onnx", load=["a"]).start()
    assert fixture.unload("a") is None
    assert fixture.states() == {"a/2": UNAVAILABLE, "a/1": UNAVAILABLE}
    assert {entry.reason for entry in fixture.manager.index()} == {"unloaded"}
    assert all(each.session.closed for loaded in fixture.loader.loaded.values() for each in loaded)
    assert isinstance(fixture.unload("b"), ModelNotFoundError)
    assert fixture.load("a") is None
    assert fixture.states() == {"a/2": READY, "a/1": READY}


def test_unload_that_does_not_finish(make):
    """The error names the versions that are still there."""
    fixture = make("a/1/model.onnx", load=["a"]).start()
    (loaded,) = fixture.loader.loaded["a/1"]
    loaded.batcher.stop = lambda _: False
    error = fixture.unload("a")
    assert isinstance(error, ModelLoadFailedError)
    assert error.message == "failed to unload 'a', versions that are still available: 1"
    assert not loaded.session.closed
    assert not fixture.manager.stop(PATIENCE_S)


def test_cancelled_load(make):
    """The caller hears of it at once, and what was loaded is thrown away."""
    fixture = make("a/1/model.onnx").start()
    gate = fixture.loader.hold("a/1")
    pending = fixture.begin_load("a")
    assert fixture.loader.loading["a/1"].wait(PATIENCE_S)
    pending.cancel()
    error = pending.outcome()
    assert isinstance(error, ModelLoadFailedError)
    assert "the load was cancelled" in error.message
    assert fixture.states() == {"a/1": UNAVAILABLE}
    del fixture.loader.gates["a/1"]
    assert fixture.load("a") is None
    late = fixture.registry.get("a")
    gate.set()
    fixture.manager._parts.lifecycle._pool.stop()
    for thread in [each for each in threading.enumerate() if each.name == "model-loader"]:
        thread.join(PATIENCE_S)
    assert fixture.registry.get("a") is late
    assert fixture.history.count(("a/1", READY)) == 1


def test_load_that_waits_can_be_cancelled(make):
    """It never begins; those before and after it do."""
    fixture = make("a/1/model.onnx").start()
    gate = fixture.loader.hold("a/1")
    first, second, third = fixture.begin_load("a"), fixture.begin_load("a"), fixture.begin_load("a")
    second.cancel()
    assert isinstance(second.outcome(), ModelLoadFailedError)
    gate.set()
    assert first.outcome() is None
    assert third.outcome() is None
    assert fixture.loader.loads == ["a/1"]


def test_unload_cancels_a_load(make):
    """It need not wait for a load that hangs."""
    fixture = make("a/1/model.onnx").start()
    fixture.loader.hold("a/1")
    pending = fixture.begin_load("a")
    assert fixture.loader.loading["a/1"].wait(PATIENCE_S)
    assert fixture.unload("a") is None
    assert "the model is being unloaded" in pending.outcome().message
    assert fixture.states() == {"a/1": UNAVAILABLE}


def test_unload_between_two_operations(make):
    """It cancels the load whose turn has just come, and takes its place."""
    fixture = make("a/1/model.onnx", load=["a"]).start()
    finish = fixture.loader.loaded["a/1"][0].batcher.finish
    finish.clear()
    first, load = fixture.begin_unload("a"), fixture.begin_load("a")
    is_held, go_on = threading.Event(), threading.Event()
    fixture.manager._work.put(lambda: is_held.set() or go_on.wait(PATIENCE_S))
    assert is_held.wait(PATIENCE_S)
    (unloading,) = [thread for thread in threading.enumerate() if thread.name == "unload-a"]
    finish.set()
    unloading.join(PATIENCE_S)
    second = fixture.begin_unload("a")
    go_on.set()
    assert first.outcome() is None
    assert load.outcome() is not None
    assert second.outcome() is None


def test_memory_of_loads_goes_back(make, monkeypatch):
    """What a load allocates is freed with the version, not kept for requests."""
    open_, during = [], []

    @contextmanager
    def recorded():
        open_.append(None)
        yield
        open_.pop()

    monkeypatch.setattr(lifecycle_module, "mapped_memory", recorded)
    fixture = make("a/1/model.onnx").start()
    load = fixture.loader.load
    monkeypatch.setattr(fixture.loader, "load", lambda *arguments: during.append(len(open_)) or load(*arguments))
    assert fixture.load("a") is None
    assert (during, open_) == ([1], [])


def test_models_load_side_by_side(make):
    """As many as the setting says."""
    fixture = make("a/1/model.onnx", "b/1/model.onnx", "c/1/model.onnx", parallel_loads=2).start()
    for name in "abc":
        fixture.loader.hold(f"{name}/1")
    pending = [fixture.begin_load(name) for name in "abc"]
    assert fixture.loader.loading["a/1"].wait(PATIENCE_S)
    assert fixture.loader.loading["b/1"].wait(PATIENCE_S)
    assert sorted(fixture.loader.loads) == ["a/1", "b/1"]
    fixture.loader.gates["b/1"].set()
    assert fixture.loader.loading["c/1"].wait(PATIENCE_S)
    for gate in fixture.loader.gates.values():
        gate.set()
    assert [each.outcome() for each in pending] == [None] * 3
