"""``inferd inspect`` on real files."""

import json

import pytest

from inferd import demo
from tests import onnx_models

_DIGITS = demo.repository() / "1" / "model.onnx"


def test_a_model_that_can_batch(inferd):
    """The file, its versions and maker, its tensors, and that rows may be batched."""
    ended = inferd("inspect", _DIGITS)
    assert (ended.exit_code, ended.err) == (0, "")
    assert "model.onnx, 19.8 KiB" in ended.out
    assert "opset ai.onnx 17" in ended.out
    assert "producer  skl2onnx" in ended.out
    rows = [line.split() for line in ended.out.splitlines()]
    assert ["input", "X", "FP32", "[?,", "64]", "0"] in rows
    assert ["output", "label", "INT64", "[?]", "0"] in rows
    assert ["verdict", "proven"] in rows
    assert "Would be served with batching, up to 64 rows (batching.max_batch_size)." in ended.out
    assert "Would run on CPUExecutionProvider." in ended.out


def test_a_model_that_cannot_batch(inferd, tmp_path):
    """A model whose rows depend on each other is served without batching, and the reason is given once."""
    file = onnx_models.save(onnx_models.centred(), tmp_path / "model.onnx")
    ended = inferd("inspect", file)
    assert (ended.exit_code, ended.err) == (0, "")
    assert "verdict   contradicted: " in ended.out
    assert "Would be served without batching: each request runs alone and in one piece." in ended.out
    found = json.loads(inferd("inspect", file, "--json").out)
    assert (found["verdict"], found["batchable"], found["max_batch_size"]) == ("contradicted", False, 1)
    assert ended.out.count(found["reason"]) == 1


def test_a_model_that_could_not_be_tried(inferd, tmp_path):
    """It is unproven, which is no failure; what to do is said."""
    file = onnx_models.save(onnx_models.needs_a_rate(), tmp_path / "model.onnx")
    ended = inferd("inspect", file)
    assert (ended.exit_code, ended.err) == (0, "")
    assert "verdict   unproven: " in ended.out
    assert "inputs.NAME.example" in ended.out
    assert "It could not be tried, so it is not known whether requests would succeed." in ended.out


@pytest.mark.parametrize("name", ["model.onnx", "1/model.onnx", "1", "."])
def test_the_settings_of_the_model_count(inferd, tmp_path, name):
    """Those of its model.yaml, wherever it is looked at from, as for a server."""
    file = "model.onnx" if name == "model.onnx" else "1/model.onnx"
    onnx_models.save(onnx_models.needs_a_rate(), tmp_path / file)
    (tmp_path / "model.yaml").write_text("inputs: {rate: {example: 8000}}\nbatching: {max_batch_size: 16}\n")
    ended = inferd("inspect", tmp_path / name)
    assert (ended.exit_code, ended.err) == (0, "")
    assert f"settings  {tmp_path / 'model.yaml'}" in ended.out
    assert "verdict   proven" in ended.out
    assert "up to 16 rows" in ended.out


def test_the_recorded_requests_of_the_model_count(inferd, tmp_path):
    """As for a server."""
    file = onnx_models.save(onnx_models.needs_a_rate(), tmp_path / "model.onnx")
    requests = [{"x": [[row, 2, 3]], "rate": 16000} for row in range(4)]
    (tmp_path / "examples.json").write_text(json.dumps(requests))
    ended = inferd("inspect", file)
    assert (ended.exit_code, ended.err) == (0, "")
    assert f"examples  {tmp_path / 'examples.json'}" in ended.out
    assert "verdict   proven" in ended.out


def test_requests_that_fail_are_a_failure(inferd, tmp_path):
    """A model that does not run on what was recorded, with what ONNX Runtime says; the JSON is there all the same."""
    file = onnx_models.save(onnx_models.needs_a_rate(), tmp_path / "model.onnx")
    (tmp_path / "examples.json").write_text('{"x": [[1, 2, 3]], "rate": 11025000}')
    ended = inferd("inspect", file, "--json")
    assert (ended.exit_code, json.loads(ended.out)["tried"]) == (1, False)
    assert ended.err.startswith("inferd: the model does not run on the examples in examples.json: ")
    assert "indices element out of data bounds" in ended.err
    assert "could not be tried" not in inferd("inspect", file).out


def test_an_example_that_fails_is_a_failure(inferd, tmp_path):
    """One in model.yaml too."""
    file = onnx_models.save(onnx_models.needs_a_rate(), tmp_path / "model.onnx")
    (tmp_path / "model.yaml").write_text("inputs: {rate: {example: 1}}")
    ended = inferd("inspect", file)
    assert ended.exit_code == 1
    assert ended.err == "inferd: the model does not run on the examples in inputs.rate.example\n"


def test_examples_that_do_not_fit_are_refused(inferd, tmp_path):
    """With the file and the input."""
    file = onnx_models.save(onnx_models.linear(), tmp_path / "model.onnx")
    (tmp_path / "examples.json").write_text('{"y": [[1, 2, 3]]}')
    ended = inferd("inspect", file)
    assert ended.exit_code == 1
    assert ended.err.startswith('inferd: a server would refuse it: examples.json: request 0: input "y"')


def test_the_settings_of_the_server_count(inferd, tmp_path):
    """From a file and from flags, which may list libraries of custom operators."""
    file = onnx_models.save(onnx_models.custom_operator(), tmp_path / "model.onnx")
    assert inferd("inspect", file).exit_code == 1
    config = tmp_path / "inferd.yaml"
    config.write_text("batching: {enabled: false}\nruntime: {custom_ops: [onnxruntime-extensions]}")
    ended = inferd("inspect", file, "--config", config)
    assert (ended.exit_code, ended.err) == (0, "")
    assert "Would be served without batching, because batching.enabled is false." in ended.out
    flags = ["--set", "runtime.custom_ops=[onnxruntime-extensions]", "--set", "batching.max_batch_size=1"]
    ended = inferd("inspect", file, *flags)
    assert "Would be served without batching, because batching.max_batch_size is 1." in ended.out
    assert inferd("inspect", file, "--set", "nonsense").exit_code == 2
    assert inferd("inspect", file, "--set", "queue.nonsense=1").exit_code == 2


def test_a_model_that_is_batched_in_spite_of_its_verdict(inferd, tmp_path):
    """The operator's word counts, and both are told."""
    file = onnx_models.save(onnx_models.centred(), tmp_path / "model.onnx")
    (tmp_path / "model.yaml").write_text("inputs: {x: {batch_axis: 0}}")
    ended = inferd("inspect", file)
    assert "verdict   contradicted: " in ended.out
    assert "Would be served with batching, up to 64 rows because batch_axis is set." in ended.out


def test_optional_inputs_and_outputs_that_are_left_out(inferd, tmp_path):
    """Both are told, to people and to programs."""
    file = onnx_models.save(onnx_models.optional_scale(), tmp_path / "scale" / "model.onnx")
    assert "[] (optional)" in inferd("inspect", file).out
    found = json.loads(inferd("inspect", file, "--json").out)
    assert [spec["optional"] for spec in found["inputs"]] == [False, True]
    file = onnx_models.save(onnx_models.label_and_maps(), tmp_path / "maps" / "model.onnx")
    ended = inferd("inspect", file)
    assert (ended.exit_code, ended.err) == (0, "")
    assert "warning   the model is served without the outputs that cannot be sent: " in ended.out


def test_a_model_that_would_be_refused(inferd, tmp_path):
    """What can be said of the file is printed, then why no server would serve it."""
    file = onnx_models.save(onnx_models.sequence_of_maps(), tmp_path / "model.onnx")
    ended = inferd("inspect", file)
    assert ended.exit_code == 1
    assert "format    ONNX IR" in ended.out
    assert ended.err.startswith("inferd: a server would refuse it: ")


def test_a_directory_with_several_models(inferd, tmp_path):
    """The highest version of one model is looked at; of several models one must be named."""
    onnx_models.save(onnx_models.centred(), tmp_path / "m/9/model.onnx")
    onnx_models.save(onnx_models.linear(), tmp_path / "m/10/model.onnx")
    assert "10/model.onnx" in inferd("inspect", tmp_path / "m").out
    assert "10/model.onnx" in inferd("inspect", tmp_path).out
    onnx_models.save(onnx_models.linear(), tmp_path / "n/1/model.onnx")
    ended = inferd("inspect", tmp_path)
    assert (ended.exit_code, ended.out) == (2, "")
    assert ended.err == f"inferd: {tmp_path}: expected one model, found m, n\n"


def test_json_for_programs(inferd):
    """The same facts as one JSON object."""
    found = json.loads(inferd("inspect", _DIGITS, "--json").out)
    assert found["inputs"] == [
        {"name": "X", "datatype": "FP32", "shape": [None, 64], "batch_axis": 0, "optional": False}
    ]
    assert (found["verdict"], found["reason"], found["batchable"]) == ("proven", "", True)
    assert (found["max_batch_size"], found["tried"], found["warnings"]) == (64, True, [])
    assert (found["settings"], found["examples"]) == (None, None)
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
