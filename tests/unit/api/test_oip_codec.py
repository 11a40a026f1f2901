"""What requests of the Open Inference Protocol say, and what is as good as not said."""

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


#: Of each parameter the values that ask for nothing; a parameter without a value is one of them, whatever its name.
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
def test_values_that_mean_none_are_none(name, value):
    """Clients that write every field that they know of send these."""
    decoded = _decode(_request(parameters={name: pb.InferParameter(**value)}))
    assert (decoded.priority, decoded.timeout_s) == (0, None)


#: Of the parameters of a tensor.
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
def test_values_that_mean_none_of_a_tensor(kind, name, value):
    """Of inputs and of outputs; the size in bytes is a matter of another transport."""
    request = _request(outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="y")])
    getattr(request, kind)[0].parameters[name].CopyFrom(pb.InferParameter(**value))
    assert _decode(request).outputs == ("y",)


def test_contents_that_are_empty_are_none():
    """Beside raw contents there may be no others, and there are none."""
    request = _request()
    request.inputs[0].contents.SetInParent()
    _decode(request)


def test_lists_that_are_empty_are_none():
    """No raw contents are contents in typed lists; no outputs are all of them."""
    assert _decode(_request(raw=False)).outputs == ()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("sequence_id", {"int64_param": 1}, "models with state"),
        ("sequence_id", {"string_param": "a"}, "models with state"),
        ("sequence_id", {"bool_param": False}, "expected int64_param or uint64_param or string_param, got bool_param"),
        ("sequence_start", {"bool_param": True}, "models with state"),
        ("sequence_end", {"int64_param": 0}, "expected bool_param, got int64_param"),
        ("priority", {"bool_param": False}, "expected int64_param or uint64_param, got bool_param"),
        ("timeout", {"int64_param": -1}, "expected 0 or more microseconds, got -1"),
        ("timeout", {"string_param": ""}, "expected int64_param or uint64_param, got string_param"),
        ("triton_whatever", {"bool_param": False}, "no such reserved parameter"),
    ],
)
def test_other_values_are_heeded_or_refused(name, value, said):
    """With the path to the parameter."""
    with pytest.raises(InvalidInputError, match=said) as refused:
        _decode(_request(parameters={name: pb.InferParameter(**value)}))
    assert refused.value.field == f'parameters["{name}"]'


def test_priority_and_timeout_are_heeded():
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
