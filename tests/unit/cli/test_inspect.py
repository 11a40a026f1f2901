"""``inferd inspect`` on real files."""

import json

import pytest

from inferd import demo
from tests import onnx_models, onnx_traps
from tests.decoder_models import write_tiny_decoder

_DIGITS = demo.repository() / "1" / "model.onnx"


def test_model_that_batches(inferd):
    """The file, its versions and producer, its tensors, and batching."""
    result = inferd("inspect", _DIGITS)
    assert (result.exit_code, result.err) == (0, "")
    assert "model.onnx, 19.8 KiB" in result.out
    assert "opset ai.onnx 17" in result.out
    assert "producer  skl2onnx" in result.out
    rows = [line.split() for line in result.out.splitlines()]
    assert ["input", "X", "FP32", "[?,", "64]", "0"] in rows
    assert ["output", "label", "INT64", "[?]", "0"] in rows
    assert ["verdict", "proven"] in rows
    assert "Would be served with batching, up to 64 rows (batching.max_batch_size)." in result.out
    assert "Would run on CPUExecutionProvider." in result.out


def test_model_that_does_not_batch(inferd, tmp_path):
    """A model whose rows depend on each other is served without batching; the reason is printed once."""
    file = onnx_models.save(onnx_models.centred(), tmp_path / "model.onnx")
    result = inferd("inspect", file)
    assert (result.exit_code, result.err) == (0, "")
    assert "verdict   contradicted: " in result.out
    assert "Would be served without batching: each request runs alone and in one piece." in result.out
    found = json.loads(inferd("inspect", file, "--json").out)
    assert (found["verdict"], found["batchable"], found["max_batch_size"]) == ("contradicted", False, 1)
    assert result.out.count(found["reason"]) == 1


def test_model_that_cannot_be_run(inferd, tmp_path):
    """It is unproven, which is no failure; the output names the setting that helps."""
    file = onnx_models.save(onnx_models.needs_a_rate(), tmp_path / "model.onnx")
    result = inferd("inspect", file)
    assert (result.exit_code, result.err) == (0, "")
    assert "verdict   unproven: " in result.out
    assert "inputs.NAME.example" in result.out
    assert "It could not be run, so it is unknown whether requests would succeed." in result.out


def test_applies_config_pbtxt(inferd, tmp_path):
    """As in a server: what it says of batches, and what of it cannot be honoured."""
    onnx_models.save(onnx_models.linear(), tmp_path / "m/1/model.onnx")
    config = tmp_path / "m/config.pbtxt"
    config.write_text('platform: "onnxruntime_onnx"\nmax_batch_size: 8\ndynamic_batching { }\n')
    (tmp_path / "m/model.yaml").write_text("batching: {max_batch_size: 16}\n")
    result = inferd("inspect", tmp_path / "m")
    assert (result.exit_code, result.err) == (0, "")
    facts = [line.split(maxsplit=1) for line in result.out.splitlines()]
    assert [fact[1] for fact in facts if fact[0] == "settings"] == [str(config), str(tmp_path / "m/model.yaml")]
    assert "up to 16 rows" in result.out
    assert json.loads(inferd("inspect", tmp_path / "m", "--json").out)["triton_config"] == str(config)
    config.write_text("sequence_batching { }\n")
    result = inferd("inspect", tmp_path / "m")
    assert result.exit_code == 1
    assert "a server would reject it: config.pbtxt: sequence_batching: inferd keeps no state" in result.err


@pytest.mark.parametrize("name", ["model.onnx", "1/model.onnx", "1", "."])
def test_applies_model_yaml(inferd, tmp_path, name):
    """For any path to the model, as in a server."""
    file = "model.onnx" if name == "model.onnx" else "1/model.onnx"
    onnx_models.save(onnx_models.needs_a_rate(), tmp_path / file)
    (tmp_path / "model.yaml").write_text("inputs: {rate: {example: 8000}}\nbatching: {max_batch_size: 16}\n")
    result = inferd("inspect", tmp_path / name)
    assert (result.exit_code, result.err) == (0, "")
    assert f"settings  {tmp_path / 'model.yaml'}" in result.out
    assert "verdict   proven" in result.out
    assert "up to 16 rows" in result.out


def test_uses_recorded_requests(inferd, tmp_path):
    """For verification, as in a server."""
    file = onnx_models.save(onnx_models.needs_a_rate(), tmp_path / "model.onnx")
    requests = [{"x": [[row, 2, 3]], "rate": 16000} for row in range(4)]
    (tmp_path / "examples.json").write_text(json.dumps(requests))
    result = inferd("inspect", file)
    assert (result.exit_code, result.err) == (0, "")
    assert f"examples  {tmp_path / 'examples.json'}" in result.out
    assert "verdict   proven" in result.out


def test_failing_recorded_requests(inferd, tmp_path):
    """Exit code 1 and the error of ONNX Runtime; the JSON is printed anyway."""
    file = onnx_models.save(onnx_models.needs_a_rate(), tmp_path / "model.onnx")
    (tmp_path / "examples.json").write_text('{"x": [[1, 2, 3]], "rate": 11025000}')
    result = inferd("inspect", file, "--json")
    assert (result.exit_code, json.loads(result.out)["tried"]) == (1, False)
    assert result.err.startswith("inferd: the model does not run on the examples in examples.json: ")
    assert "indices element out of data bounds" in result.err
    assert "could not be run" not in inferd("inspect", file).out


def test_failing_example_in_model_yaml(inferd, tmp_path):
    """It fails the command as well."""
    file = onnx_models.save(onnx_models.needs_a_rate(), tmp_path / "model.onnx")
    (tmp_path / "model.yaml").write_text("inputs: {rate: {example: 1}}")
    result = inferd("inspect", file)
    assert result.exit_code == 1
    assert result.err == "inferd: the model does not run on the examples in inputs.rate.example\n"


def test_invalid_recorded_requests(inferd, tmp_path):
    """The error names the file and the input."""
    file = onnx_models.save(onnx_models.linear(), tmp_path / "model.onnx")
    (tmp_path / "examples.json").write_text('{"y": [[1, 2, 3]]}')
    result = inferd("inspect", file)
    assert result.exit_code == 1
    assert result.err.startswith('inferd: a server would reject it: examples.json: request 0: input "y"')


def test_applies_server_settings(inferd, tmp_path):
    """From a file and from flags, custom operators included."""
    file = onnx_models.save(onnx_traps.custom_operator(), tmp_path / "model.onnx")
    assert inferd("inspect", file).exit_code == 1
    config = tmp_path / "inferd.yaml"
    config.write_text("batching: {enabled: false}\nruntime: {custom_ops: [onnxruntime-extensions]}")
    result = inferd("inspect", file, "--config", config)
    assert (result.exit_code, result.err) == (0, "")
    assert "Would be served without batching, because batching.enabled is false." in result.out
    flags = ["--set", "runtime.custom_ops=[onnxruntime-extensions]", "--set", "batching.max_batch_size=1"]
    result = inferd("inspect", file, *flags)
    assert "Would be served without batching, because batching.max_batch_size is 1." in result.out
    assert inferd("inspect", file, "--set", "nonsense").exit_code == 2
    assert inferd("inspect", file, "--set", "queue.nonsense=1").exit_code == 2


def test_batching_against_the_verdict(inferd, tmp_path):
    """The operator's setting wins, and both are printed."""
    file = onnx_models.save(onnx_models.centred(), tmp_path / "model.onnx")
    (tmp_path / "model.yaml").write_text("inputs: {x: {batch_axis: 0}}")
    result = inferd("inspect", file)
    assert "verdict   contradicted: " in result.out
    assert "Would be served with batching, up to 64 rows because batch_axis is set." in result.out
    (tmp_path / "model.yaml").write_text("batch_axes: first")
    result = inferd("inspect", tmp_path)
    assert "Would be served with batching, up to 64 rows because batch_axes is first." in result.out


def test_optional_inputs_and_omitted_outputs(inferd, tmp_path):
    """As text and as JSON."""
    file = onnx_models.save(onnx_models.optional_scale(), tmp_path / "scale" / "model.onnx")
    assert "[] (optional)" in inferd("inspect", file).out
    found = json.loads(inferd("inspect", file, "--json").out)
    assert [spec["optional"] for spec in found["inputs"]] == [False, True]
    file = onnx_models.save(onnx_models.label_and_maps(), tmp_path / "maps" / "model.onnx")
    result = inferd("inspect", file)
    assert (result.exit_code, result.err) == (0, "")
    assert "warning   the model is served without the outputs that cannot be sent: " in result.out


def test_model_that_would_be_rejected(inferd, tmp_path):
    """The facts about the file are printed, then the reason."""
    file = onnx_models.save(onnx_models.sequence_of_maps(), tmp_path / "model.onnx")
    result = inferd("inspect", file)
    assert result.exit_code == 1
    assert "format    ONNX IR" in result.out
    assert result.err.startswith("inferd: a server would reject it: ")


def test_directory_with_several_models(inferd, tmp_path):
    """The highest version of a model is used; several models are an error."""
    onnx_models.save(onnx_models.centred(), tmp_path / "m/9/model.onnx")
    onnx_models.save(onnx_models.linear(), tmp_path / "m/10/model.onnx")
    assert "10/model.onnx" in inferd("inspect", tmp_path / "m").out
    assert "10/model.onnx" in inferd("inspect", tmp_path).out
    onnx_models.save(onnx_models.linear(), tmp_path / "n/1/model.onnx")
    result = inferd("inspect", tmp_path)
    assert (result.exit_code, result.out) == (2, "")
    assert result.err == f"inferd: {tmp_path}: expected one model, found m, n\n"


def test_json(inferd):
    """The same facts as one object."""
    found = json.loads(inferd("inspect", _DIGITS, "--json").out)
    assert found["inputs"] == [
        {"name": "X", "datatype": "FP32", "shape": [None, 64], "batch_axis": 0, "optional": False}
    ]
    assert (found["verdict"], found["reason"], found["batchable"]) == ("proven", "", True)
    assert (found["max_batch_size"], found["tried"], found["warnings"]) == (64, True, [])
    assert (found["settings"], found["examples"]) == (None, str(demo.repository() / "examples.npz"))
    assert found["opsets"]["ai.onnx"] == 17
    assert found["bytes"] == _DIGITS.stat().st_size


def test_files_that_are_not_onnx(inferd, tmp_path):
    """Other files exit with 1 and one line on stderr; a missing file is a usage error."""
    other = tmp_path / "model.onnx"
    other.write_text("hello")
    result = inferd("inspect", other)
    assert (result.exit_code, result.out) == (1, "")
    assert "model.onnx is not an ONNX file" in result.err
    assert inferd("inspect", tmp_path / "nope.onnx").exit_code == 2


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("s3://user:secret@bucket/model", "expected a path, got an address, which only a server reads"),
        ("missing.onnx", "'missing.onnx' does not exist"),
    ],
)
def test_no_path_of_this_machine(inferd, path, text):
    """An address may have a secret in it, which is not repeated."""
    result = inferd("inspect", path)
    assert result.exit_code == 2
    assert text in " ".join(result.err.replace("│", " ").split())
    assert "secret" not in result.err


def test_language_model(inferd, tmp_path):
    """Its limits, its cache and what it takes."""
    write_tiny_decoder(tmp_path / "lm")
    (tmp_path / "lm/model.yaml").write_text("generation: {max_sequences: 3}\nbatch_axes: none\n")
    result = inferd("inspect", tmp_path / "lm")
    assert (result.exit_code, result.err) == (0, "")
    assert "verdict   proven" in result.out
    assert "warning   model lm generates text: settings without a meaning for it: batch_axes" in result.out
    assert "Is a language model of 2 layers, with a context of 256 tokens and a vocabulary of 384." in result.out
    assert "Would generate up to 3 sequences at a time, with a cache of 0.38 MiB, 0.5 MiB for 1024" in result.out
    assert "Would take text, chats or token ids." in result.out
    generation = json.loads(inferd("inspect", tmp_path / "lm", "--json").out)["generation"]
    assert (generation["max_sequences"], generation["cache_bytes"], generation["end_token_ids"]) == (3, 393216, [1])


def test_language_model_that_is_refused(inferd, tmp_path):
    """With what is missing."""
    write_tiny_decoder(tmp_path / "lm")
    (tmp_path / "lm/model.yaml").write_text("queue: {policy: caller_runs}\n")
    result = inferd("inspect", tmp_path / "lm")
    assert result.exit_code == 1
    assert "a server would reject it: queue.policy: expected reject, block or shed_oldest" in result.err
