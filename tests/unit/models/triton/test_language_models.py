"""The config.pbtxt beside a language model, such as one of Triton's vLLM backend."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from inferd._generated.inference import model_config_pb2 as pb
from inferd.config.settings import Settings
from inferd.models.triton import Translation, TritonConfigError, translate


def translated(text: str) -> Translation:
    return translate(text_format.Parse(text, pb.ModelConfig()), Path("/models/m"), name="m", generates=True)


def test_configuration_of_the_vllm_backend():
    """The example of its documentation."""
    found = translated("""
        backend: "vllm"
        instance_group [ { count: 1 kind: KIND_MODEL } ]
        model_transaction_policy { decoupled: True }
        max_batch_size: 0
    """)
    assert found.settings == {"versions": {"latest": 1}}
    assert found.ignored == ()


def test_fields_of_tensors_and_batches_are_ignored():
    """Each is named once."""
    found = translated("""
        max_batch_size: 8
        input [ { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] } ]
        output [ { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] } ]
        dynamic_batching { max_queue_delay_microseconds: 100 }
        instance_group [ { count: 2 kind: KIND_CPU } ]
        parameters { key: "REPORT_CUSTOM_METRICS" value { string_value: "yes" } }
        response_cache { enable: true }
    """)
    assert found.settings == {"versions": {"latest": 1}, "runtime": {"providers": ["cpu"]}}
    assert found.ignored == (
        "max_batch_size",
        "input",
        "output",
        "dynamic_batching.max_queue_delay_microseconds",
        "response_cache",
        "instance_group.count (one engine generates all sequences)",
        "parameters.REPORT_CUSTOM_METRICS (unknown to ONNX models)",
    )


def test_queue_of_a_language_model():
    """Priorities and bounds become those of the queue; the settings accept them."""
    found = translated("""
        dynamic_batching {
          priority_levels: 2 default_priority_level: 1
          default_queue_policy { default_timeout_microseconds: 5000000 max_queue_size: 10 allow_timeout_override: true }
        }
    """)
    settings = Settings().for_model(found.settings)
    assert (settings.queue.priority_levels, settings.queue.default_priority) == (2, 1)
    assert settings.queue.allow_timeout_override
    assert (settings.generation.default_timeout_s, settings.generation.max_waiting_requests) == (5.0, 10)
    assert found.ignored == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('backend: "python"', 'backend "python": expected onnxruntime or tensorrtllm or vllm'),
        ('platform: "pytorch_libtorch"', 'platform "pytorch_libtorch": expected onnxruntime_onnx'),
        (
            "dynamic_batching { priority_levels: 2 }",
            "dynamic_batching.default_priority_level: expected a number from 1",
        ),
        ('name: "other"', 'name: expected "m"'),
    ],
)
def test_refuses(text, expected):
    """With the field, what was expected, and what came."""
    with pytest.raises(TritonConfigError) as raised:
        translated(text)
    assert str(raised.value).startswith(expected)
