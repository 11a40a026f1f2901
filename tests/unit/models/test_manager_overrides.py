"""Loads with files and settings of a call, what is remembered of loads, and what is left at the stop."""

import re
import tempfile
from collections.abc import Sequence

import pytest

from inferd.models.load_override import LoadOverride
from inferd.models.states import ModelState
from tests.patience import PATIENCE_S
from tests.unit.models.managed import Pending

READY, UNAVAILABLE, FAILED = ModelState.READY, ModelState.UNAVAILABLE, ModelState.FAILED


def test_override_of_the_config(make):
    """For that load; the next one undoes it."""
    fixture = make("a/1/model.onnx").start()
    override = LoadOverride(config='{"backend": "onnxruntime", "max_batch_size": 5}')
    assert fixture.load("a", override=override) is None
    assert fixture.registry.get("a").settings.batching.max_batch_size == 5
    assert fixture.load("a") is None
    assert fixture.registry.get("a").settings.batching.max_batch_size == 64


def test_override_of_the_files(make):
    """The model has no others, and may be one that is in no repository."""
    fixture = make("a/1/model.onnx").start()
    override = LoadOverride(config='{"backend": "onnxruntime"}', files={"7/model.onnx": b""})
    assert fixture.load("a", override=override) is None
    assert fixture.states() == {"a/7": READY}
    assert fixture.load("new", override=override) is None
    assert fixture.registry.get("new").version == "7"


@pytest.mark.parametrize(
    ("config", "path", "message"),
    [
        ("{", "1/model.onnx", "Invalid config override"),
        ("{}", "../model.onnx", r"file:\.\./model\.onnx: expected VERSION/NAME"),
        ("{}", "1/../../model.onnx", "expected VERSION/NAME"),
        ("{}", "/1/model.onnx", "expected VERSION/NAME"),
        ("{}", "model.onnx", "expected VERSION/NAME"),
        ("{}", "1/notes.txt", "expected an ONNX file"),
    ],
)
def test_invalid_overrides(make, config, path, message):
    """Nothing is written outside, and nothing is loaded."""
    error = make("a/1/model.onnx").start().load("a", override=LoadOverride(config=config, files={path: b""}))
    assert error is not None
    assert re.search(message, error.message)


def test_remembers_what_was_loaded(make, tmp_path):
    """Over a restart: models by their policy, versions one by one."""
    remember = str(tmp_path / "state" / "loaded.json")
    fixture = make("a/1/model.onnx", "b/1/model.onnx", "b/2/model.onnx", "c/1/model.onnx", remember=remember).start()
    assert fixture.load("a") is None
    assert fixture.load("b", version="1") is None
    assert fixture.load("c") is None
    assert fixture.unload("c") is None
    assert fixture.manager.stop(PATIENCE_S)
    fixture.touch("a/2/model.onnx")
    assert make(remember=remember).start().states() == {"a/2": READY, "a/1": READY, "b/1": READY}


def test_list_that_cannot_be_written(make, tmp_path, caplog):
    """It is said, the load succeeds, and nothing is left behind."""
    remember = tmp_path / "state" / "loaded.json"
    remember.mkdir(parents=True)
    fixture = make("a/1/model.onnx", remember=str(remember)).start()
    assert fixture.load("a") is None
    assert "loaded.json cannot be written" in caplog.text
    assert list(remember.parent.iterdir()) == [remember]


def test_remembers_versions_beyond_the_policy(make, tmp_path):
    """Those that were asked for one by one, and what is left of a model when some were unloaded."""
    options = {"remember": str(tmp_path / "loaded.json"), "versions": {"latest": 1}}
    (tmp_path / "b").mkdir()
    (tmp_path / "b/model.yaml").write_text("versions: all\n")
    fixture = make("a/1/model.onnx", "a/2/model.onnx", "b/1/model.onnx", "b/2/model.onnx", **options).start()
    assert fixture.load("a") is None
    assert fixture.load("a", version="1") is None
    assert fixture.load("b") is None
    assert fixture.unload("b", version="2") is None
    serving = {key for key, state in fixture.states().items() if state is READY}
    assert serving == {"a/2", "a/1", "b/1"}
    assert fixture.manager.stop(PATIENCE_S)
    assert make(**options).start().states() == dict.fromkeys(serving, READY)


def test_gone_versions_are_forgotten(make):
    """By the next load of their model."""
    fixture = make("a/1/model.onnx", "a/2/model.onnx", load=["a"]).start()
    (fixture.root / "a/1/model.onnx").unlink()
    assert fixture.load("a") is None
    fixture.wait_gone("a/1")
    assert fixture.load("a") is None
    assert fixture.states() == {"a/2": READY}


def test_stop_answers_those_who_wait(make):
    """Every operation ends."""
    fixture = make("a/1/model.onnx").start()
    fixture.loader.hold("a/1")
    pending: Sequence[Pending] = [fixture.begin_load("a"), fixture.begin_load("a")]
    assert fixture.loader.loading["a/1"].wait(PATIENCE_S)
    assert fixture.manager.stop(PATIENCE_S)
    assert all(each.outcome() is not None for each in pending)


def test_stop_deletes_the_files_of_overrides(make, tmp_path, monkeypatch):
    """Of loads that it interrupts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    fixture = make("a/1/model.onnx").start()
    fixture.loader.hold("a/1")
    pending = fixture.begin_load("a", override=LoadOverride(config="{}"))
    assert fixture.loader.loading["a/1"].wait(PATIENCE_S)
    assert len(list(folder.iterdir())) == 1
    assert fixture.manager.stop(PATIENCE_S)
    assert pending.outcome() is not None
    assert list(folder.iterdir()) == []
