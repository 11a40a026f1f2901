"""``inferd inspect`` on real files."""

import json

from inferd import demo
from tests import onnx_models

_DIGITS = demo.repository() / "1" / "model.onnx"


def test_a_model_that_can_batch(inferd):
    """The file, its versions and maker, its tensors, and that rows may be batched."""
    ended = inferd("inspect", _DIGITS)
    assert ended.exit_code == 0
    assert f"{_DIGITS}, " in ended.out
    assert "opset ai.onnx 17" in ended.out
    assert "producer  skl2onnx" in ended.out
    rows = [line.split() for line in ended.out.splitlines()]
    assert ["input", "X", "FP32", "[?,", "64]", "0"] in rows
    assert ["output", "label", "INT64", "[?]", "0"] in rows
    assert "Would be served with batching, up to 64 rows" in ended.out
    assert "Would run on CPUExecutionProvider." in ended.out


def test_a_model_that_cannot_batch(inferd, tmp_path):
    """A fixed batch of 1 is served without batching, and the reason is given."""
    file = onnx_models.save(onnx_models.linear(rows=1), tmp_path / "model.onnx")
    ended = inferd("inspect", file)
    assert ended.exit_code == 0
    assert "Would be served without batching: no input has an open dimension" in ended.out


def test_a_model_that_would_be_refused(inferd, tmp_path):
    """What can be said of the file is printed, then why no server would serve it."""
    file = onnx_models.save(onnx_models.sequence_of_maps(), tmp_path / "model.onnx")
    ended = inferd("inspect", file)
    assert ended.exit_code == 1
    assert "format    ONNX IR" in ended.out
    assert ended.err.startswith("inferd: a server would refuse it: ")


def test_json_for_programs(inferd):
    """The same facts as one JSON object."""
    found = json.loads(inferd("inspect", _DIGITS, "--json").out)
    assert found["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [None, 64], "batch_axis": 0}]
    assert (found["batchable"], found["why_not_batchable"]) == (True, "")
    assert found["opsets"]["ai.onnx"] == 17
    assert found["bytes"] == _DIGITS.stat().st_size


def test_files_that_are_not_onnx(inferd, tmp_path):
    """Another kind of file is one line on stderr and exit code 1; a file that is not there is a usage error."""
    other = tmp_path / "model.onnx"
    other.write_text("hello")
    ended = inferd("inspect", other)
    assert (ended.exit_code, ended.out) == (1, "")
    assert "model.onnx is not an ONNX file" in ended.err
    assert inferd("inspect", tmp_path / "nope.onnx").exit_code == 2
