"""Requests of the Open Inference Protocol: explicit values, null values and defaults."""

import numpy as np
import pytest

from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.oip.codec import OpenInferenceCodec
from inferd.errors import InvalidInputError
from tests.unit.api.fakes import SIGNATURE

CODEC = OpenInferenceCodec()


def _request(raw=True, **fields):
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2])
    if not raw:
        tensor.contents.fp32_contents.extend([1, 2])
    content = [np.array([1, 2], np.float32).tobytes()] if raw else []
    return pb.ModelInferRequest(model_name="fake", inputs=[tensor], raw_input_contents=content, **fields)


def _decode(request):
    decoded = CODEC.decode(request, SIGNATURE)
    np.testing.assert_array_equal(decoded.inputs["x"], [[1, 2]])
    return decoded


#: Null values of each parameter; any parameter may have no value.
NONE = [
    ("sequence_id", {"int64_param": 0}),
    ("sequence_id", {"uint64_param": 0}),
    ("sequence_id", {"string_param": ""}),
    ("sequence_id", {}),
    ("sequence_start", {"bool_param": False}),
    ("sequence_end", {"bool_param": False}),
    ("sequence_end", {}),
    ("priority", {"int64_param": 0}),
    ("priority", {"uint64_param": 0}),
    ("priority", {}),
    ("timeout", {"int64_param": 0}),
    ("timeout", {"uint64_param": 0}),
    ("timeout", {}),
    ("triton_enable_empty_final_response", {"bool_param": False}),
    ("triton_enable_empty_final_response", {}),
    ("triton_whatever", {}),
    ("binary_data_output", {"bool_param": False}),
    ("headers", {"string_param": ""}),
]


@pytest.mark.parametrize(("name", "value"), NONE, ids=str)
def test_ignores_null_parameters(name, value):
    """Some clients write every field they know."""
    decoded = _decode(_request(parameters={name: pb.InferParameter(**value)}))
    assert (decoded.priority, decoded.timeout_s) == (0, None)


#: Null values of the parameters of a tensor.
NONE_OF_TENSOR = [
    ("shared_memory_region", {"string_param": ""}),
    ("shared_memory_byte_size", {"int64_param": 0}),
    ("shared_memory_offset", {"int64_param": 0}),
    ("classification", {"int64_param": 0}),
    ("classification", {}),
    ("binary_data_size", {"int64_param": 0}),
    ("binary_data_size", {"int64_param": 8}),
    ("binary_data", {"bool_param": False}),
]


@pytest.mark.parametrize(("name", "value"), NONE_OF_TENSOR, ids=str)
@pytest.mark.parametrize("kind", ["inputs", "outputs"])
def test_ignores_null_tensor_parameters(kind, name, value):
    """For inputs and outputs, including the size of shared memory."""
    request = _request(outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="y")])
    getattr(request, kind)[0].parameters[name].CopyFrom(pb.InferParameter(**value))
    assert _decode(request).outputs == ("y",)


def test_empty_contents_count_as_absent():
    """Raw contents exclude others, but empty ones are none."""
    request = _request()
    request.inputs[0].contents.SetInParent()
    _decode(request)


def test_empty_lists_are_defaults():
    """Without raw contents the contents are typed lists; no outputs are all outputs."""
    assert _decode(_request(raw=False)).outputs == ()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("sequence_id", {"int64_param": 1}, "models with state"),
        ("sequence_id", {"string_param": "a"}, "models with state"),
        ("sequence_id", {"bool_param": False}, "expected an integer or a string, got a boolean"),
        ("sequence_start", {"bool_param": True}, "models with state"),
        ("sequence_end", {"int64_param": 0}, "expected a boolean, got an integer"),
        ("priority", {"bool_param": False}, "expected an integer, got a boolean"),
        ("timeout", {"int64_param": -1}, "expected 0 or more microseconds, got -1"),
        ("timeout", {"string_param": ""}, "expected an integer, got a string"),
        ("triton_whatever", {"bool_param": False}, "no such reserved parameter"),
    ],
)
def test_rejects_unsupported_parameters(name, value, said):
    """With the path to the parameter."""
    with pytest.raises(InvalidInputError, match=said) as refused:
        _decode(_request(parameters={name: pb.InferParameter(**value)}))
    assert refused.value.field == f'parameters["{name}"]'


def test_decodes_priority_and_timeout():
    """Triton's client sends an unsigned priority and a timeout in microseconds."""
    decoded = _decode(
        _request(
            parameters={
                "priority": pb.InferParameter(uint64_param=2),
                "timeout": pb.InferParameter(int64_param=1_500_000),
            }
        )
    )
    assert (decoded.priority, decoded.timeout_s) == (2, 1.5)
