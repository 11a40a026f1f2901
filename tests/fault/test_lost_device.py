"""An error of a device that stays: the model is not serving until its session has been opened again; others serve."""

import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd import demo
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from inferd.client import Client
from tests import onnx_models
from tests.integration.test_model_states import Watch
from tests.load import add_model, connect, metric, request
from tests.patience import PATIENCE_S, eventually
from tests.server import ROOT, ServerProcess

_X = {"x": np.ones((1, 3), np.float32)}
_DIGIT = {"X": np.zeros((1, 64), np.float32)}


class _Broken:
    """A server whose model ``linear`` has lost its device while ``flag`` exists."""

    def __init__(self, server: ServerProcess, flag: Path) -> None:
        self.server = server
        self.flag = flag


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[_Broken]:
    add_model(tmp_path / "models", "linear", onnx_models.linear())
    flag = tmp_path / "lost"
    server = ServerProcess(
        tmp_path / "models",
        demo.repository(),
        program=(sys.executable, "-m", "tests.fault.lost_device"),
        environment={"LOST_DEVICE": str(flag)},
        folder=ROOT,
    )
    try:
        server.wait_ready()
        yield _Broken(server, flag)
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.wait()


def _health(channel: grpc.Channel, name: str) -> str:
    question = health_pb2.HealthCheckRequest(service=name)
    answer = health_pb2_grpc.HealthStub(channel).Check(question, timeout=PATIENCE_S)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def _failure(channel: grpc.Channel) -> grpc.RpcError:
    """Return the error of a request, without the retries of a client."""
    with pytest.raises(grpc.RpcError) as failed:
        InferenceServiceStub(channel).Infer(request("linear", _X["x"]), timeout=PATIENCE_S)
    return failed.value


def _model_ready(channel: grpc.Channel) -> bool:
    return GRPCInferenceServiceStub(channel).ModelReady(oip.ModelReadyRequest(name="linear"), timeout=PATIENCE_S).ready


def test_model_is_not_serving_until_its_session_runs_again(broken: _Broken) -> None:
    """Seen by health, a watch, ModelReady, GetModel, metrics and requests, which get a hint; then all is as before."""
    with connect(broken.server.grpc) as channel, Client(broken.server.grpc) as client:
        assert client.infer("linear", _X)["y"].tolist() == [[3, 3, 3]]
        watch = Watch(channel, "linear")
        watch.wait("SERVING")
        broken.flag.touch()
        error = _failure(channel)
        assert (error.code(), "is being opened again" in error.details()) == (grpc.StatusCode.UNAVAILABLE, True)
        assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
        watch.wait("NOT_SERVING")
        assert (_health(channel, "linear"), _model_ready(channel)) == ("NOT_SERVING", False)
        assert "the device failed" in client.model("linear").reason
        assert metric(broken.server, "inferd_model_broken", model="linear") == 1
        # Others are as before, and so is the server.
        assert len(client.infer("digits", _DIGIT)["label"]) == 1
        assert [_health(channel, name) for name in ("digits", "", "liveness")] == ["SERVING"] * 3
        failures = {"model": "linear", "outcome": "failed"}
        eventually(lambda: metric(broken.server, "inferd_session_reopens_total", **failures) >= 1, "a failed attempt")
        broken.flag.unlink()
        watch.wait("SERVING")
        assert client.infer("linear", _X)["y"].tolist() == [[3, 3, 3]]
        assert (_model_ready(channel), client.model("linear").reason) == (True, "")
        assert watch.seen == ["SERVING", "NOT_SERVING", "SERVING"]
        watch.stop()
    assert broken.server.stop() == 0


def test_server_stops_while_a_session_cannot_be_opened(broken: _Broken) -> None:
    """The attempts end, and nothing holds up the exit."""
    broken.flag.touch()
    with connect(broken.server.grpc) as channel:
        assert _failure(channel).code() is grpc.StatusCode.UNAVAILABLE
    assert broken.server.stop() == 0
