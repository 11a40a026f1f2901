"""The built-in model through all protocols, compared with ONNX Runtime."""

import json
import subprocess
import urllib.request

import grpc
import numpy as np
import onnxruntime
import pytest

from inferd import demo
from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.patience import PATIENCE_S
from tests.server import BIN, ROOT, serving


@pytest.fixture(scope="module")
def server():
    """`inferd serve` without a path."""
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def channel(server):
    """A connection to it."""
    with grpc.insecure_channel(server.grpc) as open_channel:
        yield open_channel


@pytest.fixture(scope="module")
def digits():
    """The whole held-out test set, and ONNX Runtime's answers."""
    with np.load(ROOT / "tests/data/digits_test.npz") as arrays:
        inputs, labels = arrays["X"].astype(np.float32), arrays["y"]
    session = onnxruntime.InferenceSession(demo.repository() / "1/model.onnx", providers=["CPUExecutionProvider"])
    label, probabilities = session.run(["label", "probabilities"], {"X": inputs})
    assert (label == labels).mean() > 0.95, "the model is good at what it is for"
    return inputs, label, probabilities


def _check(name, array, row, digits):
    expected = digits[1] if name == "label" else digits[2]
    np.testing.assert_allclose(array, expected[row : row + 1], rtol=1e-4, atol=1e-6)


def _v1_request(row, inputs):
    return v1.InferRequest(
        model="digits", request_id=str(row), inputs=[v1.Tensor(name="X", shape=[1, 64], raw=inputs[row].tobytes())]
    )


def _check_v1(response, digits):
    row = int(response.request_id)
    assert [tensor.name for tensor in response.outputs] == ["label", "probabilities"]
    label, probabilities = response.outputs
    _check("label", np.frombuffer(label.raw, np.int64), row, digits)
    _check("probabilities", np.frombuffer(probabilities.raw, np.float32).reshape(probabilities.shape), row, digits)


def _oip_request(row, inputs):
    return oip.ModelInferRequest(
        model_name="digits",
        id=str(row),
        inputs=[oip.ModelInferRequest.InferInputTensor(name="X", datatype="FP32", shape=[1, 64])],
        raw_input_contents=[inputs[row].tobytes()],
    )


def _check_oip(response, digits):
    row = int(response.id)
    assert [tensor.name for tensor in response.outputs] == ["label", "probabilities"]
    label, probabilities = response.raw_output_contents
    _check("label", np.frombuffer(label, np.int64), row, digits)
    _check("probabilities", np.frombuffer(probabilities, np.float32).reshape(1, 10), row, digits)


def test_infer_equals_onnxruntime(channel, digits):
    """Every digit by Infer, many in flight, so that they are batched."""
    stub = InferenceServiceStub(channel)
    calls = [stub.Infer.future(_v1_request(row, digits[0]), timeout=PATIENCE_S) for row in range(len(digits[0]))]
    responses = [call.result() for call in calls]
    for response in responses:
        _check_v1(response, digits)
    assert max(response.timing.batch_rows for response in responses) > 1, "some of them shared a batch"


def test_stream_infer_equals_onnxruntime(channel, digits):
    """Every digit by StreamInfer, a few requests in each message."""
    rows = range(len(digits[0]))
    messages = [
        v1.StreamInferRequest(requests=[_v1_request(row, digits[0]) for row in rows[start : start + 7]])
        for start in range(0, len(rows), 7)
    ]
    answered = [
        result
        for message in InferenceServiceStub(channel).StreamInfer(iter(messages), timeout=PATIENCE_S)
        for result in message.results
    ]
    assert sorted(int(result.request_id) for result in answered) == list(rows)
    for result in answered:
        _check_v1(result.response, digits)


def test_model_infer_equals_onnxruntime(channel, digits):
    """Every digit by ModelInfer."""
    stub = GRPCInferenceServiceStub(channel)
    calls = [stub.ModelInfer.future(_oip_request(row, digits[0]), timeout=PATIENCE_S) for row in range(len(digits[0]))]
    for call in calls:
        _check_oip(call.result(), digits)


def test_model_stream_infer_answers_in_order(channel, digits):
    """Every digit by ModelStreamInfer; answers come in the order of the requests."""
    requests = (_oip_request(row, digits[0]) for row in range(len(digits[0])))
    answers = list(GRPCInferenceServiceStub(channel).ModelStreamInfer(requests, timeout=PATIENCE_S))
    assert [int(answer.infer_response.id) for answer in answers] == list(range(len(digits[0])))
    for answer in answers:
        assert answer.error_message == ""
        _check_oip(answer.infer_response, digits)


def _grpcurl(server, *arguments, request=None):
    command = [str(BIN / "grpcurl"), "-plaintext", *(["-d", "@"] if request else []), server.grpc, *arguments]
    return subprocess.run(command, input=request, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_grpcurl_lists_services(server):
    """With server reflection."""
    listed = _grpcurl(server, "list").stdout.split()
    assert {"inferd.v1.InferenceService", "inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(listed)
    assert {"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} <= set(listed)


@pytest.mark.parametrize(
    "symbol",
    ["inferd.v1.InferenceService", "inference.GRPCInferenceService", "grpc.reflection.v1.ServerReflection"],
)
def test_grpcurl_describes_services(server, symbol):
    """With server reflection."""
    assert f"service {symbol.rpartition('.')[2]}" in _grpcurl(server, "describe", symbol).stdout


def test_grpcurl_classifies_digit_from_json(server, digits):
    """People can write a request: only numbers, without model name, datatype and shape."""
    request = json.dumps({"inputs": [{"name": "X", "floats": digits[0][3].tolist()}], "outputs": ["label"]})
    done = _grpcurl(server, "inferd.v1.InferenceService/Infer", request=request)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["model"] == "digits"
    assert answer["outputs"][0]["shape"] == ["1"]


def test_metrics_and_probes_after_requests(server, channel, digits):
    """Requests are counted, and probes succeed."""
    InferenceServiceStub(channel).Infer(_v1_request(0, digits[0]))
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=PATIENCE_S) as response:
        text = response.read().decode()
    assert 'inferd_requests_total{code="OK",method="inferd.v1.InferenceService/Infer"' in text
    assert 'inferd_model_state{model="digits",state="ready",version="1"} 1.0' in text
    for probe in ("livez", "readyz"):
        with urllib.request.urlopen(f"http://{server.http}/{probe}", timeout=PATIENCE_S) as response:
            assert response.status == 200


def test_one_access_line_per_rpc(digits):
    """With request id, peer, method, model, status, times and rows."""
    with serving() as server, grpc.insecure_channel(server.grpc) as channel:
        stub = InferenceServiceStub(channel)
        for row in range(20):
            stub.Infer(_v1_request(row, digits[0]))
        with pytest.raises(grpc.RpcError):
            stub.Infer(v1.InferRequest(model="nobody", request_id="lost"))
        assert server.stop() == 0
        lines = server.events("access")
        mine = {line["request_id"]: line for line in lines if line["method"].endswith("/Infer")}
        assert set(mine) == {str(row) for row in range(20)} | {"lost"}
        assert len(lines) == 21
        fields = {"time", "peer", "model", "version", "status", "total_ms", "queue_ms", "run_ms", "rows", "batch_rows"}
        assert fields <= set(mine["3"])
        assert mine["lost"]["status"] == "NOT_FOUND"
