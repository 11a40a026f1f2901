"""Configurations that come with calls name no files elsewhere on the server."""

import pytest
from google.protobuf import text_format

from inferd._generated.inference import model_config_pb2 as pb
from inferd.models.triton import TritonConfigError, require_own_files

_WARMUP = 'model_warmup {{ inputs {{ key: "x" value {{ input_data_file: "{}" }} }} }}'
_ACCELERATOR = "optimization {{ execution_accelerators {{ gpu_execution_accelerator {{ {} }} }} }}"


def _config(text: str) -> pb.ModelConfig:
    return text_format.Parse(text, pb.ModelConfig())


@pytest.mark.parametrize(
    "text",
    [
        "",
        'default_model_filename: "net.onnx" output { label_filename: "1/labels.txt" }',
        _WARMUP.format("samples/x"),
        _ACCELERATOR.format('name: "tensorrt" parameters { key: "precision_mode" value: "FP16" }'),
    ],
)
def test_accepts_files_of_the_model(text: str) -> None:
    """By names that stay in its directory."""
    require_own_files(_config(text))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('default_model_filename: "../../other/1/model.onnx"', "default_model_filename"),
        ('output { label_filename: "a" } output { label_filename: "/etc/passwd" }', "label_filename"),
        ('output { label_filename: "a/../../../b" }', "label_filename"),
        ('output { label_filename: "a\\\\000" }', "label_filename"),
        (_WARMUP.format("../secret"), "input_data_file"),
        (_ACCELERATOR.format('name: "tensorrt" parameters { key: "trt_engine_cache_path" value: "/" }'), "tensorrt"),
    ],
)
def test_refuses_other_files(text: str, field: str) -> None:
    """To read and to write."""
    with pytest.raises(TritonConfigError, match=f"^Invalid config override: .*{field}"):
        require_own_files(_config(text.replace("\\\\", "\\")))
