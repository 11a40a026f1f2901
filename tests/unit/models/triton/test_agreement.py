"""Configurations that contradict their ONNX file: named at the import, and refused at a load too."""

import pytest

from inferd.config.settings import Settings
from inferd.models.triton.translation import translate_file
from inferd.models.triton.verdicts import Standing, judge
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.session import open_session
from tests import onnx_models

X, Y = 'name: "x" data_type: TYPE_FP32 dims: [ 3 ]', 'name: "y" data_type: TYPE_FP32 dims: [ 3 ]'


def _create(tmp_path, *, size=8, x=X, y=Y, **models):
    """Create a model whose versions are ``models``, by default `linear` with open rows, and return its directory."""
    folder = tmp_path / "m"
    for version, model in (models or {"1": onnx_models.linear()}).items():
        onnx_models.save(model, folder / version.strip("v") / "model.onnx")
    text = f"version_policy {{ all {{ }} }}\nmax_batch_size: {size}\ninput [ {{ {x} }} ]\noutput [ {{ {y} }} ]\n"
    (folder / "config.pbtxt").write_text(text)
    return folder


CONTRADICTIONS = {
    "name of an input": (
        {"x": X.replace('"x"', '"in"')},
        'config.pbtxt: input "in": the model has no such input, it has x (1/model.onnx)',
    ),
    "name of an output": (
        {"y": Y.replace('"y"', '"out"')},
        'config.pbtxt: output "out": the model has no such output, it has y (1/model.onnx)',
    ),
    "type": (
        {"x": X.replace("FP32", "INT64")},
        'config.pbtxt: input "x": data_type: expected FP32 as in the model\'s file, got INT64 (1/model.onnx)',
    ),
    "dims": (
        {"y": Y.replace("[ 3 ]", "[ 4 ]")},
        (
            'config.pbtxt: output "y": dims, with a dimension for max_batch_size before them: '
            "expected one that fits [batch,3] in the model's file, got [-1,4] (1/model.onnx)"
        ),
    ),
    "dims without batching": (
        {"size": 0},
        'config.pbtxt: input "x": dims: expected one that fits [batch,3] in the model\'s file, got [3] (1/model.onnx)',
    ),
    "reshape": (
        {"x": X.replace("[ 3 ]", "[ 4 ] reshape { shape: [ 2, 2 ] }")},
        (
            'config.pbtxt: input "x": reshape, with a dimension for max_batch_size before them: '
            "expected one that fits [batch,3] in the model's file, got [-1,2,2] (1/model.onnx)"
        ),
    ),
    "optional": (
        {"x": f"{X} optional: true"},
        (
            'config.pbtxt: input "x": optional: expected false, because the model\'s file has no default for the '
            "input, got true (1/model.onnx)"
        ),
    ),
    "rows": (
        {"v1": onnx_models.linear(rows=1)},
        (
            "config.pbtxt: max_batch_size: batch_axes is first (a max_batch_size above 0), but the first dimension of "
            'input "x" [1,3] is not open: export it so, or set batch_axes to none (max_batch_size to 0) (1/model.onnx)'
        ),
    ),
}


@pytest.mark.parametrize(("made", "reason"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions(made, reason, tmp_path):
    """The reason has both files and the field; a load is refused as well."""
    folder = _create(tmp_path, **made)
    assert judge(folder, Settings()).reason == reason
    settings = Settings().for_model(translate_file(folder / "config.pbtxt", folder, name="m").settings)
    with pytest.raises(ModelLoadError):
        open_session(folder / "1" / "model.onnx", settings)


def test_agreement(tmp_path):
    """A fixed first dimension is right where there is no batching."""
    assert judge(_create(tmp_path), Settings()).standing is Standing.AS_IS
    fixed = _create(
        tmp_path / "fixed",
        size=0,
        x=X.replace("[ 3 ]", "[ 1, 3 ]"),
        y=Y.replace("[ 3 ]", "[ -1, 3 ]"),
        v1=onnx_models.linear(rows=1),
    )
    assert judge(fixed, Settings()).standing is Standing.AS_IS


def test_one_version_of_several(tmp_path):
    """The others are served."""
    folder = _create(tmp_path, v1=onnx_models.linear(rows=1), v2=onnx_models.linear())
    verdict = judge(folder, Settings())
    assert verdict.standing is Standing.DIFFERS
    assert verdict.differences[0].endswith("(1/model.onnx)")


def test_damaged_file(tmp_path):
    """It is named with its version."""
    folder = _create(tmp_path)
    (folder / "1" / "model.onnx").write_bytes(b"")
    assert judge(folder, Settings()).reason == "1/model.onnx: model.onnx is not an ONNX file: it is empty"
