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
from tests.integration.bad_requests import (
    INVALID,
    OIP_CASES,
    OIP_FIELDS,
    V1_CASES,
    V1_FIELDS,
    linear,
    oip_request,
    oip_x,
    x_input,
)
from tests.patience import PATIENCE_S
from tests.server import serving

MAX_MESSAGE_BYTES = 4096


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
    return v1.InferRequest(model="linear", request_id=f"good {number}", inputs=[x_input(raw=x.tobytes())])


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
    request = v1.StreamInferRequest(requests=[_good(1), linear(x_input(), x_input(shape=[1] * 65))])
    with pytest.raises(grpc.RpcError) as raised:
        list(InferenceServiceStub(channel).StreamInfer(iter([request]), timeout=PATIENCE_S))
    status = Status.FromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"])
    assert _violated(status) == "requests.inputs[1].shape"


def test_rejects_messages_over_size_limit(channel):
    """By gRPC itself, with the limit."""
    with pytest.raises(grpc.RpcError) as raised:
        InferenceServiceStub(channel).Infer(linear(x_input(raw=b"\0" * 2 * MAX_MESSAGE_BYTES)), timeout=PATIENCE_S)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_MESSAGE_BYTES) in raised.value.details()


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
    requests.append(oip_request(oip_x(), id="good"))
    answers = list(GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(requests), timeout=PATIENCE_S))
    assert [answer.infer_response.id for answer in answers] == [request.id for request in requests]
    assert all(answer.error_message for answer in answers[:-1])
    assert answers[-1].infer_response.outputs[0].name == "y"
    assert answers[-1].infer_response.parameters["triton_final_response"].bool_param


def test_model_stream_infer_ends_at_first_error_on_request(channel):
    """With `triton_grpc_error` the stream ends with the status of the error, after the earlier responses."""
    requests = iter([oip_request(oip_x(), id="good"), oip_request(model_name="nobody")])
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
