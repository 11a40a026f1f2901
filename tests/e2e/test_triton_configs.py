"""Models with a config.pbtxt of the corpus, served to Triton's own client."""

import json
import shutil
import subprocess
from collections.abc import Iterator

import onnx.parser
import pytest
from google.protobuf.message import Message

from inferd._generated.inference import model_config_pb2 as pb
from inferd.models.triton import read_config
from tests.patience import PATIENCE_S
from tests.server import ROOT, serving

_CORPUS = ROOT / "tests/data/triton"

#: For each configuration, a small model that it fits, in ONNX's own notation.
_MODELS = {
    "densenet_onnx": """(float[1,3,224,224] data_0) => (float[1,1000,1,1] fc6_1) {
        flat = Flatten <axis = 1> (data_0)
        first = Constant <value = int64[1] {0}> ()
        last = Constant <value = int64[1] {1000}> ()
        axis = Constant <value = int64[1] {1}> ()
        part = Slice (flat, first, last, axis)
        shape = Constant <value = int64[4] {1, 1000, 1, 1}> ()
        fc6_1 = Reshape (part, shape)
    }""",
    "scalar_output": """(float[N,30] features) => (int64[N] label, float[N,2] probabilities) {
        first = Constant <value = int64[1] {0}> ()
        last = Constant <value = int64[1] {2}> ()
        axis = Constant <value = int64[1] {1}> ()
        probabilities = Slice (features, first, last, axis)
        label = ArgMax <axis = 1, keepdims = 0> (probabilities)
    }""",
    "urgent": """(float[N,64] x) => (float[N,1] y) {
        axis = Constant <value = int64[1] {1}> ()
        y = ReduceSum (x, axis)
    }""",
    "warm": """(int64[N,L] ids, string[N,1] text) => (float[N,3] scores) {
        numbers = Cast <to = 1> (ids)
        mean = ReduceMean <axes = [1]> (numbers)
        scores = Concat <axis = 1> (mean, mean, mean)
    }""",
    "text_encoder": """(int64[B,S] input_ids, int64[B,S] attention_mask, int64[B,S] token_type_ids)
        => (float[B,S,384] last_hidden_state) {
        last = Constant <value = int64[1] {2}> ()
        numbers = Cast <to = 1> (input_ids)
        column = Unsqueeze (numbers, last)
        shape = Constant <value = int64[2] {1, 384}> ()
        weights = ConstantOfShape (shape)
        last_hidden_state = MatMul (column, weights)
    }""",
    "tts_vocoder": "(float[B,80,T] mel) => (float[B,T] wave) { wave = ReduceMean <axes = [1], keepdims = 0> (mel) }",
    "optional_bias": """(float[N,3] x, float[3] bias) => (float[N,3] y) <float[3] bias = {1, 1, 1}> {
        y = Add (x, bias)
    }""",
    "tuned": "(float[N,128] x) => (float[N,128] y) { y = Relu (x) }",
}

#: What is honoured differently, as the verdict on each configuration says, or is what it is on this machine.
_DIFFERENT = {
    "densenet_onnx": {"input.format"},
    "optional_bias": {"response_cache", "metric_tags", "runtime", "model_metrics"},
    "tts_vocoder": {"instance_group.kind", "instance_group.gpus"},
    # Its "true" and "false" are told as 1 and 0.
    "tuned": {"instance_group.kind", "parameters.string_value"},
    "urgent": {
        "dynamic_batching.preserve_ordering",
        "dynamic_batching.max_queue_delay_microseconds",
        "dynamic_batching.priority_queue_policy.timeout_action",
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The models, with the files that their configurations name."""
    repository = tmp_path_factory.mktemp("models")
    for name, text in _MODELS.items():
        folder = repository / name
        shutil.copytree(_CORPUS / name, folder, ignore=shutil.ignore_patterns("verdict.yaml"))
        file = read_config(folder / "config.pbtxt").default_model_filename or "model.onnx"
        (folder / "1").mkdir()
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> model {text}')
        onnx.save(model, str(folder / "1" / file))
    (repository / "densenet_onnx" / "densenet_labels.txt").write_text("TENCH\nGOLDFISH\n\nSHARK\n")
    (repository / "warm" / "warmup").mkdir()
    (repository / "warm" / "warmup" / "text").write_bytes(b"\x04\0\0\0text")
    with serving(repository) as running:
        yield running


@pytest.fixture(scope="module")
def configs(server, tmp_path_factory):
    """The configuration of each model that the client got, once its checks have held; see the script."""
    folder = tmp_path_factory.mktemp("configs")
    script = ROOT / "tests/e2e/triton_configs_script.py"
    command = [str(ROOT / ".venv/tritonclient/bin/python"), str(script), server.grpc, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("held") == 5
    return {file.name: pb.ModelConfig.FromString(file.read_bytes()) for file in folder.iterdir()}


@pytest.mark.parametrize("name", _MODELS)
def test_config_is_told_as_it_was_written(name, configs):
    """All that a configuration sets, and that is honoured, is in what clients get."""
    written = read_config(_CORPUS / name / "config.pbtxt")
    assert set(_missing(written, configs[name])) == _DIFFERENT.get(name, set())


def _missing(written: Message, told: Message, path: str = "") -> Iterator[str]:
    """Yield the paths of the fields that are not told as they were written."""
    for field, value in written.ListFields():
        name = f"{path}{field.name}"
        other = getattr(told, field.name)
        if field.message_type is None:
            if value != other:
                yield name
        elif not field.is_repeated:
            yield from _missing(value, other, f"{name}.") if told.HasField(field.name) else [name]
        elif field.message_type.GetOptions().map_entry:
            yield from _missing_entries(value, other, name)
        else:
            for number, each in enumerate(value):
                yield from _missing(each, other[number], f"{name}.") if number < len(other) else [name]


def _missing_entries(written, told, name: str) -> Iterator[str]:
    for key, value in written.items():
        if key not in told:
            yield name
        elif isinstance(value, Message):
            yield from _missing(value, told[key], f"{name}.")
        elif value != told[key]:
            yield name


def test_samples_run_before_the_model_is_ready(server):
    """Each is logged."""
    ran = [line for line in server.text.splitlines() if "warm-up sample" in line]
    assert [json.loads(line)["event"] for line in ran] == [
        'warm-up sample 0 "sixteen rows" ran 3 times',
        'warm-up sample 1 "one row" ran 1 times',
    ]
