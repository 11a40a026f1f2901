"""Models whose answers depend on earlier requests are refused, and only these."""

import numpy as np
import onnxruntime
import pytest
from onnx import parser

from inferd.config.settings import ModelSettings
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.kept_state import refuse_kept_state
from inferd.runtime.onnx_file import read_model_file
from inferd.runtime.session import open_session
from tests import onnx_models

_WEIGHTS = "float[3] s = {1, 1, 1}, float[3] b = {0, 0, 0}, float[3] m = {0, 0, 0}, float[3] v = {1, 1, 1}"
_TRAINING = "y, mean, var = BatchNormalization <training_mode = 1> (x, s, b, m, v)"
_BRANCHES = """y = If (flag) <
    then_branch = t () => (float[n,3] p) { p, mean, var = BatchNormalization <training_mode = 1> (x, s, b, m, v) },
    else_branch = e () => (float[n,3] q) { q = Identity (x) }>"""
_FUNCTION = """<domain: "own", opset_import: ["": 17]> Train (x, s, b, m, v) => (y)
    { y, mean, var = BatchNormalization <training_mode = 1> (x, s, b, m, v) }"""

#: The operators, further outputs and the opset of models that keep state.
KEEP = {
    "statistics that nothing uses": (_TRAINING, "", 17),
    "one that nothing uses": (_TRAINING, ", float[3] mean", 17),
    "statistics that the model itself uses": (f"{_TRAINING} z = Add (mean, var)", ", float[3] z", 17),
    "before the attribute": ("y, mean, var, k, l = BatchNormalization (x, s, b, m, v)", "", 9),
}

KEEP_NOTHING = {
    "inference": ("y = BatchNormalization (x, s, b, m, v)", "", 17),
    "inference before the attribute": ("y = BatchNormalization (x, s, b, m, v)", "", 9),
    "statistics that are given to the caller": (_TRAINING, ", float[3] mean, float[3] var", 17),
}


def _model(text, outputs="", opset=17, inputs="", functions=""):
    header = f'<ir_version: 8, opset_import: ["": {opset}, "own": 1]>'
    graph = f"g (float[n,3] x{inputs}) => (float[n,3] y{outputs}) <{_WEIGHTS}> {{ {text} }}"
    return parser.parse_model(f"{header}\n{graph}\n{functions}")


def _changes(model):
    """Whether the same request has another answer after another one, in ONNX Runtime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    one, other = (random.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
    first = session.run(["y"], {"x": one})[0]
    session.run(["y"], {"x": 10 * other})
    return not np.array_equal(first, session.run(["y"], {"x": one})[0])


@pytest.mark.parametrize(("text", "outputs", "opset"), KEEP.values(), ids=KEEP.keys())
def test_models_that_keep_state_are_refused(tmp_path, text, outputs, opset):
    """ONNX Runtime answers them by what came before; the error names the operator and what to do."""
    model = _model(text, outputs, opset)
    assert _changes(model)
    path = onnx_models.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelLoadError, match=r"^BatchNormalization: expected .* got one in training mode: .* export"):
        open_session(path, ModelSettings())


@pytest.mark.parametrize(("text", "outputs", "opset"), KEEP_NOTHING.values(), ids=KEEP_NOTHING.keys())
def test_others_are_not(tmp_path, text, outputs, opset):
    """They answer the same request the same."""
    model = _model(text, outputs, opset)
    assert not _changes(model)
    refuse_kept_state(read_model_file(onnx_models.save(model, tmp_path / "model.onnx")))


@pytest.mark.parametrize("model", [
    _model(_BRANCHES, inputs=", bool flag"),
    _model("y = own.Train (x, s, b, m, v)", functions=_FUNCTION),
])  # fmt: skip
def test_nested_graphs(tmp_path, model):
    """Branches and functions of the file count too."""
    file = read_model_file(onnx_models.save(model, tmp_path / "model.onnx"))
    with pytest.raises(ModelLoadError, match="training mode"):
        refuse_kept_state(file)
