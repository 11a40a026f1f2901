"""Loading and unloading, with real models and a real thread."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from structlog.contextvars import get_contextvars

from inferd.batching.request import InferenceRequest, InferenceResult, Outcome, Reply
from inferd.config.settings import Settings
from inferd.errors import ModelUnavailableError
from inferd.models import loader as loader_module
from inferd.models.load_meter import Measured
from inferd.models.model_source import ModelSource
from inferd.models.registry import ModelRegistry
from inferd.models.repository import resolve
from inferd.models.residency import Memory
from inferd.models.settings import read_model_settings
from inferd.models.sizes import ModelSizes, size_key
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.signature import ModelSignature
from tests import onnx_models
from tests.fakes import RecordingStats
from tests.patience import PATIENCE_S
from tests.unit.models.managers import manager_of


class Fixture:
    """A manager that loads models in a thread, and a record of its callbacks."""

    def __init__(self, **settings: dict) -> None:
        self.registry = ModelRegistry()
        self.stats: dict[tuple[str, str], RecordingStats] = {}
        self.states: list[tuple[str, ModelState]] = []
        self.loaded = threading.Event()
        self.manager = manager_of(
            Settings.model_validate(settings),
            self.registry,
            stats_for=self._stats_for,
            on_state=lambda version: self.states.append((version.name, version.state)),
        )

    def _stats_for(self, name: str, version: str) -> RecordingStats:
        return self.stats.setdefault((name, version), RecordingStats())

    def start(self, sources: list[ModelSource]) -> None:
        found: dict[str, dict[str, ModelSource]] = {}
        for source in sources:
            found.setdefault(source.name, {})[source.version] = source
        self.manager.start(found, self.loaded.set)

    def load(self, *paths: Path) -> "Fixture":
        self.start(resolve(paths))
        assert self.loaded.wait(PATIENCE_S)
        return self


@pytest.fixture
def fixture():
    """A manager whose models are unloaded after the test."""
    made = Fixture()
    yield made
    assert made.manager.stop(10)


@pytest.fixture
def linear(tmp_path) -> Path:
    """A valid model."""
    return onnx_models.save(onnx_models.linear(), tmp_path / "linear.onnx")


def infer(version: ModelVersion, value: float, signature: ModelSignature | None = None) -> Outcome:
    x = np.full((1, 3), value, np.float32)
    checked = (signature or version.require_signature()).check({"x": x})
    answered = threading.Event()
    outcomes: list[Outcome] = []

    def on_outcome(outcome: Outcome) -> None:
        outcomes.append(outcome)
        answered.set()

    request = InferenceRequest(
        inputs={"x": x},
        outputs=("y",),
        rows=checked.rows,
        nbytes=checked.nbytes,
        stack_key=checked.stack_key,
        reply=Reply(on_outcome),
        received_at=0.0,
    )
    version.submit([request])
    assert answered.wait(PATIENCE_S)
    return outcomes[0]


def test_failing_warm_up_sample_fails_the_load(fixture, tmp_path):
    """Before the version could become ready, and with the name of the sample."""
    onnx_models.save(onnx_models.linear(), tmp_path / "m" / "1" / "model.onnx")
    sample = "{name: two, inputs: {x: {datatype: FP32, dims: [2], fill: zero}}}"
    (tmp_path / "m" / "model.yaml").write_text(f"warmup: [{sample}]")
    fixture.load(tmp_path)
    (version,) = fixture.registry.all()
    assert version.state is ModelState.FAILED
    assert version.reason == 'warm-up sample 0 "two": input "x": expected shape [batch,3], got [1,2]'


class CachedFiles:
    """Files of remote storage that are there."""

    def fetch(self, path: Path, is_cancelled: Callable[[], bool]) -> object:
        return path

    def identity(self, path: Path) -> tuple[str, int, int, int]:
        return str(path), 0, 0, 0

    def changed_at(self) -> float:
        return 0.0


@pytest.mark.parametrize(("remote", "is_mapped"), [(CachedFiles(), True), (None, False)])
def test_weights_from_the_cache_stay_mapped(remote, is_mapped, fixture, tmp_path):
    """Nobody changes those; others are copied."""
    path = onnx_models.save_with_external_data(tmp_path / "m" / "1" / "model.onnx")
    fixture.start([replace(source, remote=remote) for source in resolve([tmp_path])])
    assert fixture.loaded.wait(PATIENCE_S)
    assert fixture.registry.get("m").state is ModelState.READY
    assert (str(path.with_suffix(".weights")) in Path("/proc/self/maps").read_text()) is is_mapped


def test_loads_a_model(fixture, linear):
    """From LOADING to READY; its requests are counted."""
    fixture.load(linear)
    outcome = infer(fixture.registry.get("linear"), 2)
    assert isinstance(outcome, InferenceResult)
    assert outcome.outputs["y"].tolist() == [[5, 5, 5]]
    stages = [ModelState.LOADING, ModelState.VERIFYING, ModelState.WARMING, ModelState.READY]
    assert fixture.states == [("linear", state) for state in stages]
    assert fixture.stats["linear", "1"].offers == [1]


def test_least_of_several_peaks(linear, monkeypatch):
    """One measurement may be too high, because of requests to other models."""
    settings, sizes = Settings.model_validate({"runtime": {"verdict_cache": None}}), ModelSizes()
    (source,) = resolve([linear])
    key = size_key(source, read_model_settings(settings, source))
    for peak in (5 * 2**40, 4 * 2**40):
        sizes.record(key, Measured(peak=Memory(peak), is_alone=True))
    monkeypatch.setattr(sizes, "record", lambda *_: None)
    loaded = threading.Event()
    manager = manager_of(settings, ModelRegistry(), sizes=sizes)
    manager.start({source.name: {source.version: source}}, loaded.set)
    assert loaded.wait(PATIENCE_S)
    (version,) = manager._parts.lifecycle.loaded().values()
    assert version.least_peak == Memory(4 * 2**40)
    assert manager.stop(10)


def test_warm_up_seeds_the_run_cost(fixture, linear, monkeypatch):
    """Predictions before the first request."""
    monkeypatch.setattr(loader_module, "warm_up", lambda *_, **__: [(1, 0.25), (64, 2.0)])
    fixture.load(linear)
    cost = fixture.registry.get("linear").batcher.run_cost()
    assert [(each.rows, each.seconds) for each in (cost.sizes[0], cost.sizes[-1])] == [(1, 0.25), (64, 2.0)]


@pytest.mark.parametrize(("models", "logged"), [(9, []), (20, ["runs of 20 model versions have 29 threads each"])])
def test_limits_threads_of_many_models(fixture, tmp_path, monkeypatch, caplog, models, logged):
    """A limit is logged once."""
    monkeypatch.setattr(loader_module, "usable_cores", lambda: 64)
    caplog.set_level("INFO")
    names = [f"broken-{number}" for number in range(models)]
    for name in names:
        (tmp_path / f"{name}.onnx").write_bytes(b"not a model")
    fixture.load(*(tmp_path / f"{name}.onnx" for name in names))
    threads = {version.settings.runtime.intra_op_threads for version in fixture.registry.all()}
    assert threads == {29 if logged else 0}
    assert [text.partition(",")[0] for text in caplog.messages if text.startswith("runs of")] == logged


def test_failed_model_does_not_affect_others(fixture, linear, tmp_path):
    """It has a reason, and the others are served."""
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    maps = onnx_models.save(onnx_models.sequence_of_maps(), tmp_path / "maps.onnx")
    fixture.load(tmp_path / "broken.onnx", maps, linear)
    assert {version.name: version.state for version in fixture.registry.all()} == {
        "broken": ModelState.FAILED,
        "linear": ModelState.READY,
        "maps": ModelState.FAILED,
    }
    assert (
        fixture.registry.find("broken").reason
        == "broken.onnx is not an ONNX file: it ends early or is damaged near byte 1"
    )
    assert "only tensors can be served" in fixture.registry.find("maps").reason
    with pytest.raises(ModelUnavailableError):
        fixture.registry.get("broken")


def test_unreadable_files_fail_their_model_only(fixture, tmp_path):
    """A model file, settings and weights."""
    for name in ("good", "pipe", "link", "settings", "weights"):
        (tmp_path / name / "1").mkdir(parents=True)
    onnx_models.save(onnx_models.linear(), tmp_path / "good" / "1" / "model.onnx")
    onnx_models.save(onnx_models.linear(), tmp_path / "settings" / "1" / "model.onnx")
    onnx_models.save_with_external_data(tmp_path / "weights" / "1" / "model.onnx")
    os.mkfifo(tmp_path / "pipe" / "1" / "model.onnx")
    (tmp_path / "link" / "1" / "model.onnx").symlink_to("nowhere")
    (tmp_path / "settings" / "model.yaml").symlink_to("model.yaml")
    (tmp_path / "weights" / "1" / "model.weights").unlink()
    fixture.load(tmp_path)
    assert {version.name: version.reason for version in fixture.registry.all()} == {
        "good": "",
        "pipe": "cannot read model.onnx: not a file but a pipe",
        "link": "cannot read model.onnx: a link that leads nowhere",
        "settings": "model.yaml cannot be read: Too many levels of symbolic links",
        "weights": "model.onnx has its weights in model.weights: there is no such file or directory",
    }


def test_log_context_while_loading(fixture, linear, monkeypatch):
    """Log events have the model and version."""
    bound = []

    def open_session(*_, **__):
        bound.append(dict(get_contextvars()))
        raise ModelLoadError("because")

    monkeypatch.setattr(loader_module, "open_session", open_session)
    fixture.load(linear)
    assert bound == [{"model": "linear", "version": "1"}]


def test_invalid_model_yaml_fails_its_model_only(fixture, linear, tmp_path):
    """The reason names the file and the field."""
    onnx_models.save(onnx_models.linear(), tmp_path / "other" / "1" / "model.onnx")
    (tmp_path / "other" / "model.yaml").write_text("batching:\n  max_batch_size: many\n")
    fixture.load(linear, tmp_path / "other")
    assert fixture.registry.get("linear")
    assert "batching.max_batch_size" in fixture.registry.find("other").reason
    assert "model.yaml" in fixture.registry.find("other").reason


def test_model_settings_apply_to_one_model(fixture, linear, tmp_path):
    """The others have the server's."""
    onnx_models.save(onnx_models.linear(), tmp_path / "other" / "1" / "model.onnx")
    (tmp_path / "other" / "model.yaml").write_text("batching:\n  max_batch_size: 4\n")
    fixture.load(linear, tmp_path / "other")
    assert fixture.registry.get("other").max_batch_size == 4
    assert fixture.registry.get("linear").max_batch_size == 64


def test_unexpected_errors_have_a_fixed_reason(fixture, linear, monkeypatch, caplog):
    """The log has the details, callers do not."""

    def explode(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(loader_module, "open_session", explode)
    fixture.load(linear)
    assert fixture.registry.find("linear").reason == "an unexpected error, see the server's log"
    assert "secret" in caplog.text


def test_all_models_are_registered_before_loading(fixture, linear, tmp_path, monkeypatch):
    """Callers get 'is loading', not 'there is no model'."""
    other = onnx_models.save(onnx_models.linear(), tmp_path / "other.onnx")
    gate, real = threading.Event(), loader_module.open_session

    def gated(*arguments, **named):
        assert gate.wait(PATIENCE_S)
        return real(*arguments, **named)

    monkeypatch.setattr(loader_module, "open_session", gated)
    fixture.start(resolve([linear, other]))
    try:
        assert [version.state for version in fixture.registry.all()] == [ModelState.LOADING] * 2
        assert not fixture.loaded.is_set()
    finally:
        gate.set()
    assert fixture.loaded.wait(PATIENCE_S)
    assert [version.state for version in fixture.registry.all()] == [ModelState.READY] * 2


def test_loads_an_empty_list(fixture):
    """The callback is called at once."""
    fixture.start([])
    assert fixture.loaded.wait(PATIENCE_S)


def test_unloading_closes_sessions_and_rejects_requests(linear):
    """Versions stay registered, as UNAVAILABLE."""
    fixture = Fixture().load(linear)
    version = fixture.registry.get("linear")
    session, signature = version._loaded.session, version.require_signature()
    assert fixture.manager.stop(10)
    assert fixture.states[-2:] == [("linear", ModelState.UNLOADING), ("linear", ModelState.UNAVAILABLE)]
    with pytest.raises(ModelUnavailableError, match="is unavailable"):
        fixture.registry.get("linear")
    # Found while it was READY.
    assert isinstance(infer(version, 1, signature), ModelUnavailableError)
    with pytest.raises(RuntimeError, match="closed"):
        session.run({"x": np.ones((1, 3), np.float32)}, ["y"])


def test_unloading_keeps_failed_models_failed(tmp_path):
    """They have nothing to unload."""
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    fixture = Fixture().load(tmp_path / "broken.onnx")
    assert fixture.manager.stop(10)
    assert fixture.registry.find("broken").state is ModelState.FAILED


@pytest.mark.parametrize("outcome", ["loads", "fails"])
def test_model_loading_during_unload_never_becomes_ready(outcome, linear, monkeypatch):
    """Nor do later ones; unloading does not wait for the load."""
    fixture = Fixture(repository={"parallel_loads": 1})
    opening, gate, real = threading.Event(), threading.Event(), loader_module.open_session
    begun = []

    def gated(*arguments, **named):
        begun.append(arguments)
        opening.set()
        assert gate.wait(PATIENCE_S)
        if outcome == "fails":
            raise loader_module.ModelLoadError("broken")
        return real(*arguments, **named)

    monkeypatch.setattr(loader_module, "open_session", gated)
    fixture.start([ModelSource(name=name, version="1", path=linear) for name in ("first", "second")])
    assert opening.wait(PATIENCE_S)
    assert fixture.manager.stop(10)
    gate.set()
    for thread in [each for each in threading.enumerate() if each.name == "model-loader"]:
        thread.join(PATIENCE_S)
    assert [version.state for version in fixture.registry.all()] == [ModelState.UNAVAILABLE] * 2
    assert ModelState.READY not in {state for _, state in fixture.states}
    assert len(fixture.states) == 4
    assert len(begun) == 1


def test_run_beyond_the_timeout_keeps_its_session(linear, monkeypatch):
    """A session must not be closed during a run; unloading returns False."""
    fixture = Fixture().load(linear)
    version = fixture.registry.get("linear")
    monkeypatch.setattr(version.batcher, "stop", lambda timeout_s: False)
    assert not fixture.manager.stop(0)
    assert version._loaded.session.run({"x": np.ones((1, 3), np.float32)}, ["y"])
    monkeypatch.undo()
    assert version.batcher.stop(PATIENCE_S)
