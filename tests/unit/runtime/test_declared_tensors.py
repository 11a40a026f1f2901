"""What a file declares, compared with what ONNX Runtime says of it."""

import pytest
from onnx import TensorProto, helper

from inferd.config.settings import ModelSettings
from inferd.dtypes import ALL
from inferd.runtime.declared_tensors import declared_in
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.onnx_file import read_model_file
from inferd.runtime.opening import declared, open_runtime_session
from tests import onnx_models

MODELS = {
    "linear": onnx_models.linear(),
    "fixed": onnx_models.linear(rows=2),
    "unnamed": onnx_models.linear(rows=None),
    "two inputs": onnx_models.two_inputs(),
    "scalar": onnx_models.shared_scalar(),
    "optional": onnx_models.optional_scale(),
    "optional of a type apart": onnx_models.optional_scale(TensorProto.BFLOAT16),
    "weight among the inputs": onnx_models.optional_scale(ir_version=3),
    "no inputs": onnx_models.no_inputs(),
    "two outputs": onnx_models.constant_output(),
    "strings": onnx_models.strings(),
    **{datatype.name: onnx_models.identity(datatype) for datatype in ALL},
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_equal_to_those_of_onnx_runtime(model, tmp_path):
    """Names, types, shapes, and which may be left out."""
    path = onnx_models.save(model, tmp_path / "model.onnx")
    inputs, outputs = declared(open_runtime_session(path, ModelSettings()))
    found = declared_in(read_model_file(path))
    assert (found.inputs, found.outputs, found.left_out) == (inputs, outputs, "")


def _save(tmp_path, *outputs):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])]
    model = helper.make_model(helper.make_graph([], "g", inputs, list(outputs)))
    return read_model_file(onnx_models.save(model, tmp_path / "model.onnx"))


def test_outputs_that_cannot_be_sent(tmp_path):
    """They are left out if there are others, and a reason to refuse the model otherwise."""
    sequence = helper.make_tensor_sequence_value_info("all", TensorProto.FLOAT, None)
    small = helper.make_tensor_value_info("small", TensorProto.FLOAT8E4M3FN, [2])
    served = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    found = declared_in(_save(tmp_path, sequence, small, served))
    assert [spec.name for spec in found.outputs] == ["y"]
    assert 'output "all" is of type no tensor, only tensors can be served' in found.left_out
    assert 'output "small" is of type tensor(type 17 of ONNX)' in found.left_out
    with pytest.raises(ModelLoadError, match='output "all" is of type no tensor'):
        declared_in(_save(tmp_path, sequence, small))
