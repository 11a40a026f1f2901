"""Ending trial runs that take far longer than others, with real loops."""

import numpy as np
import pytest

from inferd.config.settings import ModelSettings
from inferd.runtime.opening import declared, open_runtime_session
from inferd.runtime.run_limit import RunLimit, TrialTooLongError
from inferd.runtime.runners import DirectRunner
from tests import onnx_models
from tests.load import busy_model


@pytest.fixture
def limit(tmp_path):
    """Of a model that loops as often as its largest element says, with a clock that the test sets."""
    session = open_runtime_session(onnx_models.save(busy_model(), tmp_path / "model.onnx"), ModelSettings())
    inputs, outputs = declared(session)
    with RunLimit(DirectRunner(session, inputs, outputs), ["y"]) as limit:
        yield limit


def test_a_run_without_end_is_ended(limit):
    """ONNX Runtime ends it between two rounds of its loop; the next run is none the worse."""
    limit.run({"x": np.ones((1, 1), np.float32)})
    with pytest.raises(TrialTooLongError, match="ended after 1 s"):
        limit.run({"x": np.full((1, 1), 1e18, np.float32)})
    assert limit.run({"x": np.ones((1, 1), np.float32)})["y"] == 1


def test_an_error_of_the_model_goes_on(limit):
    """It is no matter of time."""
    with pytest.raises(Exception, match="rank"):
        limit.run({"x": np.ones((1, 1, 1), np.float32)})


def test_the_limit_follows_the_longest_run():
    """Ten times as long may be a larger batch."""

    class Runner:
        def run(self, inputs, outputs, options):
            now[0] += inputs["x"]
            return [inputs["x"]]

    now = [0.0]
    limit = RunLimit(Runner(), ["y"], clock=lambda: now[0])
    assert limit.limit_s == 30
    for took_s, limit_s in ((0.01, 1), (0.5, 5), (0.1, 5), (4, 40)):
        limit.run({"x": took_s})
        assert limit.limit_s == limit_s
