"""Startup and shutdown at bad moments: used ports, slow loading, impatient operators, unusual names."""

import ctypes
import re
import signal
import socket
import sys
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import TensorProto, helper

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests import onnx_models
from tests.load import BusyModel, add_model, array, busy_model, check, connect, metric, request
from tests.patience import PATIENCE_S
from tests.server import ServerProcess, serving

#: More than any machine can do during a test.
NEVER_LOADED_TURNS = 2_000_000_000

#: `inferd` in which the warm-up of the second model waits for a file.
_HELD_UP = """
import inferd.core_environment
import pathlib, time
from structlog.contextvars import get_contextvars
from inferd.runtime import warmup

warm_up = warmup.warm_up

def held_up(*arguments, **options):
    while get_contextvars()["model"] == "b-second" and not pathlib.Path({file!r}).exists():
        time.sleep(0.01)
    return warm_up(*arguments, **options)

warmup.warm_up = held_up

from inferd.cli import main
main()
"""

NOT_SERVING, SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING

ODD_INPUT = "serving_default/encoder.0/x:0"
ODD_OUTPUT = "größe → y"
ODD_MODELS = ["модель", "text-v1.5 (final)", "a" * 200]


@pytest.mark.parametrize(
    ("taken", "flag"), [("grpc_port", "--grpc-port"), ("http_port", "--http-port"), ("metrics_port", "--metrics-port")]
)
def test_port_in_use_is_named(taken, flag):
    """The server exits at once, with status 1, the setting and its flag, the address and the reason."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        server = ServerProcess("--set", f"server.{taken}={other.getsockname()[1]}")
        assert server.wait() == 1
    assert f"server.{taken} ({flag}) on server.host (--host): cannot listen on {address}" in server.text
    assert "Address already in use" in server.text
    assert "Traceback" not in server.text


def test_two_servers_do_not_share_a_port():
    """The second one fails, instead of taking half of the connections."""
    with serving() as first:
        second = ServerProcess("--set", f"server.grpc_port={first.grpc.rpartition(':')[2]}")
        assert second.wait() == 1
        assert f"cannot listen on {first.grpc}" in second.text
        with connect(first.grpc) as channel:
            InferenceServiceStub(channel).ListModels(v1.ListModelsRequest(), timeout=PATIENCE_S)


def test_readiness_changes_once_while_models_load(tmp_path):
    """The first model answers while the second loads; health is NOT_SERVING until then, and then SERVING."""
    script, may_go_on = tmp_path / "serve.py", tmp_path / "may go on"
    script.write_text(_HELD_UP.format(file=str(may_go_on)))
    for name in ("a-first", "b-second"):
        add_model(tmp_path / "models", name, busy_model())
    one_at_a_time = ("--set", "repository.parallel_loads=1")
    server = ServerProcess(tmp_path / "models", *one_at_a_time, program=(sys.executable, script))
    try:
        address = server.wait_event("listening")["grpc"]
        server.wait_event("model ready", model="a-first")
        with connect(address) as channel:
            states = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
            seen = [next(states).status]
            stub = InferenceServiceStub(channel)
            check(stub.Infer(request("a-first", array(1)), timeout=PATIENCE_S), array(1))
            with pytest.raises(grpc.RpcError) as refused:
                stub.Infer(request("b-second", array(1)), timeout=PATIENCE_S)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert re.search(r"is (loading|verifying|warming)$", refused.value.details())
            assert not server.events("ready"), "the second model is still being loaded"
            may_go_on.touch()
            server.wait_ready()
            calls = [stub.Infer.future(request("a-first", array(n)), timeout=PATIENCE_S) for n in range(1, 101)]
            for number, call in enumerate(calls, start=1):
                check(call.result(), array(number))
            assert metric(server, "inferd_model_state", state="ready") == 2
            assert server.stop() == 0
            seen += [state.status for state in states]
        assert seen == [NOT_SERVING, SERVING, NOT_SERVING]
    finally:
        server.stop(signal.SIGKILL)


def test_signal_stops_server_while_loading(tmp_path):
    """Without waiting for the load."""
    add_model(tmp_path, "never-loaded", busy_model(turns=NEVER_LOADED_TURNS))
    server = ServerProcess(tmp_path)
    server.wait_event("model loading")
    assert server.stop(signal.SIGTERM) == 0, server.text
    assert server.events("stopped")
    assert not server.events("model ready")


def test_signals_stop_server_in_any_thread():
    """The kernel may deliver a signal to any thread, and does so under load; here the newest one gets both."""
    with serving("--set", "server.drain_delay_s=60") as server:
        pid = server.process.pid
        thread = max(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir())
        assert thread != pid
        _signal_thread(pid, thread, signal.SIGTERM)
        server.wait_event("draining")
        _signal_thread(pid, thread, signal.SIGINT)
        assert server.wait() == 128 + signal.SIGINT


def _signal_thread(pid, thread, number):
    assert ctypes.CDLL(None).tgkill(pid, thread, number) == 0


def test_two_sigterms_stop_busy_server_at_once(tmp_path):
    """The first one would drain, the second one does not."""
    add_model(tmp_path, "busy", busy_model(), {"runtime": {"intra_op_threads": 1}})
    with (
        serving(tmp_path) as server,
        connect(server.grpc) as channel,
        BusyModel(server, channel, "busy").occupied() as work,
    ):
        server.process.send_signal(signal.SIGTERM)
        server.wait_event("draining")
        assert not work.done()
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        assert work.code() is grpc.StatusCode.UNAVAILABLE


def _odd_model():
    node = helper.make_node("Identity", [ODD_INPUT], [ODD_OUTPUT])
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2]) for n in (ODD_INPUT, ODD_OUTPUT)]
    graph = helper.make_graph([node], "odd", values[:1], values[1:])
    opset = helper.make_opsetid("", onnx_models.OPSET)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[opset], ir_version=onnx_models.IR_VERSION)
    return model


@pytest.mark.parametrize("name", ODD_MODELS)
def test_unusual_names(odd_server, name):
    """Models and tensors keep their names in both protocols, in descriptions, statistics and metrics."""
    x = np.array([[1, 2]], np.float32)
    with connect(odd_server.grpc) as channel:
        stub, other = InferenceServiceStub(channel), GRPCInferenceServiceStub(channel)
        tensor = v1.Tensor(name=ODD_INPUT, shape=x.shape, raw=x.tobytes())
        answer = stub.Infer(v1.InferRequest(model=name, inputs=[tensor], outputs=[ODD_OUTPUT]), timeout=PATIENCE_S)
        assert (answer.model, answer.outputs[0].name, answer.outputs[0].raw) == (name, ODD_OUTPUT, x.tobytes())
        described = stub.GetModel(v1.GetModelRequest(model=name), timeout=PATIENCE_S).model
        assert (described.inputs[0].name, described.outputs[0].name) == (ODD_INPUT, ODD_OUTPUT)
        its_request = oip.ModelInferRequest(
            model_name=name,
            inputs=[{"name": ODD_INPUT, "datatype": "FP32", "shape": [1, 2]}],
            raw_input_contents=[x.tobytes()],
        )
        assert other.ModelInfer(its_request, timeout=PATIENCE_S).outputs[0].name == ODD_OUTPUT
        statistics = other.ModelStatistics(oip.ModelStatisticsRequest(name=name), timeout=PATIENCE_S)
        assert statistics.model_stats[0].inference_count == 2
        with pytest.raises(grpc.RpcError) as refused:
            stub.Infer(v1.InferRequest(model=name), timeout=PATIENCE_S)
        assert f'input "{ODD_INPUT}": expected FP32' in refused.value.details()
    assert metric(odd_server, "inferd_requests_total", model=name, code="OK") == 2


@pytest.fixture(scope="module")
def odd_server(tmp_path_factory):
    """One model under several unusual names."""
    repository = tmp_path_factory.mktemp("odd")
    for name in ODD_MODELS:
        add_model(repository, name, _odd_model())
    with serving(repository) as running:
        yield running
