"""Runs of a session: whether their time is bounded, and how they are stopped."""

import os
import threading

import numpy as np
import pytest

from inferd import dtypes
from inferd.runtime.errors import ModelLoadError, RunFailedError
from inferd.runtime.opening import open_runtime_session
from inferd.runtime.runners import RunStop
from tests import onnx_models
from tests.load import busy_model
from tests.unit.runtime.test_session import opened


def test_runs_are_bounded(tmp_path):
    """Determined from the file, also with a cached verdict; not without batch axes."""
    cache = {"verdict_cache": tmp_path / "verdicts"}
    for _ in range(2):
        session = opened(onnx_models.linear(), tmp_path, runtime=cache)
        assert session.runs_are_bounded
        assert not opened(onnx_models.identity(dtypes.BY_NAME["FP32"], ("batch", "length")), tmp_path).runs_are_bounded
        assert not opened(busy_model(), tmp_path, runtime=cache).runs_are_bounded
    session.stop_batching("the rows were none")
    assert not session.runs_are_bounded


def test_run_can_be_stopped(tmp_path):
    """From another thread; later runs are unaffected."""
    session = opened(busy_model(), tmp_path)
    stop = RunStop()
    timer = threading.Timer(0.05, stop.stop)
    timer.start()
    with pytest.raises(RunFailedError):
        session.run({"x": np.full((1, 1), 4e18, np.float32)}, ["y"], stop)
    timer.join()
    assert session.run({"x": np.ones((1, 1), np.float32)}, ["y"], RunStop())[0] == 1


ONE_ROW = {"x": np.ones((1, 3), np.float32)}


def test_reopened_session_runs_again(tmp_path):
    """From the same file, with the same verdict."""
    session = opened(onnx_models.linear(), tmp_path)
    signature = session.signature
    session._runner.release()
    session.reopen()
    assert session.run(ONE_ROW, ["y"])[0].tolist() == [[3, 3, 3]]
    assert session.try_out()
    assert session.signature is signature


def test_another_file_is_not_opened_in_its_place(tmp_path):
    """It would be served under the signature and the verdict of the old one; the session then does not run."""
    session = opened(onnx_models.linear(), tmp_path)
    onnx_models.save(onnx_models.linear(factor=3.0), tmp_path / "model.onnx").touch()
    with pytest.raises(ModelLoadError, match=r"model\.onnx or a file with its weights is not the one any more"):
        session.reopen()
    with pytest.raises(RuntimeError, match="closed"):
        session.run(ONE_ROW, ["y"])


def test_file_of_the_same_size_and_time_is_not_opened_in_its_place(tmp_path):
    """As weights of the same architecture have the same size, and reproducible builds one time for all files."""
    session = opened(onnx_models.linear(), tmp_path)
    model, other = tmp_path / "model.onnx", tmp_path / "other.onnx"
    onnx_models.save(onnx_models.linear(factor=3.0), other)
    before = model.stat()
    assert other.stat().st_size == before.st_size
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(model)
    with pytest.raises(ModelLoadError, match="is not the one any more"):
        session.reopen()


def test_file_that_changes_while_it_is_opened_again_is_not_served(tmp_path, monkeypatch):
    """What was read of it may be either."""
    session = opened(onnx_models.linear(), tmp_path)

    def opened_late(path, *args):
        onnx_models.save(onnx_models.linear(factor=3.0), path).touch()
        return open_runtime_session(path, *args)

    monkeypatch.setattr("inferd.runtime.session.open_runtime_session", opened_late)
    with pytest.raises(ModelLoadError, match="is not the one any more"):
        session.reopen()


def test_deleted_file_is_not_opened_again(tmp_path):
    """The text says so."""
    session = opened(onnx_models.linear(), tmp_path)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(ModelLoadError, match="is not the one any more"):
        session.reopen()


def test_closed_session_stays_closed(tmp_path):
    """Also if it is being opened again meanwhile."""
    session = opened(onnx_models.linear(), tmp_path)
    session.close()
    session.reopen()
    with pytest.raises(RuntimeError, match="closed"):
        session.run(ONE_ROW, ["y"])
