"""Bound runs, which GPUs use, exercised in CPU memory."""

import threading

import numpy as np
import onnxruntime
import pytest

from inferd import dtypes
from inferd.config.settings import ModelSettings
from inferd.runtime.runners import BoundRunner, DirectRunner
from inferd.runtime.session import open_session
from tests import onnx_models
from tests.unit.runtime.specs import spec


def bound(model) -> BoundRunner:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = [spec(each.name, (), datatype=dtypes.BY_ONNX[each.type].name) for each in session.get_inputs()]
    return BoundRunner(session, inputs, device="cpu", device_id=0)


def test_bound_and_direct_runs_agree():
    """For any batch size, and when a size returns."""
    model = onnx_models.two_inputs()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    direct, runner = DirectRunner(session, [], []), bound(model)
    for rows in (1, 4, 4, 2, 4):
        inputs = {"a": np.random.default_rng(rows).random((rows, 3), np.float32), "b": np.full((rows, 3), rows)}
        for left, right in zip(
            runner.run(inputs, ["product", "total"]), direct.run(inputs, ["product", "total"]), strict=False
        ):
            np.testing.assert_array_equal(left, right)


def test_binds_requested_outputs_only():
    """Outputs of the previous run are unbound."""
    runner = bound(onnx_models.two_inputs())
    inputs = {"a": np.ones((1, 1), np.float32), "b": np.ones((1, 1), np.int64)}
    assert len(runner.run(inputs, ["total", "product"])) == 2
    assert len(runner.run(inputs, ["product"])) == 1


def test_binds_scalars_and_empty_tensors():
    """Shapes without dimensions or without elements."""
    runner = bound(onnx_models.shared_scalar())
    (y,) = runner.run({"x": np.ones((1, 3), np.float32), "factor": np.array(5, np.float32)}, ["y"])
    assert y.tolist() == [[5, 5, 5]]
    (y,) = runner.run({"x": np.ones((0, 3), np.float32), "factor": np.array(5, np.float32)}, ["y"])
    assert y.shape == (0, 3)


@pytest.mark.parametrize("datatype", ["FP32", "BF16"])
def test_omitted_input_has_its_default(datatype):
    """Not the value of an earlier run."""
    model = onnx_models.optional_scale(dtypes.BY_NAME[datatype].onnx_element_type)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = [spec("x", ("batch", 3)), spec("scale", (), datatype=datatype, optional=True)]
    runner = BoundRunner(session, inputs, device="cpu", device_id=0)
    x, scale = np.ones((1, 3), np.float32), np.array(5, dtypes.BY_NAME[datatype].numpy)
    answers = [runner.run(given, ["y"])[0][0, 0] for given in ({"x": x}, {"x": x, "scale": scale}) * 2]
    assert answers == [2, 5, 2, 5]


def test_later_runs_do_not_overwrite_outputs():
    """Input buffers are reused, outputs are not."""
    runner = bound(onnx_models.linear())
    answers = [runner.run({"x": np.full((2, 3), n, np.float32)}, ["y"])[0] for n in range(4)]
    assert [answer[1, 2] for answer in answers] == [1, 3, 5, 7]


def test_run_after_failed_run():
    """A failed binding is discarded."""
    runner = bound(onnx_models.lookup())
    with pytest.raises(Exception, match="out of data bounds"):
        runner.run({"index": np.array([99])}, ["y"])
    assert runner.run({"index": np.array([3])}, ["y"])[0].tolist() == [30]


def test_threads_do_not_share_binding():
    """Each run in progress has its own."""
    runner = bound(onnx_models.linear())
    start = threading.Barrier(4)
    wrong: list[float] = []

    def run(value: float) -> None:
        start.wait()
        for _ in range(200):
            (y,) = runner.run({"x": np.full((2, 3), value, np.float32)}, ["y"])
            if not (y == 2 * value + 1).all():
                wrong.append(value)

    threads = [threading.Thread(target=run, args=(float(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("arena", [True, False])
@pytest.mark.parametrize("datatype", ["FP32", "BF16"], ids=["direct", "bound"])
def test_frees_memory_with_and_without_an_arena(datatype, arena, tmp_path):
    """There is nothing to shrink without one, and ONNX Runtime would fail the run."""
    path = onnx_models.save(onnx_models.cast_sum(dtypes.BY_NAME[datatype]), tmp_path / "model.onnx")
    settings = ModelSettings.model_validate({"runtime": {"memory_arena": arena, "verdict_cache": None}})
    session = open_session(path, settings)
    session.shrink_memory({"x": np.ones((1, 2), dtypes.BY_NAME[datatype].numpy)})


def test_only_runs_larger_than_one_row_leave_memory(tmp_path):
    """After such a run a smaller one does not change that, only shrinking does."""
    session = open_session(
        onnx_models.save(onnx_models.linear(), tmp_path / "model.onnx"),
        ModelSettings.model_validate({"runtime": {"verdict_cache": None}}),
    )
    # Runs that verified the model.
    assert session.has_spare_memory
    assert session.try_out()
    seen = []
    for rows in (1, 2, 1):
        session.run({"x": np.ones((rows, 3), np.float32)}, ["y"])
        seen.append(session.has_spare_memory)
    assert seen == [False, True, True]
    assert session.try_out()
    assert not session.has_spare_memory
