"""Loading and unloading, with real models and a real thread."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from structlog.contextvars import get_contextvars

from inferd.batching.request import InferenceRequest, InferenceResult, Outcome, Reply
from inferd.config.settings import Settings
from inferd.errors import ModelUnavailableError
from inferd.models import loader as loader_module
from inferd.models.loader import ModelLoader
from inferd.models.registry import ModelRegistry
from inferd.models.repository import ModelSource, resolve
from inferd.models.version import ModelState, ModelVersion
from inferd.runtime.errors import ModelLoadError
from tests import onnx_models
from tests.fakes import FakeClock, ManualPollThread, RecordingObserver
from tests.patience import PATIENCE_S


class House:
    """A loader with what it needs, and what it has told."""

    def __init__(self, **settings: dict) -> None:
        self.registry = ModelRegistry()
        self.observers: dict[tuple[str, str], RecordingObserver] = {}
        self.states: list[tuple[str, ModelState]] = []
        self.loaded = threading.Event()
        clock = FakeClock()
        self.loader = ModelLoader(
            settings=Settings.model_validate(settings),
            registry=self.registry,
            clock=clock,
            poll_thread=ManualPollThread(clock),
            alarm=ManualPollThread(clock),
            observer_for=self._observer_for,
            on_state=lambda version: self.states.append((version.name, version.state)),
        )

    def _observer_for(self, name: str, version: str) -> RecordingObserver:
        return self.observers.setdefault((name, version), RecordingObserver())

    def begin(self, sources: list[ModelSource]) -> None:
        self.loader.load_all(sources, self.loaded.set)

    def load(self, *paths: Path) -> "House":
        self.begin(resolve(paths))
        assert self.loaded.wait(PATIENCE_S)
        return self


@pytest.fixture
def house():
    """Ends what it has started."""
    made = House()
    yield made
    assert made.loader.unload_all(10)


@pytest.fixture
def linear(tmp_path) -> Path:
    """A model that works."""
    return onnx_models.save(onnx_models.linear(), tmp_path / "linear.onnx")


def ask(version: ModelVersion, value: float) -> Outcome:
    x = np.full((1, 3), value, np.float32)
    checked = version.require_signature().check({"x": x})
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


def test_a_model_is_loaded_and_answers(house, linear):
    """From LOADING to READY, with its observer told of the run."""
    house.load(linear)
    outcome = ask(house.registry.get("linear"), 2)
    assert isinstance(outcome, InferenceResult)
    assert outcome.outputs["y"].tolist() == [[5, 5, 5]]
    assert house.states == [("linear", ModelState.LOADING), ("linear", ModelState.READY)]
    assert house.observers["linear", "1"].offered_rows == [1]


@pytest.mark.parametrize(("models", "told"), [(9, []), (20, ["runs of 20 model versions have 29 threads each"])])
def test_many_models_share_a_number_of_threads(house, tmp_path, monkeypatch, caplog, models, told):
    """Which is said once, since it differs from what one model has."""
    monkeypatch.setattr(loader_module, "usable_cores", lambda: 64)
    caplog.set_level("INFO")
    names = [f"broken-{number}" for number in range(models)]
    for name in names:
        (tmp_path / f"{name}.onnx").write_bytes(b"not a model")
    house.load(*(tmp_path / f"{name}.onnx" for name in names))
    threads = {version.settings.runtime.intra_op_threads for version in house.registry.all()}
    assert threads == {29 if told else 0}
    assert [text.partition(",")[0] for text in caplog.messages if text.startswith("runs of")] == told


@pytest.mark.parametrize(("before", "after", "grown"), [(1000, 5000, 4000), (5000, 1000, 0)])
def test_a_version_knows_by_how_much_the_process_grew(house, linear, monkeypatch, before, after, grown):
    """Memory that was free before may be enough for it, which is no less than nothing."""
    seen = iter([before, after])
    monkeypatch.setattr("inferd.models.loader.resident_bytes", lambda: next(seen))
    house.load(linear)
    assert house.registry.get("linear").memory_bytes == grown


def test_a_model_that_fails_leaves_the_others_alone(house, linear, tmp_path):
    """It says why, and they serve."""
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    maps = onnx_models.save(onnx_models.sequence_of_maps(), tmp_path / "maps.onnx")
    house.load(tmp_path / "broken.onnx", maps, linear)
    assert {version.name: version.state for version in house.registry.all()} == {
        "broken": ModelState.FAILED,
        "linear": ModelState.READY,
        "maps": ModelState.FAILED,
    }
    assert (
        house.registry.find("broken").reason
        == "broken.onnx is not an ONNX file: it ends early or is damaged near byte 1"
    )
    assert "only tensors can be served" in house.registry.find("maps").reason
    with pytest.raises(ModelUnavailableError):
        house.registry.get("broken")


def test_files_that_cannot_be_read_fail_alone(house, tmp_path):
    """Of a repository: a model, its settings and its weights."""
    for name in ("good", "pipe", "link", "settings", "weights"):
        (tmp_path / name / "1").mkdir(parents=True)
    onnx_models.save(onnx_models.linear(), tmp_path / "good" / "1" / "model.onnx")
    onnx_models.save(onnx_models.linear(), tmp_path / "settings" / "1" / "model.onnx")
    onnx_models.save_with_external_data(tmp_path / "weights" / "1" / "model.onnx")
    os.mkfifo(tmp_path / "pipe" / "1" / "model.onnx")
    (tmp_path / "link" / "1" / "model.onnx").symlink_to("nowhere")
    (tmp_path / "settings" / "model.yaml").symlink_to("model.yaml")
    (tmp_path / "weights" / "1" / "model.weights").unlink()
    house.load(tmp_path)
    assert {version.name: version.reason for version in house.registry.all()} == {
        "good": "",
        "pipe": "cannot read model.onnx: not a file but a pipe",
        "link": "cannot read model.onnx: a link that leads nowhere",
        "settings": "model.yaml cannot be read: Too many levels of symbolic links",
        "weights": "model.onnx has its weights in model.weights: there is no such file or directory",
    }


def test_what_is_logged_while_a_model_loads_is_about_it(house, linear, monkeypatch):
    """Whoever logs it need not know which model that is."""
    bound = []

    def open_session(path, settings):
        bound.append(dict(get_contextvars()))
        raise ModelLoadError("because")

    monkeypatch.setattr(loader_module, "open_session", open_session)
    house.load(linear)
    assert bound == [{"model": "linear", "version": "1"}]


def test_a_bad_model_yaml_fails_its_model_alone(house, linear, tmp_path):
    """With the file and the field."""
    onnx_models.save(onnx_models.linear(), tmp_path / "other" / "1" / "model.onnx")
    (tmp_path / "other" / "model.yaml").write_text("batching:\n  max_batch_size: many\n")
    house.load(linear, tmp_path / "other")
    assert house.registry.get("linear")
    assert "batching.max_batch_size" in house.registry.find("other").reason
    assert "model.yaml" in house.registry.find("other").reason


def test_a_model_s_own_settings_hold_for_it_alone(house, linear, tmp_path):
    """The others keep the server's."""
    onnx_models.save(onnx_models.linear(), tmp_path / "other" / "1" / "model.onnx")
    (tmp_path / "other" / "model.yaml").write_text("batching:\n  max_batch_size: 4\n")
    house.load(linear, tmp_path / "other")
    assert house.registry.get("other").max_batch_size == 4
    assert house.registry.get("linear").max_batch_size == 64


def test_an_unexpected_error_fails_the_model_with_a_fixed_text(house, linear, monkeypatch, caplog):
    """The log has the rest, callers do not."""

    def explode(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(loader_module, "open_session", explode)
    house.load(linear)
    assert house.registry.find("linear").reason == "an unexpected error, see the server's log"
    assert "secret" in caplog.text


def test_all_models_are_known_before_the_first_is_loaded(house, linear, tmp_path, monkeypatch):
    """Callers hear that a model is loading, and not that there is none."""
    other = onnx_models.save(onnx_models.linear(), tmp_path / "other.onnx")
    gate, real = threading.Event(), loader_module.open_session

    def gated(path, settings):
        assert gate.wait(PATIENCE_S)
        return real(path, settings)

    monkeypatch.setattr(loader_module, "open_session", gated)
    house.begin(resolve([linear, other]))
    try:
        assert [version.state for version in house.registry.all()] == [ModelState.LOADING] * 2
        assert not house.loaded.is_set()
    finally:
        gate.set()
    assert house.loaded.wait(PATIENCE_S)
    assert [version.state for version in house.registry.all()] == [ModelState.READY] * 2


def test_without_models_there_is_nothing_to_wait_for(house):
    """An empty list is loaded at once."""
    house.begin([])
    assert house.loaded.wait(PATIENCE_S)


def test_unloading_closes_sessions_and_refuses_requests(linear):
    """Versions stay known, as UNLOADING."""
    house = House().load(linear)
    version = house.registry.get("linear")
    assert house.loader.unload_all(10)
    assert house.states[-1] == ("linear", ModelState.UNLOADING)
    with pytest.raises(ModelUnavailableError, match="is unloading"):
        house.registry.get("linear")
    # One that was found while it was READY.
    assert isinstance(ask(version, 1), ModelUnavailableError)
    with pytest.raises(RuntimeError, match="closed"):
        version._loaded.session.run({"x": np.ones((1, 3), np.float32)}, ["y"])


def test_a_failed_model_stays_failed_when_all_are_unloaded(tmp_path):
    """There is nothing to unload."""
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    house = House().load(tmp_path / "broken.onnx")
    assert house.loader.unload_all(10)
    assert house.registry.find("broken").state is ModelState.FAILED


@pytest.mark.parametrize("outcome", ["loads", "fails"])
def test_what_is_being_loaded_when_all_are_unloaded_never_becomes_ready(outcome, linear, monkeypatch):
    """Neither does what comes after it, and unloading does not wait for the load."""
    house = House()
    opening, gate, real = threading.Event(), threading.Event(), loader_module.open_session
    opened = []

    def gated(path, settings):
        opening.set()
        assert gate.wait(PATIENCE_S)
        if outcome == "fails":
            raise loader_module.ModelLoadError("broken")
        opened.append(real(path, settings))
        return opened[-1]

    monkeypatch.setattr(loader_module, "open_session", gated)
    sources = [ModelSource(name=name, version="1", path=linear) for name in ("first", "second")]
    house.begin(sources)
    assert opening.wait(PATIENCE_S)
    assert house.loader.unload_all(10)
    gate.set()
    assert house.loaded.wait(PATIENCE_S)
    assert [version.state for version in house.registry.all()] == [ModelState.UNLOADING] * 2
    assert ModelState.READY not in {state for _, state in house.states}
    assert len(house.states) == 4
    assert len(opened) == (1 if outcome == "loads" else 0)
    for session in opened:
        with pytest.raises(RuntimeError, match="closed"):
            session.run({}, [])


def test_a_run_that_outlasts_the_timeout_keeps_its_session(linear, monkeypatch):
    """Closing it under the run is what must not happen; unloading says that it has not finished."""
    house = House().load(linear)
    version = house.registry.get("linear")
    monkeypatch.setattr(version.batcher, "stop", lambda timeout_s: False)
    assert not house.loader.unload_all(0)
    assert version._loaded.session.run({"x": np.ones((1, 3), np.float32)}, ["y"])
    monkeypatch.undo()
    assert version.batcher.stop(PATIENCE_S)
