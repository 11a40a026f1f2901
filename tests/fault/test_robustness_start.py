"""Starting and stopping at bad moments: taken ports, models that take long to load, impatient operators, odd names."""

import ctypes
import signal
import socket
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
from tests.load import PATIENCE_S, BusyModel, add_model, array, busy_model, check, connect, metric, request
from tests.server import ServerProcess, serving

#: Some tenths of a second for each run, of which loading makes several.
SLOW_TO_LOAD_TURNS = 10_000

NOT_SERVING, SERVING = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING

ODD_INPUT = "serving_default/encoder.0/x:0"
ODD_OUTPUT = "größe → y"
ODD_MODELS = ["модель", "text-v1.5 (final)", "a" * 200]


@pytest.fixture
def slow_to_load(tmp_path):
    """A repository with a model that is ready at once and one that is not."""
    add_model(tmp_path, "a-quick", busy_model())
    add_model(tmp_path, "b-slow", busy_model(turns=SLOW_TO_LOAD_TURNS), {"runtime": {"intra_op_threads": 1}})
    return tmp_path


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.mark.parametrize("taken", ["grpc_port", "http_port"])
def test_a_taken_port_is_named(taken):
    """A server on a port that another one listens on ends at once, with status 1 and the address."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        server = ServerProcess("--set", f"server.{taken}={other.getsockname()[1]}")
        assert server.wait() == 1
    assert f"cannot listen on {address}" in server.text
    assert "Traceback" not in server.text


def test_two_servers_do_not_share_a_port():
    """The second one fails, rather than to take half of the first one's connections."""
    with serving() as first:
        second = ServerProcess("--set", f"server.grpc_port={first.grpc.rpartition(':')[2]}")
        assert second.wait() == 1
        assert f"cannot listen on {first.grpc}" in second.text
        with connect(first.grpc) as channel:
            InferenceServiceStub(channel).ListModels(v1.ListModelsRequest(), timeout=PATIENCE_S)


def test_readiness_changes_once_while_models_load(slow_to_load):
    """The first model answers while the second loads; health is NOT_SERVING until that is over, then SERVING."""
    port = _free_port()
    server = ServerProcess(slow_to_load, "--set", f"server.grpc_port={port}")
    try:
        server.wait_event("model ready", model="a-quick")
        with connect(f"127.0.0.1:{port}") as channel:
            states = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
            seen = [next(states).status]
            stub = InferenceServiceStub(channel)
            check(stub.Infer(request("a-quick", array(1)), timeout=PATIENCE_S), array(1))
            with pytest.raises(grpc.RpcError) as refused:
                stub.Infer(request("b-slow", array(1)), timeout=PATIENCE_S)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "is loading" in refused.value.details()
            assert not server.events("ready"), "the slow model is still being loaded"
            server.wait_ready()
            calls = [stub.Infer.future(request("a-quick", array(n)), timeout=PATIENCE_S) for n in range(1, 101)]
            for number, call in enumerate(calls, start=1):
                check(call.result(), array(number))
            assert metric(server, "inferd_model_state", state="ready") == 2
            assert server.stop() == 0
            seen += [state.status for state in states]
        assert seen == [NOT_SERVING, SERVING, NOT_SERVING]
    finally:
        server.stop(signal.SIGKILL)


def test_a_signal_while_a_model_loads_is_heeded(slow_to_load):
    """There is no need to wait for the load to be over."""
    server = ServerProcess(slow_to_load)
    server.wait_event("model ready", model="a-quick")
    assert server.stop(signal.SIGTERM) == 0, server.text
    assert server.events("stopped")
    assert not [line for line in server.events("model ready") if line["model"] == "b-slow"]


def test_signals_are_heeded_whichever_thread_gets_them():
    """The kernel may hand a signal to any thread, and does so under load; here the newest one gets both."""
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


def test_two_sigterms_end_a_busy_server_at_once(tmp_path):
    """The first one would wait for the work to be done, the second one does not."""
    add_model(tmp_path, "busy", busy_model(), {"runtime": {"intra_op_threads": 1}})
    with serving(tmp_path) as server, connect(server.grpc) as channel:
        model = BusyModel(server, channel, "busy")
        work = model.send(array(1, turns=model.turns(20)))
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
def test_odd_names(odd_server, name):
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
    """One model under several odd names."""
    repository = tmp_path_factory.mktemp("odd")
    for name in ODD_MODELS:
        add_model(repository, name, _odd_model())
    with serving(repository) as running:
        yield running
