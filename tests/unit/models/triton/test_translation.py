"""What Triton would reject as well, or what has no counterpart, is refused by its field."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from inferd._generated.inference import model_config_pb2 as pb
from inferd.config.settings import Settings
from inferd.models.triton import Translation, TritonConfigError, translate

TENSORS = 'input { name: "x" data_type: TYPE_FP32 dims: 4 } output { name: "y" data_type: TYPE_FP32 dims: 4 } '
GPU = "optimization { execution_accelerators { gpu_execution_accelerator { %s } } }"


def translated(text: str) -> Translation:
    config = text_format.Parse(f"max_batch_size: 8 {TENSORS}{text}", pb.ModelConfig())
    return translate(config, Path("/models/m"), name="m")


REFUSED = {
    'input { name: "x" data_type: TYPE_FP32 dims: 4 }': 'input: expected each name once, got "x" 2 times',
    "input { data_type: TYPE_FP32 dims: 4 }": 'input "": name is missing',
    'input { name: "z" data_type: TYPE_FP32 dims: 0 }': 'input "z": dims: expected sizes from 1, or -1 for any, got 0',
    'output { name: "z" data_type: TYPE_FP32 dims: [ -1, 2 ] reshape { shape: 2 } }': (
        'output "z": reshape: expected as many -1 as in dims [-1, 2], got [2]'
    ),
    "version_policy { specific { } }": "version_policy.specific: expected numbers of versions, got []",
    "version_policy { specific { versions: -1 } }": "version_policy.specific: expected numbers of versions, got [-1]",
    "version_policy { latest { } }": "version_policy.latest: expected num_versions from 1, got 0",
    "instance_group { count: -1 }": "instance_group.count: expected a number from 0",
    "instance_group { passive: true }": "instance_group.passive: expected a group that takes requests",
    "instance_group { kind: KIND_CPU gpus: 0 }": "instance_group.gpus: expected kind KIND_GPU beside it",
    "dynamic_batching { priority_queue_policy { key: 1 value { } } }": (
        "dynamic_batching.priority_queue_policy: expected keys from 1 to priority_levels, which is 0, got 1"
    ),
    "dynamic_batching { priority_levels: 2 default_priority_level: 3 }": (
        "dynamic_batching.default_priority_level: expected a number from 1 to priority_levels, which is 2, got 3"
    ),
    'model_warmup { name: "w" }': 'model_warmup "w": inputs is missing',
    'model_warmup { inputs { key: "x" value { zero_data: true } } }': (
        'model_warmup "", input "x": data_type is missing'
    ),
    'model_warmup { inputs { key: "x" value { data_type: TYPE_FP32 } } }': (
        'model_warmup "", input "x": expected zero_data: true, random_data: true or input_data_file'
    ),
    'model_warmup { inputs { key: "x" value { data_type: TYPE_FP32 zero_data: false } } }': (
        'model_warmup "", input "x": expected zero_data: true, random_data: true or input_data_file'
    ),
    GPU % 'name: "tensorrt" parameters { key: "precision_mode" value: "FP8" }': (
        'execution_accelerators tensorrt: precision_mode: expected FP32, FP16, BF16, INT8, got "FP8"'
    ),
    GPU % 'name: "tensorrt" parameters { key: "workspace" value: "1" }': (
        "execution_accelerators tensorrt: unknown parameter workspace"
    ),
    GPU % 'name: "tensorrt" parameters { key: "trt_extra_plugin_lib_paths" value: "x.so" }': (
        "optimization.execution_accelerators.gpu_execution_accelerator tensorrt: expected no libraries and no addresses"
    ),
    GPU % 'name: "cuda" parameters { key: "user_compute_stream" value: "1" }': (
        "optimization.execution_accelerators.gpu_execution_accelerator cuda: expected no libraries and no addresses"
    ),
    'parameters { key: "execution_mode" value { string_value: "2" } }': (
        'parameters.execution_mode: expected 0 (sequential), 1 (parallel), got "2"'
    ),
    'parameters { key: "intra_op_thread_count" value { string_value: "two" } }': (
        'parameters.intra_op_thread_count: expected a number, got "two"'
    ),
    'parameters { key: "enable_mem_arena" value { string_value: "maybe" } }': (
        'parameters.enable_mem_arena: expected 1 or 0, got "maybe"'
    ),
    'platform: "onnx"': 'platform "onnx": only ONNX models are served: expected onnxruntime_onnx',
    'default_model_filename: ".."': 'default_model_filename: expected a file name without directories, got ".."',
}


@pytest.mark.parametrize(("text", "expected"), REFUSED.items(), ids=list(REFUSED))
def test_refuses(text, expected):
    """With the field, what was expected, and what came."""
    with pytest.raises(TritonConfigError) as raised:
        translated(text)
    assert str(raised.value).startswith(expected)


def test_refuses_negative_batch_sizes():
    """Which would otherwise count as no batches."""
    with pytest.raises(TritonConfigError, match=r"^max_batch_size: expected a number from 0, got -1$"):
        translate(pb.ModelConfig(max_batch_size=-1), Path("/models/m"), name="m")


def test_errors_quote_little():
    """They are shown in lists of models and in the log, whatever the length of a name."""
    with pytest.raises(TritonConfigError) as raised:
        translated(f'name: "{"n" * 100_000}\\033[31m"')
    assert len(str(raised.value)) <= 1001
    with pytest.raises(TritonConfigError, match=r"got \"\\x1b\[31m"):
        translated('name: "\\033[31m"')


@pytest.mark.parametrize(
    ("level", "expected"), [(-1, "basic"), (1, "extended"), (2, "disabled"), (3, "all"), (99, "all")]
)
def test_graph_levels(level, expected):
    """Those of Triton's ONNX Runtime backend, where 2 is less than 1."""
    assert translated(f"optimization {{ graph {{ level: {level} }} }}").settings["runtime"] == {
        "graph_optimization": expected
    }


def test_policy_of_a_priority_stands_alone():
    """What it leaves out is not that of the default policy: no timeout is none."""
    queue = translated("""
        dynamic_batching {
            priority_levels: 2 default_priority_level: 2
            default_queue_policy { default_timeout_microseconds: 5000 allow_timeout_override: true }
            priority_queue_policy { key: 1 value { max_queue_size: 4 } }
        }
    """).settings["queue"]
    assert queue["default_timeout_ms"] == 5
    assert queue["by_priority"] == {1: {"max_rows": 4, "default_timeout_ms": 0, "allow_timeout_override": False}}


@pytest.mark.parametrize(
    ("text", "rows", "queue_rows", "differences"),
    [
        ("max_batch_size: 16384", 16384, 65536, 0),
        ("max_batch_size: 2147483647 dynamic_batching { }", 65536, 262144, 1),
        ("max_batch_size: 1 dynamic_batching { default_queue_policy { max_queue_size: 4000000000 } }", 1, 1_000_000, 1),
        (
            "max_batch_size: 16384 dynamic_batching { default_queue_policy { max_queue_size: 64 } }",
            16384,
            16384,
            1,
        ),
    ],
)
def test_large_batches_and_queues(text, rows, queue_rows, differences):
    """Triton has no bounds for them: they fit those of the settings, and what is cut is named."""
    translation = translate(text_format.Parse(f"{text} {TENSORS}", pb.ModelConfig()), Path("/models/m"), name="m")
    settings = Settings().for_model(translation.settings)
    assert (settings.batching.max_batch_size, settings.queue.max_rows) == (rows, queue_rows)
    assert len(translation.differences) == differences


def test_model_under_a_name_of_its_own():
    """KServe leaves the files of a model in a directory of another name."""
    translation = translate(pb.ModelConfig(name="densenet_onnx"), Path("/mnt/models"), name="images")
    assert translation.settings["versions"] == {"latest": 1}
