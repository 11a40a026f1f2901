"""Runs of a session: whether their time is bounded, and how they are stopped."""

import threading

import numpy as np
import pytest

from inferd import dtypes
from inferd.runtime.errors import RunFailedError
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
