"""Which sizes are run before a model is ready."""

import pytest

from inferd.config.settings import BatchingSettings, ModelSettings
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.providers import CPU, CUDA
from inferd.runtime.session import OnnxSession, open_session
from inferd.runtime.warmup import batch_sizes, warm_up
from tests import onnx_models


@pytest.mark.parametrize(
    ("batching", "batchable", "every", "sizes"),
    [
        (BatchingSettings(max_batch_size=8), True, False, [1, 8]),
        (BatchingSettings(max_batch_size=4), True, True, [1, 2, 3, 4]),
        (BatchingSettings(max_batch_size=8), False, True, [1]),
        (BatchingSettings(max_batch_size=8, enabled=False), True, False, [1]),
        (BatchingSettings(max_batch_size=1), True, False, [1]),
    ],
)
def test_sizes(batching, batchable, every, sizes):
    """Every size where each new shape costs, the ends elsewhere, and 1 where nothing is batched."""
    assert batch_sizes(batching, batchable=batchable, every=every) == sizes


class Recorder:
    """Counts the rows of each run, and can run no more than ``most`` at once."""

    def __init__(self, most: int = 1000) -> None:
        self.rows: list[int] = []
        self._most = most

    def run(self, inputs, outputs):
        self.rows.append(len(inputs["x"]))
        if self.rows[-1] > self._most:
            raise MemoryError("no room")
        return []


def session(runner: Recorder, tmp_path, *providers: str, warmup: bool = True) -> OnnxSession:
    path = onnx_models.save(onnx_models.linear(), tmp_path / "model.onnx")
    real = open_session(path, ModelSettings.model_validate({"runtime": {"warmup": warmup}}))
    inspection = real._inspection
    return OnnxSession(
        runner=runner, inspection=inspection, made_up=real.made_up, used=providers, parallel_runs=real.parallel_runs
    )


SETTINGS = ModelSettings(batching=BatchingSettings(max_batch_size=4))


def test_the_cpu_runs_the_ends(tmp_path):
    """The smallest and the largest batch."""
    runner = Recorder()
    warm_up(session(runner, tmp_path, CPU), SETTINGS)
    assert runner.rows == [1, 4]


def test_a_gpu_runs_every_size(tmp_path):
    """Each is a shape whose kernels must be chosen."""
    runner = Recorder()
    warm_up(session(runner, tmp_path, CUDA, CPU), SETTINGS)
    assert runner.rows == [1, 2, 3, 4]


def test_a_size_that_does_not_run_is_an_error(tmp_path):
    """Better before the first request than under load."""
    with pytest.raises(ModelLoadError, match="cannot run 4 rows at once, lower max_batch_size: no room"):
        warm_up(session(Recorder(most=3), tmp_path, CPU), SETTINGS)


def test_without_made_up_inputs_nothing_is_run(tmp_path):
    """Because it is turned off, or because none were found."""
    runner = Recorder()
    warm_up(session(runner, tmp_path, CPU, warmup=False), SETTINGS)
    assert runner.rows == []
