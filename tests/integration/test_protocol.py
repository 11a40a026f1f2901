"""Behaviour of both protocols, over sockets."""

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2

from inferd import wire
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.patience import PATIENCE_S
from tests.server import serving

TIMEOUT_S = PATIENCE_S
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(scope="module")
def server():
    """A server with the built-in model and without authentication."""
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


def call(channel, method, message=b"", metadata=()):
    return channel.unary_unary(method)(message, timeout=TIMEOUT_S, metadata=metadata)


def fail(channel, method, message=b"", metadata=()):
    with pytest.raises(grpc.RpcError) as error:
        call(channel, method, message, metadata)
    return error.value


def _statuses(message):
    """Decode a HealthListResponse, which stubs of older releases lack."""
    statuses = {}
    for entry in wire.contents(message, wire.length_tag(1)):
        name, *_ = wire.contents(entry, wire.length_tag(1))
        *_, response = wire.contents(entry, wire.length_tag(2))
        statuses[name.decode()] = health_pb2.HealthCheckResponse.FromString(response).status
    return statuses


def test_lists_health_of_all_services(channel):
    """Every name that Check knows, models included; reflection has the method."""
    assert _statuses(call(channel, "/grpc.health.v1.Health/List")) == {
        "": SERVING,
        "startup": SERVING,
        "readiness": SERVING,
        "liveness": SERVING,
        "inferd.v1.InferenceService": SERVING,
        "inferd.v1.GenerationService": SERVING,
        "inference.GRPCInferenceService": SERVING,
        "digits": SERVING,
    }


@pytest.mark.skipif(not hasattr(health_pb2, "HealthListResponse"), reason="this grpcio-health-checking has no List")
def test_health_list_is_message_of_contract(channel):
    """As stubs of newer releases read it."""
    answer = health_pb2.HealthListResponse.FromString(call(channel, "/grpc.health.v1.Health/List"))
    assert {name: each.status for name, each in answer.statuses.items()} == _statuses(answer.SerializeToString())


def test_unknown_method_is_named_with_known_ones(channel):
    """So that clients see which methods the service has."""
    error = fail(channel, "/inference.GRPCInferenceService/SystemSharedMemoryStatus")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert 'unknown method "SystemSharedMemoryStatus" of service "inference.GRPCInferenceService"' in error.details()
    assert "ModelInfer" in error.details()


def test_unknown_service_is_named_with_known_ones(channel):
    """Health and reflection included."""
    error = fail(channel, "/tensorflow.serving.PredictionService/Predict")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert 'unknown service "tensorflow.serving.PredictionService"' in error.details()
    assert "inference.GRPCInferenceService" in error.details()


def _digits(**fields):
    picture = oip.ModelInferRequest.InferInputTensor(name="X", datatype="FP32", shape=[1, 64])
    raw = [np.zeros(64, np.float32).tobytes()]
    return oip.ModelInferRequest(**{"model_name": "digits", "inputs": [picture], "raw_input_contents": raw, **fields})


def test_model_without_name_is_not_ready(channel):
    """As in Triton, whatever the number of models."""
    stub = GRPCInferenceServiceStub(channel)
    assert not stub.ModelReady(oip.ModelReadyRequest(name=""), timeout=TIMEOUT_S).ready
    assert stub.ModelReady(oip.ModelReadyRequest(name="digits", version="01"), timeout=TIMEOUT_S).ready
    assert not stub.ModelReady(oip.ModelReadyRequest(name="digits", version="1.0"), timeout=TIMEOUT_S).ready


def test_accepts_null_values(channel):
    """Null values, a version with a leading zero, and the same output twice."""
    none = {
        "sequence_id": oip.InferParameter(uint64_param=0),
        "sequence_start": oip.InferParameter(bool_param=False),
        "sequence_end": oip.InferParameter(bool_param=False),
        "priority": oip.InferParameter(uint64_param=0),
        "timeout": oip.InferParameter(int64_param=0),
        "triton_something": oip.InferParameter(),
    }
    outputs = [oip.ModelInferRequest.InferRequestedOutputTensor(name="label") for _ in range(2)]
    request = _digits(model_version="01", parameters=none, outputs=outputs)
    # The second request matches a cached template.
    for _ in range(2):
        answer = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=TIMEOUT_S)
        assert (answer.model_version, [output.name for output in answer.outputs]) == ("1", ["label"])
        assert len(answer.raw_output_contents) == 1
