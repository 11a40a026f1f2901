"""Shapes, datatypes and optional inputs that the settings declare, beside those of the file."""

from pathlib import Path

import numpy as np
import pytest

from inferd.config.settings import ModelSettings
from inferd.errors import InvalidInputError
from inferd.runtime.batch_axes.verdict import Standing
from inferd.runtime.errors import ModelLoadError, RunFailedError
from inferd.runtime.served_tensors import ServedTensors, served_tensors
from inferd.runtime.session import OnnxSession, open_session
from tests import onnx_models
from tests.unit.runtime.specs import spec

_FILE_INPUTS = [spec("x", ("batch", 3, "height")), spec("bias", (1,), optional=True)]
_OTHER_COUNTS = "expected as many elements before, between and after each -1 as in shape"
_FILE_OUTPUTS = [spec("y", ("batch", 4)), spec("z", ())]


def served(**settings: dict) -> ServedTensors:
    return served_tensors(_FILE_INPUTS, _FILE_OUTPUTS, ModelSettings.model_validate(settings))


def opened(model, folder: Path, **settings: object) -> OnnxSession:
    path = onnx_models.save(model, folder / "model.onnx")
    return open_session(path, ModelSettings.model_validate({"runtime": {"verdict_cache": None}, **settings}))


def test_nothing_is_changed_without_settings():
    """And the runner is used as it is."""
    tensors = served()
    assert (tensors.inputs, tensors.outputs) == (_FILE_INPUTS, _FILE_OUTPUTS)
    runner = object()
    assert tensors.runner(runner) is runner


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ({"shape": [-1, 3, 8]}, ("batch", 3, 8)),
        ({"shape": [-1, -1, -1]}, ("batch", 3, "height")),
        ({"shape": [-1, 1, 3, -1], "model_shape": [-1, 3, -1]}, ("batch", 1, 3, "height")),
        ({"shape": [2, -1, 12], "model_shape": [2, -1, 12]}, (2, 3, 12)),
    ],
)
def test_shapes_for_clients(override, expected):
    """Open dimensions keep their names; what is open in the settings and fixed in the file is fixed."""
    assert served(inputs={"x": override}).inputs[0].shape == expected


def test_shape_of_output_without_declared_rank():
    """The settings declare it."""
    assert served(outputs={"z": {"shape": [-1, 2]}}).outputs[1].shape == (None, 2)


def test_optional_by_setting():
    """A default in the file need not be offered."""
    assert [each.optional for each in served().inputs] == [False, True]
    assert [each.optional for each in served(inputs={"bias": {"optional": True}}).inputs] == [False, True]
    assert [each.optional for each in served(inputs={"bias": {"optional": False}}).inputs] == [False, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inputs": {"q": {"datatype": "FP32"}}}, "inputs.q: the model has no such input, it has x, bias"),
        ({"outputs": {"q": {}}}, "outputs.q: the model has no such output, it has y, z"),
        ({"inputs": {"x": {"datatype": "FP16"}}}, "inputs.x.datatype: expected FP32 as in the model's file, got FP16"),
        (
            {"inputs": {"x": {"shape": [-1, 4, -1]}}},
            "inputs.x.shape: expected one that fits [batch,3,height] in the model's file, got [-1,4,-1]",
        ),
        (
            {"outputs": {"y": {"shape": [-1, 4, 1]}}},
            "outputs.y.shape: expected one that fits [batch,4] in the model's file, got [-1,4,1]",
        ),
        (
            {"outputs": {"y": {"shape": [-1, 5, 1], "model_shape": [-1, 5]}}},
            "outputs.y.model_shape: expected one that fits [batch,4] in the model's file, got [-1,5]",
        ),
        (
            {"outputs": {"y": {"shape": [-1, 2, 3], "model_shape": [-1, 4]}}},
            f"outputs.y.model_shape: {_OTHER_COUNTS}, which is [-1,2,3], got [-1,4]",
        ),
        (
            {"outputs": {"y": {"shape": [2, -1, 2], "model_shape": [-1, 4]}}},
            f"outputs.y.model_shape: {_OTHER_COUNTS}, which is [2,-1,2], got [-1,4]",
        ),
        (
            {"inputs": {"x": {"optional": True}}},
            "inputs.x.optional: expected false, because the model's file has no default for the input, got true",
        ),
    ],
)
def test_contradictions(settings, message):
    """Both sides are named."""
    with pytest.raises(ModelLoadError) as caught:
        served(**settings)
    assert str(caught.value) == message


def test_contradictions_name_the_files_with_settings(tmp_path):
    """Those that the model has: the settings themselves do not know where they are from."""
    (tmp_path / "config.pbtxt").touch()
    with pytest.raises(ModelLoadError, match=r"^config\.pbtxt: inputs\.x\.datatype: expected FP32 .*, got FP16$"):
        opened(onnx_models.linear(), tmp_path, inputs={"x": {"datatype": "FP16"}})


_RESHAPED = {
    "inputs": {"x": {"shape": [-1, 3, 1], "model_shape": [-1, 3]}},
    "outputs": {"y": {"shape": [-1, 1, 3], "model_shape": [-1, 3]}},
}


def test_outputs_that_are_not_listed(tmp_path):
    """Clients see those that are, also if another one has no rows that could be batched."""
    settings = {"served_outputs": "listed", "outputs": {"y": {}}, "batch_axes": "first"}
    session = opened(onnx_models.constant_output(), tmp_path, **settings)
    assert [each.name for each in session.signature.outputs] == ["y"]
    assert session.signature.batchable
    assert session.signature.select_outputs(()) == ("y",)
    with pytest.raises(InvalidInputError, match='output "classes"'):
        session.signature.select_outputs(("classes",))


def test_defaults_that_cannot_count_rows(tmp_path):
    """As weights that are inputs as well: they do not keep a model from batching by the operator's word."""
    session = opened(onnx_models.optional_scale(), tmp_path, batch_axes="first")
    assert [each.name for each in session.signature.inputs] == ["x"]
    assert session.signature.batchable
    with pytest.raises(ModelLoadError, match='input "scale"'):
        opened(onnx_models.optional_scale(), tmp_path, batch_axes="first", inputs={"scale": {}})


def test_reshapes_batches(tmp_path):
    """The proof, the check of a request and the run take the shapes for clients."""
    session = opened(onnx_models.linear(), tmp_path, **_RESHAPED)
    assert session.verdict.standing is Standing.PROVEN
    assert [(each.shape, each.batch_axis) for each in (*session.signature.inputs, *session.signature.outputs)] == [
        (("batch", 3, 1), 0),
        (("batch", 1, 3), 0),
    ]
    x = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    assert session.signature.check({"x": x}).rows == 2
    with pytest.raises(InvalidInputError, match=r"expected shape \[batch,3,1\], got \[2,3\]"):
        session.signature.check({"x": x[:, :, 0]})
    (y,) = session.run({"x": x}, ["y"])
    (plain,) = opened(onnx_models.linear(), tmp_path).run({"x": x[:, :, 0]}, ["y"])
    assert y.shape == (2, 1, 3)
    assert np.array_equal(y[:, 0, :], plain)


def test_reshapes_without_batch_axes(tmp_path):
    """Also to a scalar, which has no dimensions; a scalar result has one for clients."""
    model = onnx_models.shared_scalar()
    session = opened(
        model, tmp_path, batch_axes="none", inputs={"factor": {"shape": [1], "model_shape": []}, "x": {"shape": [2, 3]}}
    )
    assert session.verdict.standing is Standing.UNPROVEN
    assert session.verdict.reason == "batch_axes is none"
    assert {each.name: each.shape for each in session.signature.inputs} == {"x": (2, 3), "factor": (1,)}
    assert all(each.batch_axis is None for each in (*session.signature.inputs, *session.signature.outputs))
    x = np.ones((2, 3), np.float32)
    (y,) = session.run({"x": x, "factor": np.array([3], np.float32)}, ["y"])
    assert y.tolist() == (3 * x).tolist()


def test_scalar_as_one_element(tmp_path):
    """A scalar may be declared as [1] without saying what it is in the file; an output gets that shape."""
    session = opened(onnx_models.shared_scalar(), tmp_path, batch_axes="none", inputs={"factor": {"shape": [1]}})
    assert session.signature.input("factor").shape == (1,)
    (y,) = session.run({"x": np.ones((1, 3), np.float32), "factor": np.array([3], np.float32)}, ["y"])
    assert y.tolist() == [[3, 3, 3]]
    tensors = served(outputs={"z": {"shape": [1]}})
    assert tensors.outputs[1].shape == (1,)
    reshape = tensors.reshaped_outputs["z"]
    # The rank of an output may be undeclared.
    assert [reshape.from_file(np.zeros(shape)).shape for shape in ((), (1,), (1, 1))] == [(1,)] * 3


def test_batch_axis_moves_with_reshape(tmp_path):
    """Rows may be another dimension for clients than in the file."""
    shapes = {"shape": [1, -1, 3], "model_shape": [-1, 3]}
    session = opened(onnx_models.linear(), tmp_path, inputs={"x": shapes}, outputs={"y": shapes})
    assert session.verdict.standing is Standing.PROVEN
    assert [each.batch_axis for each in (*session.signature.inputs, *session.signature.outputs)] == [1, 1]


def test_output_that_is_not_as_declared(tmp_path):
    """Fails the run, and names the output for the log."""
    session = opened(
        onnx_models.unknown_output_rank(), tmp_path, outputs={"y": {"shape": [-1, 1, 1, 1], "model_shape": [-1, 1, 1]}}
    )
    inputs = {"x": np.ones((1, 4), np.float32), "shape": np.array([2, 2])}
    with pytest.raises(RunFailedError) as caught:
        session.run(inputs, ["y"])
    assert 'output "y": expected 3 dimensions' in str(caught.value.cause)


def test_narrowed_input_is_tried_and_warmed_up_in_that_size(tmp_path):
    """A model that accepts one size only is proven if the settings declare it."""
    assert opened(onnx_models.needs_size(500), tmp_path).verdict.standing is Standing.UNPROVEN
    session = opened(onnx_models.needs_size(500), tmp_path, inputs={"x": {"shape": [-1, 1, 500]}})
    assert session.verdict.standing is Standing.PROVEN
    assert session.synthetic_inputs.shapes == {"x": (1, 1, 500)}


def test_labels(tmp_path):
    """From a file beside the versions of the model."""
    (tmp_path / "classes.txt").write_text("cat\ndog\r\n\nbüro\n")
    (tmp_path / "1").mkdir()
    labels = {"outputs": {"y": {"labels": "classes.txt"}}}
    assert opened(onnx_models.linear(), tmp_path / "1", **labels).signature.outputs[0].labels == (
        "cat",
        "dog",
        "",
        "büro",
    )


@pytest.mark.parametrize(
    ("content", "why"), [(None, "there is no such file or directory"), (b"\xff\xfe", "expected UTF-8 text")]
)
def test_labels_that_cannot_be_read(content, why, tmp_path):
    """Refuse the model."""
    if content is not None:
        (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(ModelLoadError) as caught:
        opened(onnx_models.linear(), tmp_path, outputs={"y": {"labels": "classes.txt"}})
    assert str(caught.value) == f"outputs.y.labels: classes.txt: {why}"
