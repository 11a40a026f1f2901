"""Models that their first request loads, over real sockets."""

import json
import signal
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from inferd.client import Client, DeadlineExceeded, ModelState, NotFound, PermissionDenied, Unauthenticated, Unavailable
from tests import onnx_models, onnx_traps
from tests.integration.security.conftest import token_entry
from tests.load import add_model, connect, metric
from tests.patience import PATIENCE_S, eventually
from tests.server import ServerProcess, serving

#: Each test has its own model, which is cold when it begins.
_MODELS = (
    "called",
    "streamed",
    "described",
    "asked",
    "private",
    "visible",
    "watched",
    "cancelled",
    "rest",
    "configured",
)

_POLICY = """
rules:
  - {principals: ["*:reader"], models: [visible], methods: [metadata]}
  - {principals: ["*:caller"], methods: [infer, metadata, admin]}
"""

#: Elements of a table of 12 MB.
_TABLE = 3_000_000

_X = {"x": np.ones((1, 3), np.float32)}
_CALLER = (("authorization", "Bearer inferd_caller"),)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("on_demand")
    models = folder / "models"
    for name in _MODELS:
        add_model(models, name, onnx_models.linear())
    add_model(models, "pinned", onnx_models.linear(), {"pinned": True})
    for version in ("1", "2"):
        onnx_models.save(onnx_models.linear(), models / "versions" / version / "model.onnx")
    (models / "versions" / "model.yaml").write_text("versions: all\nrouting: {labels: {stable: 1}}\n")
    (models / "broken" / "1").mkdir(parents=True)
    (models / "broken" / "1" / "model.onnx").write_bytes(b"not a model")
    (folder / "policy.yaml").write_text(_POLICY)
    (folder / "tokens.yaml").write_text("".join(token_entry(name, f"inferd_{name}") for name in ("reader", "caller")))
    settings = {
        "repository.on_demand": "true",
        "security.tokens_file": folder / "tokens.yaml",
        "security.policy_file": folder / "policy.yaml",
        "security.open_model_health": "true",
        "log.level": "debug",
    }
    arguments = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    with serving(models, *arguments) as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with _client(server, "caller") as connected:
        yield connected


def _client(server: ServerProcess, principal: str) -> Client:
    return Client(server.grpc, token=f"inferd_{principal}", allow_insecure_token=True, timeout_s=PATIENCE_S, retry=None)


def _loads(server: ServerProcess, model: str) -> float:
    """How often versions of the model were loaded, with or without success."""
    return metric(server, "inferd_model_loads_total", model=model)


def test_nothing_is_loaded_at_start_but_what_is_pinned(server: ServerProcess, client: Client) -> None:
    """The server is ready all the same, and so are its models by name."""
    states = {(model.name, model.version): model.state for model in client.models()}
    assert states["pinned", "1"] is ModelState.READY
    assert states["watched", "1"] is ModelState.ON_DEMAND
    client.wait_until_ready("watched")
    with connect(server.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ModelReady(oip.ModelReadyRequest(name="watched"), metadata=_CALLER).ready
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(service="watched"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert stub.ModelStatistics(oip.ModelStatisticsRequest(name="watched"), metadata=_CALLER).model_stats
        index = stub.RepositoryIndex(oip.RepositoryIndexRequest(), metadata=_CALLER).models
    assert {(each.state, each.reason) for each in index if each.name == "watched"} == {
        ("UNAVAILABLE", "the next request loads it")
    }
    assert client.model("watched").inputs == ()
    assert _loads(server, "watched") == 0


def test_callers_share_a_load(server: ServerProcess, client: Client) -> None:
    """Twenty at the same time are all answered, after one load; the log says how long each has waited."""
    with ThreadPoolExecutor(20) as pool:
        results = [each.result() for each in [pool.submit(client.infer, "called", _X) for _ in range(20)]]
    assert all(np.array_equal(result["y"], [[3, 3, 3]]) for result in results)
    assert _loads(server, "called") == 1
    assert metric(server, "inferd_model_state", model="called", state="ready") == 1
    eventually(lambda: len(_access_lines(server, "called")) == 20, "a line for each call")
    assert any(line.get("load_wait_ms", 0) > 0 for line in _access_lines(server, "called"))


def _access_lines(server: ServerProcess, model: str) -> list[dict[str, object]]:
    return [line for line in server.events("access") if line.get("model") == model]


def test_stream(server: ServerProcess, client: Client) -> None:
    """Requests to several models in any order, of which some are cold, one is broken and one does not exist."""
    requests = ["streamed", "pinned", "broken", "streamed", "no such model"]
    with connect(server.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        messages = [_oip_request(name, str(number)) for number, name in enumerate(requests)]
        answers = list(stub.ModelStreamInfer(iter(messages), metadata=_CALLER, timeout=PATIENCE_S))
    assert [(each.infer_response.id, bool(each.error_message)) for each in answers] == [
        ("0", False),
        ("1", False),
        ("2", True),
        ("3", False),
        ("4", True),
    ]
    results = list(client.stream("streamed", [_X] * 5))
    assert len(results) == 5
    assert _loads(server, "streamed") == 1


def _oip_request(model: str, number: str) -> oip.ModelInferRequest:
    tensor = oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 3])
    return oip.ModelInferRequest(model_name=model, id=number, inputs=[tensor], raw_input_contents=[b"\0" * 12])


def test_descriptions_that_need_the_model(server: ServerProcess, client: Client) -> None:
    """They load it: of Triton's protocol, and of ours if that is asked for."""
    with connect(server.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        described = stub.ModelMetadata(oip.ModelMetadataRequest(name="described"), metadata=_CALLER)
        assert [each.name for each in described.inputs] == ["x"]
        assert list(described.versions) == ["1"]
        assert stub.ModelConfig(oip.ModelConfigRequest(name="described"), metadata=_CALLER).config.name == "described"
    assert [each.name for each in client.model("asked", load=True).inputs] == ["x"]
    assert (_loads(server, "described"), _loads(server, "asked")) == (1, 1)


def test_requests_over_http(server: ServerProcess, client: Client) -> None:
    """They wait for the same load as those of gRPC, and so does a configuration."""

    def ask(path: str, content: object = None) -> dict[str, Any]:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"http://{server.rest}/v2/models/{path}", body, headers=dict(_CALLER))
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    infer = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1]}]}
    with ThreadPoolExecutor(9) as pool:
        over_http = [pool.submit(ask, "rest/infer", infer) for _ in range(8)]
        over_grpc = pool.submit(client.infer, "rest", _X)
        assert [answer.result()["outputs"][0]["data"] for answer in over_http] == [[3, 3, 3]] * 8
        np.testing.assert_array_equal(over_grpc.result()["y"], [[3, 3, 3]])
    assert _loads(server, "rest") == 1
    assert ask("configured/config")["name"] == "configured"
    assert _loads(server, "configured") == 1


def test_callers_without_permission(server: ServerProcess) -> None:
    """Neither a request for a model that they may not run, nor one for a model that they cannot see loads it."""
    with _client(server, "reader") as reader:
        with pytest.raises(PermissionDenied):
            reader.infer("visible", _X)
        with pytest.raises(PermissionDenied):
            reader.infer("private", _X)
        with pytest.raises(NotFound):
            reader.model("private", load=True)
    with Client(server.grpc, timeout_s=PATIENCE_S, retry=None) as nobody, pytest.raises(Unauthenticated):
        nobody.infer("visible", _X)
    assert [_loads(server, name) for name in ("visible", "private")] == [0, 0]
    for name in ("visible", "private"):
        assert metric(server, "inferd_model_state", model=name, state="on_demand") == 1


def test_model_that_cannot_be_loaded(server: ServerProcess, client: Client) -> None:
    """Its callers are told so, with a hint when to come again, and not why; it is not ready then."""
    for _ in range(2):
        with pytest.raises(Unavailable) as refused:
            client.infer("broken", _X)
        assert "not a model" not in str(refused.value)
        assert (refused.value.retry_after_s or 0) > 0
    broken = client.model("broken")
    assert (broken.state, bool(broken.reason)) == (ModelState.FAILED, True)
    with connect(server.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert not stub.ModelReady(oip.ModelReadyRequest(name="broken"), metadata=_CALLER).ready


def test_versions_and_labels(server: ServerProcess, client: Client) -> None:
    """The first request loads all versions of a model, and finds the one that it asks for."""
    assert client.infer("versions", _X, version="stable").version == "1"
    assert client.infer("versions", _X).version == "2"
    assert client.infer("versions", _X, version="1").version == "1"
    with pytest.raises(NotFound):
        client.infer("versions", _X, version="3")
    assert _loads(server, "versions") == 2


def test_deadline_that_a_load_would_outlast(tmp_path: Path) -> None:
    """The request is refused at once, with a hint from how long the last load took; the load goes on."""
    for name in ("first", "second"):
        add_model(tmp_path, name, onnx_models.lookup(_TABLE))
    # Enough for either, with what its load takes, but not beside the other.
    settings = {"on_demand": "true", "min_residence_s": 0, "memory_budget_bytes": 21 * _TABLE}
    arguments = [part for name, value in settings.items() for part in ("--set", f"repository.{name}={value}")]
    index = {"index": np.array([7], np.int64)}
    with serving(tmp_path, *arguments) as server, Client(server.grpc, timeout_s=PATIENCE_S, retry=None) as client:
        for name in ("first", "second"):
            assert client.infer(name, index)["y"] == [70]
        eventually(lambda: client.model("first").state is ModelState.ON_DEMAND, "it has left for the second")
        (refused,) = client.stream("first", [index], timeout_s=0.01)
        assert isinstance(refused.outcome, Unavailable)
        assert refused.outcome.reason == "MODEL_LOADING"
        assert (refused.outcome.retry_after_s or 0) > 0.01
        assert client.infer("first", index)["y"] == [70]
        assert (_loads(server, "first"), _loads(server, "second")) == (2, 1)


def test_model_that_is_unloaded_by_a_call(tmp_path: Path) -> None:
    """Who waits for it is refused, and who comes later: it is not loaded on demand until a call has loaded it again."""
    add_model(tmp_path, "hanging", onnx_traps.hangs_when_opened())
    add_model(tmp_path, "called", onnx_models.linear())
    settings = {"on_demand": "true", "mode": "explicit", "load": '["*"]'}
    arguments = [part for name, value in settings.items() for part in ("--set", f"repository.{name}={value}")]
    with (
        serving(tmp_path, *arguments) as server,
        Client(server.grpc, timeout_s=PATIENCE_S, retry=None) as client,
        connect(server.grpc) as channel,
    ):
        waits = GRPCInferenceServiceStub(channel).ModelInfer.future(_oip_request("hanging", "waits"))
        eventually(lambda: client.model("hanging").state is ModelState.LOADING, "its request loads the model")
        client.unload_model("hanging")
        with pytest.raises(grpc.RpcError) as refused:
            waits.result(PATIENCE_S)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        client.unload_model("called")
        with pytest.raises(Unavailable):
            client.infer("called", _X)
        client.load_model("called")
        assert client.infer("called", _X).model == "called"


def test_calls_that_end_before_their_model_is_there(tmp_path: Path) -> None:
    """By their deadline, by their caller, or because the server stops; other models answer meanwhile."""
    add_model(tmp_path, "hanging", onnx_traps.hangs_when_opened())
    add_model(tmp_path, "other", onnx_models.linear())
    with (
        serving(tmp_path, "--set", "repository.on_demand=true") as server,
        Client(server.grpc, timeout_s=PATIENCE_S, retry=None) as client,
        connect(server.grpc) as channel,
    ):
        with pytest.raises(DeadlineExceeded):
            client.infer("hanging", {"x": np.ones(3, np.float32)}, timeout_s=0.2)
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        gone, left = (infer.future(_oip_request("hanging", each)) for each in ("gone", "left"))
        eventually(lambda: client.model("hanging").state is ModelState.LOADING, "its requests load the model")
        assert client.infer("other", _X).model == "other"
        assert gone.cancel()
        with pytest.raises(grpc.FutureCancelledError):
            gone.result()
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as ended:
            left.result(PATIENCE_S)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "draining" in ended.value.details()
        assert server.wait() == 0
