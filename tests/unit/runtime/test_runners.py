"""The bound way to run, which GPUs use, exercised in the CPU's memory."""

import threading

import numpy as np
import onnxruntime
import pytest

from inferd import dtypes
from inferd.runtime.runners import BoundRunner, DirectRunner
from tests import onnx_models
from tests.unit.runtime.specs import spec


def bound(model) -> BoundRunner:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = [spec(each.name, (), datatype=dtypes.BY_ONNX[each.type].name) for each in session.get_inputs()]
    return BoundRunner(session, inputs, device="cpu", device_id=0)


def test_bound_and_direct_runs_agree():
    """Whatever the batch size, and when a size comes again."""
    model = onnx_models.two_inputs()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    direct, runner = DirectRunner(session, [], []), bound(model)
    for rows in (1, 4, 4, 2, 4):
        inputs = {"a": np.random.default_rng(rows).random((rows, 3), np.float32), "b": np.full((rows, 3), rows)}
        for left, right in zip(
            runner.run(inputs, ["product", "total"]), direct.run(inputs, ["product", "total"]), strict=False
        ):
            np.testing.assert_array_equal(left, right)


def test_only_the_outputs_asked_for_are_bound():
    """Those of the run before are forgotten."""
    runner = bound(onnx_models.two_inputs())
    inputs = {"a": np.ones((1, 1), np.float32), "b": np.ones((1, 1), np.int64)}
    assert len(runner.run(inputs, ["total", "product"])) == 2
    assert len(runner.run(inputs, ["product"])) == 1


def test_scalars_and_empty_tensors_are_bound():
    """Shapes without elements or without dimensions are shapes."""
    runner = bound(onnx_models.shared_scalar())
    (y,) = runner.run({"x": np.ones((1, 3), np.float32), "factor": np.array(5, np.float32)}, ["y"])
    assert y.tolist() == [[5, 5, 5]]
    (y,) = runner.run({"x": np.ones((0, 3), np.float32), "factor": np.array(5, np.float32)}, ["y"])
    assert y.shape == (0, 3)


@pytest.mark.parametrize("datatype", ["FP32", "BF16"])
def test_an_input_that_is_left_out_has_its_default(datatype):
    """Not what an earlier run was given."""
    model = onnx_models.optional_scale(dtypes.BY_NAME[datatype].onnx_element_type)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = [spec("x", ("batch", 3)), spec("scale", (), datatype=datatype, optional=True)]
    runner = BoundRunner(session, inputs, device="cpu", device_id=0)
    x, scale = np.ones((1, 3), np.float32), np.array(5, dtypes.BY_NAME[datatype].numpy)
    answers = [runner.run(given, ["y"])[0][0, 0] for given in ({"x": x}, {"x": x, "scale": scale}) * 2]
    assert answers == [2, 5, 2, 5]


def test_answers_are_not_overwritten_by_later_runs():
    """Input buffers are used again; what was given out is not."""
    runner = bound(onnx_models.linear())
    answers = [runner.run({"x": np.full((2, 3), n, np.float32)}, ["y"])[0] for n in range(4)]
    assert [answer[1, 2] for answer in answers] == [1, 3, 5, 7]


def test_a_failed_run_leaves_nothing_behind():
    """The next one is right again."""
    runner = bound(onnx_models.lookup())
    with pytest.raises(Exception, match="out of data bounds"):
        runner.run({"index": np.array([99])}, ["y"])
    assert runner.run({"index": np.array([3])}, ["y"])[0].tolist() == [30]


def test_threads_do_not_share_a_binding():
    """Each run in progress has one of its own."""
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
