"""Runs in this process: the model that is found, and what failed runs come to."""

import threading

import numpy as np
import pytest

from inferd.batch.errors import BatchError, RowsFailedError, UsageError
from inferd.batch.local import LocalRunner, open_local
from inferd.config.settings import Settings
from inferd.runtime.errors import RunFailedError
from inferd.runtime.session import open_session
from tests import onnx_models
from tests.decoder_models import write_tiny_decoder
from tests.patience import PATIENCE_S
from tests.unit.batch.fake_runner import signature


@pytest.fixture
def opened():
    """Open models as a job does; they are closed at the end."""
    runners = []

    def opened(model, **settings):
        runners.append(open_local(str(model), Settings(**settings)))
        return runners[-1]

    yield opened
    for runner in runners:
        runner.close()


def ask(runner, **inputs):
    outputs = [spec.name for spec in runner.signature.outputs]
    return runner.submit(inputs, outputs).result(PATIENCE_S)


@pytest.mark.parametrize("place", ["lookup.onnx", "model", "model/1"])
def test_places_of_models(tmp_path, opened, place):
    """A file, the directory of a model, or one of its versions."""
    onnx_models.save(onnx_models.lookup(), tmp_path / "lookup.onnx")
    onnx_models.save(onnx_models.lookup(), tmp_path / "model" / "1" / "model.onnx")
    assert ask(opened(tmp_path / place), index=np.array([1, 3]))["y"].tolist() == [10.0, 30.0]


def test_built_in_model(opened):
    """Is there by its name, unless a path has it."""
    assert opened("digits").identity["name"] == "digits"


def test_highest_version(tmp_path, opened):
    """Is the one that runs."""
    onnx_models.save(onnx_models.linear(factor=2.0), tmp_path / "model" / "9" / "model.onnx")
    onnx_models.save(onnx_models.linear(factor=3.0), tmp_path / "model" / "10" / "model.onnx")
    runner = opened(tmp_path / "model")
    assert ask(runner, x=np.ones((1, 3), np.float32))["y"].tolist() == [[4.0, 4.0, 4.0]]
    assert runner.identity["version"] == "10"


def test_no_model(tmp_path, opened):
    """What there is not, and what is more than one."""
    with pytest.raises(UsageError, match="no such file or directory"):
        opened(tmp_path / "none.onnx")
    for name in ("a", "b"):
        onnx_models.save(onnx_models.lookup(), tmp_path / name / "1" / "model.onnx")
    with pytest.raises(UsageError, match="expected one model, found a, b"):
        opened(tmp_path)


def test_language_model(tmp_path, opened):
    """Is refused with what it is for."""
    write_tiny_decoder(tmp_path)
    with pytest.raises(UsageError, match="language model"):
        opened(tmp_path)


def test_broken_model(tmp_path, opened):
    """Says what a server would say."""
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(BatchError, match="cannot be loaded"):
        opened(tmp_path / "model.onnx")


def test_settings_of_the_model(tmp_path, opened):
    """Apply as they do on a server, and are part of its identity."""
    onnx_models.save(onnx_models.linear(), tmp_path / "model" / "1" / "model.onnx")
    before = opened(tmp_path / "model").identity
    (tmp_path / "model" / "model.yaml").write_text("batching: {max_batch_size: 3}")
    runner = opened(tmp_path / "model")
    assert runner.max_rows == 3
    assert runner.identity != before
    assert runner.identity["files"] == before["files"]


def test_model_that_may_not_batch(tmp_path, opened):
    """Runs one row at a time."""
    assert opened(onnx_models.save(onnx_models.centred(), tmp_path / "model.onnx")).max_rows == 1


def test_failed_run(tmp_path, opened):
    """Blames the rows, and the next ones run."""
    runner = opened(onnx_models.save(onnx_models.lookup(), tmp_path / "model.onnx"))
    with pytest.raises(RowsFailedError, match=r"the model failed: .*Gather") as caught:
        ask(runner, index=np.array([1, 4]))
    assert caught.value.code == "RUN_FAILED"
    assert ask(runner, index=np.array([2]))["y"].tolist() == [20.0]
    assert runner.busy_s > 0


def test_inputs_that_do_not_fit_together(tmp_path, opened):
    """Are refused as by a server, whatever the model would make of them."""
    runner = opened(onnx_models.save(onnx_models.two_inputs(), tmp_path / "model.onnx"))
    with pytest.raises(RowsFailedError, match=r'"b": expected length = 2 as in input "a", got 1') as caught:
        ask(runner, a=np.ones((3, 2), np.float32), b=np.ones((3, 1), np.int64))
    assert caught.value.code == "INVALID_INPUT"


def test_texts_that_are_none(tmp_path, opened):
    """ONNX Runtime cannot take them."""
    runner = opened(onnx_models.save(onnx_models.strings(), tmp_path / "model.onnx"))
    name = runner.signature.inputs[0].name
    shape = [1 if each is None or isinstance(each, str) else each for each in runner.signature.inputs[0].shape]
    with pytest.raises(RowsFailedError, match="UTF-8"):
        ask(runner, **{name: np.full(shape, b"\xff", object)})


class FakeSession:
    """A session whose runs wait until they are stopped, or fail with ``error``."""

    def __init__(self, error=None):
        self.signature = signature()
        self.error = error
        self.has_begun = threading.Event()

    def run(self, inputs, outputs, stop):
        self.has_begun.set()
        while self.error is None and not stop.is_stopped:
            pass
        raise RunFailedError(RuntimeError(self.error or "terminated"))

    def close(self):
        """Do nothing."""


def fake_runner(session, max_run_s=5.0):
    return LocalRunner(session, max_rows=8, max_run_s=max_run_s, places=1, identity={})


def test_long_runs_are_stopped():
    """After the time that the settings allow, which their rows are told."""
    session = FakeSession()
    runner = fake_runner(session, max_run_s=-1.0)
    answer = runner.submit({"x": np.array([1])}, ("y",))
    assert session.has_begun.wait(PATIENCE_S)
    runner.stop_long_runs()
    with pytest.raises(RowsFailedError, match="took longer"):
        answer.result(PATIENCE_S)
    runner.close()


def test_closing_ends_runs():
    """Those that wait, too."""
    session = FakeSession()
    runner = fake_runner(session)
    answers = [runner.submit({"x": np.array([1])}, ("y",)) for _ in range(3)]
    assert session.has_begun.wait(PATIENCE_S)
    runner.close()
    assert all(answer.done() for answer in answers)


def test_lost_device_ends_the_job():
    """No row is to blame for it."""
    error = "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=h ; file=f.cc ; line=1"
    runner = fake_runner(FakeSession(error))
    with pytest.raises(BatchError, match="does not run any more"):
        ask(runner, x=np.array([1]))
    runner.close()


def test_fewer_rows_where_memory_was_short(tmp_path, monkeypatch):
    """What warm-up has determined holds here too."""
    path = onnx_models.save(onnx_models.linear(), tmp_path / "model.onnx")

    def short_of_memory(*arguments, **options):
        session = open_session(*arguments, **options)
        session.remember_rows(5)
        return session

    monkeypatch.setattr("inferd.batch.local.open_session", short_of_memory)
    runner = open_local(str(path), Settings(runtime={"verdict_cache": tmp_path / "cache"}))
    assert runner.max_rows == 5
    runner.close()
