"""Outputs as classes, which Triton's clients ask for with class_count."""

from types import SimpleNamespace

import numpy as np
import pytest

from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.codec import RAW, Response
from inferd.api.oip.classification import with_classes
from inferd.api.oip.codec import OpenInferenceCodec
from inferd.api.request_decoder import RequestDecoder
from inferd.batching.request import BatchTiming, InferenceResult
from inferd.config.settings import ModelSettings
from inferd.dtypes import BY_NAME
from inferd.errors import InvalidInputError
from inferd.runtime.signature import ModelSignature, TensorSpec

_TIMING = BatchTiming(started_at=0.0, stack_s=0.0, run_s=0.0, rows=1)


def _output(datatype: str = "FP32", axis: int | None = 0, labels: tuple[str, ...] = (), rank: int = 2) -> TensorSpec:
    shape = ("batch", *(3,) * (rank - 1))
    return TensorSpec(name="y", datatype=BY_NAME[datatype], shape=shape, batch_axis=axis, labels=labels)


def _signature(output: TensorSpec) -> ModelSignature:
    batchable = output.batch_axis is not None
    axis = 0 if batchable else None
    x = TensorSpec(name="x", datatype=BY_NAME["FP32"], shape=("batch", 1), batch_axis=axis)
    return ModelSignature(inputs=(x,), outputs=(output,), batchable=batchable)


def _classes(values: object, count: int, output: TensorSpec) -> list[object]:
    array = np.asarray(values, output.datatype.numpy)
    return with_classes({"y": array}, {"y": count}, _signature(output))["y"].tolist()


def test_largest_first():
    """In each row, with the index and six decimals as in Triton; equal elements in their order."""
    assert _classes([[0.5, 0.25, 0.75], [1, 1, -2]], 2, _output()) == [
        [b"0.750000:2", b"0.500000:0"],
        [b"1.000000:0", b"1.000000:1"],
    ]


def test_labels():
    """Where the file has one that is not empty."""
    assert _classes([[3, 2, 1]], 3, _output(labels=("cat", "", "dog"))) == [
        [b"3.000000:0:cat", b"2.000000:1", b"1.000000:2:dog"]
    ]
    assert _classes([[3, 2, 1]], 3, _output(labels=("katze",))) == [[b"3.000000:0:katze", b"2.000000:1", b"1.000000:2"]]


def test_no_more_classes_than_elements():
    """As Triton; further dimensions count as one."""
    assert _classes([[1, 2, 3]], 1000, _output()) == [[b"3.000000:2", b"2.000000:1", b"1.000000:0"]]
    assert _classes(np.arange(9).reshape(1, 3, 3), 2, _output(rank=3)) == [[b"8.000000:8", b"7.000000:7"]]


def test_output_without_rows():
    """Is one row, whatever its shape, and the result has one dimension."""
    assert _classes([[1, 5], [3, 4]], 3, _output(axis=None)) == [b"5.000000:1", b"4.000000:3", b"3.000000:2"]


@pytest.mark.parametrize(
    ("datatype", "expected"),
    [("INT64", b"3:1"), ("UINT8", b"3:1"), ("FP64", b"3.000000:1"), ("FP16", b"3.000000:1"), ("BF16", b"3.000000:1")],
)
def test_types(datatype, expected):
    """Integers have no decimals."""
    assert _classes([[1, 3, 2]], 1, _output(datatype)) == [[expected]]


def _request(**parameter) -> pb.ModelInferRequest:
    x = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[2, 1])
    output = pb.ModelInferRequest.InferRequestedOutputTensor(name="y")
    output.parameters["classification"].CopyFrom(pb.InferParameter(**parameter))
    return pb.ModelInferRequest(model_name="m", inputs=[x], outputs=[output], raw_input_contents=[bytes(8)])


def test_response():
    """Has the datatype BYTES and the elements raw; other outputs are as usual."""
    codec = OpenInferenceCodec()
    signature = _signature(_output())
    model = SimpleNamespace(name="m", version="1", require_signature=lambda: signature)
    result = InferenceResult({"y": np.array([[1, 2, 3], [6, 5, 4]], np.float32)}, _TIMING, queue_s=0.0)
    form = codec.form(_request(int64_param=1))
    response = pb.ModelInferResponse.FromString(codec.encode(Response(model, "", form, result)))
    assert [(each.name, each.datatype, list(each.shape)) for each in response.outputs] == [("y", "BYTES", [2, 1])]
    assert response.raw_output_contents[0] == b"\x0a\0\0\x003.000000:2\x0a\0\0\x006.000000:0"


def test_cached_template_keeps_the_form():
    """Requests that differ in their numbers only are answered alike."""
    signature = _signature(_output())
    model = SimpleNamespace(require_signature=lambda: signature, settings=ModelSettings())
    decoder = RequestDecoder(OpenInferenceCodec())
    message = _request(int64_param=2).SerializeToString()
    first = decoder.parse(message)
    decoder.build(first, model, None, 0.0, 1.0)
    decoder.cache(first)
    again = decoder.match(message)
    assert again is not None
    assert again.form.classes == {"y": 2}
    plain = decoder.parse(_request().SerializeToString())
    assert plain.form is RAW


@pytest.mark.parametrize(
    ("parameter", "output", "message"),
    [
        ({"int64_param": -1}, _output(), "expected 1 class or more, got -1"),
        ({"string_param": "3"}, _output(), "expected an integer, got a string"),
        ({"int64_param": 3}, _output("BYTES"), "expected an output of numbers, got BYTES"),
        ({"int64_param": 3}, _output("BOOL"), "expected an output of numbers, got BOOL"),
    ],
)
def test_errors(parameter, output, message):
    """Name the field, what was expected and what came."""
    with pytest.raises(InvalidInputError) as caught:
        OpenInferenceCodec().decode(_request(**parameter), _signature(output))
    assert caught.value.message == f'output "y": parameter "classification": {message}'
    assert caught.value.field == 'outputs[0].parameters["classification"]'


def test_output_named_again():
    """With as many classes it is the same output; with another number it is unclear which is meant."""
    request = _request(int64_param=3)
    request.outputs.append(request.outputs[0])
    assert OpenInferenceCodec().decode(request, _signature(_output())).outputs == ("y", "y")
    request.outputs[1].parameters["classification"].int64_param = 2
    with pytest.raises(InvalidInputError, match="expected 3, as the first time, got 2") as caught:
        OpenInferenceCodec().decode(request, _signature(_output()))
    assert caught.value.field == 'outputs[1].parameters["classification"]'
