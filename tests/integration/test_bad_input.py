"""Invalid requests of every kind, over sockets: each gets a clear error, and no other request is affected."""

import json
import re

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from inferd.dtypes import BY_NAME
from tests import onnx_models
from tests.patience import PATIENCE_S
from tests.server import serving

MAX_MESSAGE_BYTES = 4096
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with models of different kinds, one of which cannot be loaded."""
    repository = tmp_path_factory.mktemp("models")
    models = {
        "linear": onnx_models.linear(),
        "two": onnx_models.two_inputs(),
        "lookup": onnx_models.lookup(),
        "strings": onnx_models.strings(),
        "tiny": onnx_models.identity(BY_NAME["INT8"]),
        "single": onnx_models.linear(rows=1),
    }
    for name, model in models.items():
        onnx_models.save(model, repository / name / "1" / "model.onnx")
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"not a model")
    arguments = ["--set", f"server.max_message_bytes={MAX_MESSAGE_BYTES}", "--set", "queue.max_rows=64"]
    with serving(repository, *arguments) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server):
    """A connection to the server."""
    with grpc.insecure_channel(server.grpc) as open_channel:
        yield open_channel


def _x(**fields):
    return v1.Tensor(**{"name": "x", "shape": [1, 3], "raw": b"\0" * 12, **fields})


def _a(**fields):
    return v1.Tensor(**{"name": "a", "shape": [1, 2], "floats": [1, 2], **fields})


def _b(**fields):
    return v1.Tensor(**{"name": "b", "shape": [1, 2], "ints": [1, 2], **fields})


def _linear(*inputs, **fields):
    return v1.InferRequest(model="linear", inputs=inputs, **fields)


def _two(*inputs):
    return v1.InferRequest(model="two", inputs=inputs)


V1_CASES = {
    "no model named": (v1.InferRequest(), INVALID, "model: expected one of broken, linear"),
    "unknown model": (v1.InferRequest(model="nobody"), grpc.StatusCode.NOT_FOUND, 'no model "nobody"'),
    "name without end": (v1.InferRequest(model="\N{GRINNING FACE}" * 1000), grpc.StatusCode.NOT_FOUND, "no model.*…$"),
    "unknown version": (_linear(_x(), version="7"), grpc.StatusCode.NOT_FOUND, 'no version "7"'),
    "version of letters": (_linear(_x(), version="new"), grpc.StatusCode.NOT_FOUND, 'no version "new"'),
    "model that failed": (v1.InferRequest(model="broken"), grpc.StatusCode.UNAVAILABLE, '"broken".*failed to load'),
    "no inputs": (_linear(), INVALID, r'input "x": expected FP32 \[.*3\], got no such input'),
    "missing input": (_two(_a()), INVALID, 'input "b": expected INT64'),
    "unknown input": (_linear(_x(name="z")), INVALID, 'input "z": expected one of "x"'),
    "input without name": (_linear(_x(name="")), INVALID, 'input "": expected one of "x"'),
    "one input too many": (_linear(_x(), _x(name="z")), INVALID, 'input "z"'),
    "duplicate input": (_linear(_x(), _x()), INVALID, 'input "x": expected once'),
    "wrong datatype": (
        _linear(_x(datatype=v1.DATA_TYPE_INT64)),
        INVALID,
        'input "x": expected datatype FP32, got INT64',
    ),
    "datatype from nowhere": (_linear(_x(datatype=99)), INVALID, 'input "x": expected datatype FP32, got 99'),
    "wrong rank": (_linear(_x(shape=[3])), INVALID, r'input "x": expected 2 dimensions, got shape \[3\]'),
    "wrong dimension": (_linear(_x(shape=[1, 4], raw=b"\0" * 16)), INVALID, r'input "x": expected .*3\], got \[1,4\]'),
    "too few bytes": (_linear(_x(raw=b"\0" * 11)), INVALID, 'input "x": expected 12 bytes .* got 11'),
    "too many bytes": (_linear(_x(raw=b"\0" * 13)), INVALID, 'input "x": expected 12 bytes .* got 13'),
    "no elements": (_linear(_x(raw=b"")), INVALID, 'input "x": expected 12 bytes .* got 0'),
    "negative dimension": (_linear(_x(shape=[-1, 3])), INVALID, r'input "x": expected dimensions of 0 or more'),
    "overflowing dimensions": (_linear(_x(shape=[2**62, 2**62])), INVALID, 'input "x": expected .* bytes'),
    "empty overflow": (_linear(_x(shape=[2**62, 2**62, 0], raw=b"")), INVALID, 'input "x": expected 2 dimensions'),
    "zero rows": (_linear(_x(shape=[0, 3], raw=b"")), INVALID, 'input "x": expected at least 1 row'),
    "more rows than the queue": (
        v1.InferRequest(model="tiny", inputs=[_x(shape=[65, 2], raw=b"\0" * 130)]),
        INVALID,
        "65 rows.*64|64.*65",
    ),
    "raw and typed": (_linear(_x(floats=[1, 2, 3])), INVALID, 'input "x": expected its elements in one field, got raw'),
    "two typed lists": (
        _linear(_x(raw=b"", floats=[1, 2, 3], ints=[1])),
        INVALID,
        'input "x": expected its elements in one field, got ints, floats',
    ),
    "strings for numbers": (_linear(_x(raw=b"", strings=["a"])), INVALID, 'input "x": expected values of FP32'),
    "too few values": (_linear(_x(raw=b"", floats=[1])), INVALID, 'input "x": expected 3 elements'),
    "value out of range": (
        v1.InferRequest(model="tiny", inputs=[_x(shape=[1, 2], raw=b"", ints=[0, 300])]),
        INVALID,
        'input "x": expected INT8 values from -128 to 127, got another as element 1',
    ),
    "rows disagree": (_two(_a(), _b(shape=[2, 2], ints=[1, 2, 3, 4])), INVALID, 'input "b": expected 1 rows'),
    "lengths disagree": (_two(_a(), _b(shape=[1, 3], ints=[1, 2, 3])), INVALID, 'input "b": expected length = 2'),
    "shape to be guessed": (_two(_a(shape=[]), _b()), INVALID, 'input "a": expected a shape'),
    "cut string": (
        v1.InferRequest(model="strings", inputs=[v1.Tensor(name="text", shape=[1, 2], raw=b"\5\0\0\0ab")]),
        INVALID,
        'input "text": expected 5 bytes for element 0, got 2',
    ),
    "not text": (
        v1.InferRequest(model="strings", inputs=[v1.Tensor(name="text", shape=[1, 2], bytes_values=[b"\xff", b""])]),
        INVALID,
        'input "text": expected .*UTF-8',
    ),
    "two rows for one": (
        v1.InferRequest(model="single", inputs=[_x(shape=[2, 3], raw=b"\0" * 24)]),
        INVALID,
        r'input "x": expected .*\[1,3\], got \[2,3\]',
    ),
    "unknown output": (_linear(_x(), outputs=["q"]), INVALID, 'output "q": expected one of "y"'),
    "priority out of range": (_linear(_x(), priority=4), INVALID, r"priority: expected 1 \(first\) to 3.* got 4"),
    "timeout below nothing": (_linear(_x(), timeout={"seconds": -1}), INVALID, "timeout: expected 0 or more"),
    "run that fails": (
        v1.InferRequest(model="lookup", inputs=[v1.Tensor(name="index", ints=[99])]),
        grpc.StatusCode.INTERNAL,
        "^the model failed to run this request$",
    ),
}


#: The field in google.rpc.BadRequest for each error that has one.
V1_FIELDS = {
    "no model named": "model",
    "no inputs": "inputs",
    "missing input": "inputs",
    "unknown input": "inputs[0].name",
    "input without name": "inputs[0].name",
    "one input too many": "inputs[1].name",
    "duplicate input": "inputs[1].name",
    "wrong datatype": "inputs[0].datatype",
    "datatype from nowhere": "inputs[0].datatype",
    "wrong rank": "inputs[0].shape",
    "wrong dimension": "inputs[0].shape",
    "too few bytes": "inputs[0].raw",
    "too many bytes": "inputs[0].raw",
    "no elements": "inputs[0].raw",
    "negative dimension": "inputs[0].shape",
    "overflowing dimensions": "inputs[0].raw",
    "empty overflow": "inputs[0].shape",
    "zero rows": "inputs[0].shape",
    "more rows than the queue": "inputs",
    "raw and typed": "inputs[0].floats",
    "two typed lists": "inputs[0].ints",
    "strings for numbers": "inputs[0].strings",
    "too few values": "inputs[0].floats",
    "value out of range": "inputs[0].ints",
    "rows disagree": "inputs[1].shape",
    "lengths disagree": "inputs[1].shape",
    "shape to be guessed": "inputs[0].shape",
    "cut string": "inputs[0].raw",
    "not text": "inputs[0].bytes_values",
    "two rows for one": "inputs[0].shape",
    "unknown output": "outputs[0]",
    "priority out of range": "priority",
    "timeout below nothing": "timeout",
}


def _violated(status):
    """Return the invalid field that a `google.rpc.Status` names, None if it names none."""
    for detail in status.details:
        wrong = BadRequest()
        if detail.Unpack(wrong):
            (violation,) = wrong.field_violations
            assert violation.description == status.message
            return violation.field
    return None


def _good(number):
    x = np.full((1, 3), number, np.float32)
    return v1.InferRequest(model="linear", request_id=f"good {number}", inputs=[_x(raw=x.tobytes())])


def _check_good(response, number):
    np.testing.assert_array_equal(np.frombuffer(response.outputs[0].raw, np.float32), [2 * number + 1] * 3)


@pytest.mark.parametrize("case", V1_CASES)
def test_infer_rejects_invalid_request(channel, case):
    """With the right code, and a text with the field, what was expected and what came."""
    request, code, said = V1_CASES[case]
    with pytest.raises(grpc.RpcError) as raised:
        InferenceServiceStub(channel).Infer(request, timeout=PATIENCE_S)
    error = raised.value
    assert error.code() is code, error.details()
    assert re.search(said, error.details()), error.details()
    info, status = ErrorInfo(), Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    assert status.details[0].Unpack(info)
    assert info.reason
    assert _violated(status) == V1_FIELDS.get(case)


def test_stream_infer_continues_after_errors(channel):
    """All invalid requests on one stream, in one message each and with valid ones between: each gets its own result."""
    messages, expected = [], {}
    for number, (case, (request, code, _)) in enumerate(V1_CASES.items()):
        bad = v1.InferRequest()
        bad.CopyFrom(request)
        bad.request_id = case
        expected[case] = code.value[0]
        messages.append(v1.StreamInferRequest(requests=[_good(number), bad]))
    results = {
        result.request_id: result
        for message in InferenceServiceStub(channel).StreamInfer(iter(messages), timeout=PATIENCE_S)
        for result in message.results
    }
    assert len(results) == 2 * len(V1_CASES)
    assert {case: results[case].error.code for case in V1_CASES} == expected
    assert {case: _violated(results[case].error) for case in V1_CASES} == {
        case: V1_FIELDS.get(case) for case in V1_CASES
    }
    for number in range(len(V1_CASES)):
        _check_good(results[f"good {number}"].response, number)


def test_rejects_malformed_messages(channel):
    """Malformed or truncated messages are INVALID_ARGUMENT on each kind of call."""
    whole = _good(1).SerializeToString()
    for method in ("inferd.v1.InferenceService/Infer", "inference.GRPCInferenceService/ModelInfer"):
        call = channel.unary_unary(f"/{method}")
        for message in (b"\xff\xff\xff", whole[:-3]):
            with pytest.raises(grpc.RpcError) as raised:
                call(message, timeout=PATIENCE_S)
            assert raised.value.code() is INVALID
            assert "the message is not a" in raised.value.details()
    for method in ("inferd.v1.InferenceService/StreamInfer", "inference.GRPCInferenceService/ModelStreamInfer"):
        with pytest.raises(grpc.RpcError) as raised:
            list(channel.stream_stream(f"/{method}")(iter([b"\xff\xff\xff"]), timeout=PATIENCE_S))
        assert raised.value.code() is INVALID


def test_empty_message_ends_stream(channel):
    """It has no request to be answered by id."""
    stream = InferenceServiceStub(channel).StreamInfer(iter([v1.StreamInferRequest()]), timeout=PATIENCE_S)
    with pytest.raises(grpc.RpcError) as raised:
        list(stream)
    assert raised.value.code() is INVALID
    assert "requests: expected at least one, got none" in raised.value.details()


def test_error_that_ends_stream_names_field(channel):
    """A request that cannot be parsed has no id; the path begins at the message."""
    request = v1.StreamInferRequest(requests=[_good(1), _linear(_x(), _x(shape=[1] * 65))])
    with pytest.raises(grpc.RpcError) as raised:
        list(InferenceServiceStub(channel).StreamInfer(iter([request]), timeout=PATIENCE_S))
    status = Status.FromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"])
    assert _violated(status) == "requests.inputs[1].shape"


def test_rejects_messages_over_size_limit(channel):
    """By gRPC itself, with the limit."""
    with pytest.raises(grpc.RpcError) as raised:
        InferenceServiceStub(channel).Infer(_linear(_x(raw=b"\0" * 2 * MAX_MESSAGE_BYTES)), timeout=PATIENCE_S)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_MESSAGE_BYTES) in raised.value.details()


def _oip_x(**fields):
    return oip.ModelInferRequest.InferInputTensor(**{"name": "x", "datatype": "FP32", "shape": [1, 3], **fields})


def _oip(*inputs, raw=(b"\0" * 12,), **fields):
    return oip.ModelInferRequest(**{"model_name": "linear", "inputs": inputs, "raw_input_contents": raw, **fields})


def _parameter(**value):
    return oip.InferParameter(**value)


CONTENTS = oip.InferTensorContents(fp32_contents=[1, 2, 3])
OIP_CASES = {
    "unknown model": (_oip(model_name="nobody"), grpc.StatusCode.NOT_FOUND, "nobody"),
    "wrong datatype": (_oip(_oip_x(datatype="INT64")), INVALID, 'input "x": expected datatype FP32, got "INT64"'),
    "no datatype": (_oip(_oip_x(datatype="")), INVALID, 'input "x": expected datatype FP32, got ""'),
    "wrong rank": (_oip(_oip_x(shape=[3])), INVALID, 'input "x": expected 2 dimensions'),
    "too few bytes": (_oip(_oip_x(), raw=[b"\0"]), INVALID, 'input "x": expected 12 bytes .* got 1'),
    "no contents": (_oip(_oip_x(), raw=[]), INVALID, 'input "x": expected 3 elements .* got 0'),
    "raw beside contents": (_oip(_oip_x(contents=CONTENTS)), INVALID, 'input "x": expected no contents beside raw'),
    "one raw too many": (
        _oip(_oip_x(), raw=[b"", b""]),
        INVALID,
        "raw_input_contents: expected one entry for each of 1",
    ),
    "wrong list": (
        _oip(_oip_x(contents=oip.InferTensorContents(int_contents=[1, 2, 3])), raw=[]),
        INVALID,
        'input "x": expected FP32 in fp32_contents, got int_contents',
    ),
    "shared memory": (
        _oip(_oip_x(parameters={"shared_memory_region": _parameter(string_param="r")})),
        INVALID,
        'input "x": parameter "shared_memory_region" is not supported',
    ),
    "classification": (
        _oip(
            _oip_x(),
            outputs=[{"name": "y", "parameters": {"classification": _parameter(int64_param=3)}}],
        ),
        INVALID,
        'output "y": parameter "classification" is not supported',
    ),
    "priority as text": (
        _oip(_oip_x(), parameters={"priority": _parameter(string_param="high")}),
        INVALID,
        'parameter "priority": expected int64_param or uint64_param, got string_param',
    ),
    "priority out of range": (
        _oip(_oip_x(), parameters={"priority": _parameter(uint64_param=2**63)}),
        INVALID,
        "priority: expected 1",
    ),
    "state": (_oip(_oip_x(), parameters={"sequence_id": _parameter(int64_param=1)}), INVALID, "state"),
    "reserved parameter": (_oip(_oip_x(), parameters={"triton_x": _parameter(bool_param=True)}), INVALID, "triton_x"),
    "unknown output": (_oip(_oip_x(), outputs=[{"name": "q"}]), INVALID, 'output "q": expected one of "y"'),
    "state of a wrong type": (
        _oip(_oip_x(), parameters={"sequence_start": _parameter(int64_param=0)}),
        INVALID,
        'parameter "sequence_start": expected bool_param, got int64_param',
    ),
}
OIP_FIELDS = {
    "wrong datatype": "inputs[0].datatype",
    "no datatype": "inputs[0].datatype",
    "wrong rank": "inputs[0].shape",
    "too few bytes": "raw_input_contents[0]",
    "no contents": "inputs[0].contents",
    "raw beside contents": "inputs[0].contents",
    "one raw too many": "raw_input_contents",
    "wrong list": "inputs[0].contents.int_contents",
    "shared memory": 'inputs[0].parameters["shared_memory_region"]',
    "classification": 'outputs[0].parameters["classification"]',
    "priority as text": 'parameters["priority"]',
    "priority out of range": 'parameters["priority"]',
    "state": 'parameters["sequence_id"]',
    "state of a wrong type": 'parameters["sequence_start"]',
    "reserved parameter": 'parameters["triton_x"]',
    "unknown output": "outputs[0].name",
}


@pytest.mark.parametrize("case", OIP_CASES)
def test_model_infer_rejects_invalid_request(channel, case):
    """The same for the Open Inference Protocol."""
    request, code, said = OIP_CASES[case]
    with pytest.raises(grpc.RpcError) as raised:
        GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=PATIENCE_S)
    assert raised.value.code() is code, raised.value.details()
    assert re.search(said, raised.value.details()), raised.value.details()
    status = Status.FromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"])
    assert _violated(status) == OIP_FIELDS.get(case)


@pytest.mark.parametrize(
    ("stub", "method", "query", "field"),
    [
        (InferenceServiceStub, "GetModel", v1.GetModelRequest(), "model"),
        (GRPCInferenceServiceStub, "ModelMetadata", oip.ModelMetadataRequest(), "name"),
        (GRPCInferenceServiceStub, "ModelConfig", oip.ModelConfigRequest(), "name"),
    ],
)
def test_queries_without_name_name_field(channel, stub, method, query, field):
    """There are several models; the field has its name in the contract."""
    with pytest.raises(grpc.RpcError) as raised:
        getattr(stub(channel), method)(query, timeout=PATIENCE_S)
    assert raised.value.code() is INVALID
    assert _violated(Status.FromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"])) == field


def test_model_stream_infer_continues_after_errors(channel):
    """Errors come in `error_message`, in the order of the requests."""
    requests = [oip.ModelInferRequest.FromString(case[0].SerializeToString()) for case in OIP_CASES.values()]
    for number, request in enumerate(requests):
        request.id = str(number)
    requests.append(_oip(_oip_x(), id="good"))
    answers = list(GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(requests), timeout=PATIENCE_S))
    assert [answer.infer_response.id for answer in answers] == [request.id for request in requests]
    assert all(answer.error_message for answer in answers[:-1])
    assert answers[-1].infer_response.outputs[0].name == "y"
    assert answers[-1].infer_response.parameters["triton_final_response"].bool_param


def test_model_stream_infer_ends_at_first_error_on_request(channel):
    """With `triton_grpc_error` the stream ends with the status of the error, after the earlier responses."""
    requests = iter([_oip(_oip_x(), id="good"), _oip(model_name="nobody")])
    stream = GRPCInferenceServiceStub(channel).ModelStreamInfer(
        requests, timeout=PATIENCE_S, metadata=[("triton_grpc_error", "true")]
    )
    with pytest.raises(grpc.RpcError) as raised:
        list(stream)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_failing_request_does_not_affect_batch(channel):
    """The run of a batch fails because of one request, and only that one gets the error."""
    stub = InferenceServiceStub(channel)
    indexes = [0, 1, 99, 2, 3] * 8
    calls = [
        stub.Infer.future(
            v1.InferRequest(model="lookup", inputs=[v1.Tensor(name="index", ints=[index])]), timeout=PATIENCE_S
        )
        for index in indexes
    ]
    for index, call in zip(indexes, calls, strict=True):
        if index == 99:
            assert call.code() is grpc.StatusCode.INTERNAL
        else:
            assert call.result().outputs[0].ints or call.result().outputs[0].floats
            assert [*call.result().outputs[0].ints, *call.result().outputs[0].floats] == [10 * index]


def test_leaves_nothing_behind(server, channel):
    """The server still answers, and the only errors in its log are of the runs that failed."""
    _check_good(InferenceServiceStub(channel).Infer(_good(5), timeout=PATIENCE_S), 5)
    lines = [json.loads(line) for line in server.log]
    errors = [line for line in lines if line["level"] == "error" and line["event"] != "access"]
    assert {line.get("model") or line["logger"] for line in errors} == {"broken", "inferd.batching"}
