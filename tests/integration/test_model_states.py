"""Readiness, health by name and metrics while models come, go and fail, in real processes."""

import re
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd import demo
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference import grpc_service_pb2_grpc as oip_grpc
from tests.patience import PATIENCE_S, eventually
from tests.prometheus import PROMTOOL
from tests.server import ROOT, ServerProcess, serving

_STATUS = health_pb2.HealthCheckResponse


def _get(server: ServerProcess, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{server.http}{path}", timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _metric(server: ServerProcess, name: str, **labels: str) -> float | None:
    given = {f'{label}="{value}"' for label, value in labels.items()}
    for line in _get(server, "/metrics")[1].splitlines():
        found = re.fullmatch(rf"{name}{{(.*)}} (\S+)", line)
        if found and given <= set(found[1].split(",")):
            return float(found[2])
    return None


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model, and a file that is no model."""
    root = tmp_path_factory.mktemp("repository")
    (root / "digits").symlink_to(demo.repository())
    (root / "broken/1").mkdir(parents=True)
    (root / "broken/1/model.onnx").write_bytes(b"no model")
    return root


@pytest.fixture(scope="module")
def explicit(repository: Path) -> Iterator[ServerProcess]:
    """A server without a model, as long as nobody loads one."""
    flags = ("--model-control-mode", "explicit", "--set", "server.triton_metrics=true")
    with serving("--model-repository", repository, *flags) as server:
        yield server


class Watch:
    """A watch of one name; ``seen`` grows in a thread."""

    def __init__(self, channel: grpc.Channel, name: str) -> None:
        self.seen: list[str] = []
        self._call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name))
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def wait(self, status: str) -> None:
        eventually(lambda: self.seen[-1:] == [status], f"{status} is seen")

    def stop(self) -> None:
        self._call.cancel()
        self._thread.join(PATIENCE_S)

    def _follow(self) -> None:
        try:
            for response in self._call:
                self.seen.append(_STATUS.ServingStatus.Name(response.status))
        except grpc.RpcError:
            pass


def test_model_that_is_loaded_and_unloaded(explicit: ServerProcess) -> None:
    """A watch of its name sees it come and go; the server is ready all the time."""
    with grpc.insecure_channel(explicit.grpc) as channel:
        models = oip_grpc.GRPCInferenceServiceStub(channel)
        assert models.ServerReady(oip.ServerReadyRequest(), timeout=PATIENCE_S).ready
        watch = Watch(channel, "digits")
        watch.wait("SERVICE_UNKNOWN")
        models.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="digits"), timeout=PATIENCE_S)
        watch.wait("SERVING")
        assert models.ModelReady(oip.ModelReadyRequest(name="digits"), timeout=PATIENCE_S).ready
        models.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="digits"), timeout=PATIENCE_S)
        watch.wait("NOT_SERVING")
        watch.stop()
        assert watch.seen == ["SERVICE_UNKNOWN", "NOT_SERVING", "SERVING", "NOT_SERVING"]
        assert models.ServerReady(oip.ServerReadyRequest(), timeout=PATIENCE_S).ready
    eventually(lambda: (_metric(explicit, "inferd_model_unloads_total", model="digits") or 0) > 0, "it is counted")
    loads = _metric(explicit, "inferd_model_loads_total", model="digits", outcome="ready")
    assert (loads or 0) > 0
    assert _metric(explicit, "inferd_model_load_duration_seconds_count", model="digits") == loads


def test_clients_use_servers_that_have_the_model(explicit: ServerProcess) -> None:
    """With the service config of docs/other-clients.md, a call waits until the model is there."""
    page = (ROOT / "docs/other-clients.md").read_text()
    (config,) = [text for text in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if "healthCheckConfig" in text]
    question = oip.ModelReadyRequest(name="digits")
    with grpc.insecure_channel(explicit.grpc) as admin, connected(explicit, config) as channel:
        models, admins = oip_grpc.GRPCInferenceServiceStub(channel), oip_grpc.GRPCInferenceServiceStub(admin)
        with pytest.raises(grpc.RpcError) as error:
            models.ModelReady(question, timeout=PATIENCE_S)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        waiting = models.ModelReady.future(question, timeout=PATIENCE_S, wait_for_ready=True)
        admins.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="digits"), timeout=PATIENCE_S)
        assert waiting.result().ready
        admins.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name="digits"), timeout=PATIENCE_S)


def connected(server: ServerProcess, service_config: str) -> grpc.Channel:
    """Return a channel with a service config."""
    return grpc.insecure_channel(server.grpc, options=[("grpc.service_config", service_config)])


def test_failed_load(explicit: ServerProcess) -> None:
    """It is counted, and the name is known and not serving."""
    with grpc.insecure_channel(explicit.grpc) as channel:
        models = oip_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            models.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="broken"), timeout=PATIENCE_S)
        question = health_pb2.HealthCheckRequest(service="broken/1")
        status = health_pb2_grpc.HealthStub(channel).Check(question, timeout=PATIENCE_S).status
    assert status == _STATUS.NOT_SERVING
    assert _metric(explicit, "inferd_model_loads_total", model="broken", outcome="failed") == 1
    assert _metric(explicit, "inferd_model_state", model="broken", version="1", state="failed") == 1


def test_triton_metrics_of_a_real_scrape(explicit: ServerProcess) -> None:
    """They are parsed by promtool, which dislikes nothing but their names."""
    with grpc.insecure_channel(explicit.grpc) as channel:
        models = oip_grpc.GRPCInferenceServiceStub(channel)
        models.RepositoryModelLoad(oip.RepositoryModelLoadRequest(model_name="digits"), timeout=PATIENCE_S)
        pixels = oip.ModelInferRequest.InferInputTensor(name="X", datatype="FP32", shape=[1, 64])
        pixels.contents.fp32_contents.extend([0.0] * 64)
        models.ModelInfer(oip.ModelInferRequest(model_name="digits", inputs=[pixels]), timeout=PATIENCE_S)
    labels = {"model": "digits", "version": "1"}
    assert _metric(explicit, "nv_inference_request_success", **labels) == 1
    assert (_metric(explicit, "nv_inference_request_duration_us", **labels) or 0) > 0
    assert _metric(explicit, "nv_inference_pending_request_count", **labels) == 0
    scraped = _get(explicit, "/metrics")[1]
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=scraped, text=True, capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert all(line.startswith("nv_inference_") for line in done.stderr.splitlines()), done.stderr
    assert 'nv_inference_count counter metrics should have "_total" suffix' in done.stderr


def test_strict_readiness(repository: Path) -> None:
    """One model that fails keeps the server from being ready; the others are served, each by its name."""
    server = ServerProcess("--model-repository", repository, "--strict-readiness", "true")
    try:
        listening = server.wait_event("listening")
        server.http = listening["metrics"]
        assert server.wait_event("waiting for models (repository.readiness)")["missing"] == ["broken 1 (failed)"]
        eventually(lambda: "broken 1 (failed)" in _get(server, "/readyz")[1], "/readyz names it")
        assert _get(server, "/readyz")[0] == 503
        with grpc.insecure_channel(listening["grpc"]) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            statuses = [
                health.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE_S).status
                for name in ("", "readiness", "broken", "digits", "startup")
            ]
            ready = oip_grpc.GRPCInferenceServiceStub(channel).ServerReady(oip.ServerReadyRequest(), timeout=PATIENCE_S)
        assert statuses == [_STATUS.NOT_SERVING] * 3 + [_STATUS.SERVING] * 2
        assert not ready.ready
        assert server.stop() == 0
    finally:
        server.process.kill()
        server.wait()


def test_exit_on_error(repository: Path) -> None:
    """The process ends with 1, and the last error names the model."""
    server = ServerProcess("--model-repository", repository, "--exit-on-error", "true")
    try:
        assert server.wait() == 1
    finally:
        server.process.kill()
        server.wait()
    text = "failed to load, with repository.exit_on_error: broken 1 (failed)"
    assert len(server.events(text)) == 1, server.text
