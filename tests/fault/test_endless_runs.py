"""Runs that do not end: effects on their callers, their model, other models, and the shutdown."""

import signal
import subprocess
import sys
import threading
from functools import partial

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests import onnx_models
from tests.load import ENDLESS_TURNS, add_model, busy_model, connect, metric
from tests.patience import PATIENCE_S, eventually
from tests.server import ROOT, serving

#: Elements for which the long operator takes about 20 s of a core, longer than the rest of the test.
_LONG = 200_000

#: Deadlines of calls whose runs they end, tried in turn until one is long enough for the run to begin.
_DEADLINES_S = (0.5, 4.0, 32.0)

#: Answers to other callers during a run.
_ANSWERS = 20

_LIMITS = ("deadline", "cancel", "max_run_ms")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A model with a loop of any number of iterations, one with a long operator, and a normal one."""
    folder = tmp_path_factory.mktemp("models")
    add_model(folder, "loop", busy_model())
    add_model(folder, "long", onnx_models.one_long_operator())
    add_model(folder, "innocent", onnx_models.linear())
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Models with and without long runs; one with a long operator for each outcome of its callers."""
    folder = tmp_path_factory.mktemp("more models")
    brief = {"runtime": {"max_run_ms": 500}}
    add_model(folder, "loop", busy_model())
    add_model(folder, "brief loop", busy_model(), brief)
    add_model(folder, "innocent", onnx_models.linear())
    for limit in _LIMITS:
        add_model(folder, f"long, {limit}", onnx_models.one_long_operator(), brief if limit == "max_run_ms" else None)
    with serving(folder) as running:
        yield running


def _request(model, x):
    return v1.InferRequest(model=model, inputs=[v1.Tensor(name="x", shape=x.shape, raw=x.tobytes())])


def _turns(number, model="loop"):
    return _request(model, np.full((1, 1), number, np.float32))


def _long(length, model="long"):
    return _request(model, np.zeros((1, length), np.float32))


def _reason(error):
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(details).details[0].Unpack(info)
    return info.reason


class _Others:
    """A caller that checks health and calls another model all the time."""

    def __init__(self, address):
        self._channel = connect(address)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.calls = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join(PATIENCE_S)
        self._channel.close()

    def wait_answered(self):
        """Wait for some more answers."""
        before = self.calls
        eventually(lambda: self.calls >= before + _ANSWERS, "others are answered")

    def _ask(self):
        health, infer = health_pb2_grpc.HealthStub(self._channel), InferenceServiceStub(self._channel)
        while not self._ended.wait(0.002):
            health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
            infer.Infer(_request("innocent", np.ones((1, 3), np.float32)), timeout=PATIENCE_S)
            self.calls += 1


@pytest.fixture
def stub(server):
    """Over a new connection."""
    with connect(server.grpc) as channel:
        yield InferenceServiceStub(channel)


def _offered(server, model):
    return metric(server, "inferd_offered_rows_total", model=model)


def _wait_until_it_runs(server, model, before=0.0):
    """Wait for a request to a model that was offered ``before`` rows before it."""
    waiting = partial(metric, server, "inferd_queue_rows", model=model)
    eventually(lambda: _offered(server, model) > before and waiting() == 0, "it runs")


def test_endless_run_ends_with_its_caller(repository):
    """Also after many short ones; others are not affected, the model answers again, and the server stops cleanly."""
    with serving(repository) as server:
        with connect(server.grpc) as channel, _Others(server.grpc) as others:
            stub = InferenceServiceStub(channel)
            for _ in range(64):
                stub.Infer(_turns(1), timeout=PATIENCE_S)
            # Possibly without a deadline.
            call = stub.Infer.future(_turns(ENDLESS_TURNS))
            eventually(lambda: metric(server, "inferd_offered_rows_total", model="loop") == 65, "it has arrived")
            others.wait_answered()
            assert not call.done()
            call.cancel()
            assert stub.Infer(_turns(1), timeout=PATIENCE_S).outputs
            abandoned = partial(metric, server, "inferd_runs_terminated_total", model="loop", reason="abandoned")
            eventually(lambda: abandoned() == 1, "the run that its caller left is counted")
            for deadline_s in _DEADLINES_S:
                with pytest.raises(grpc.RpcError) as raised:
                    stub.Infer(_turns(ENDLESS_TURNS), timeout=deadline_s)
                assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                assert stub.Infer(_turns(1), timeout=PATIENCE_S).outputs
                others.wait_answered()
                if abandoned() > 1:
                    break
            assert abandoned() == 2
        assert server.stop() == 0, server.text


def test_run_above_time_limit_is_terminated(server, stub):
    """Callers and operators get the reason."""
    with pytest.raises(grpc.RpcError) as raised:
        stub.Infer(_turns(ENDLESS_TURNS, "brief loop"), timeout=PATIENCE_S)
    assert (raised.value.code(), _reason(raised.value)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "RUN_TOO_LONG")
    assert "0.5 s" in raised.value.details()
    assert stub.Infer(_turns(1, "brief loop"), timeout=PATIENCE_S).outputs
    assert metric(server, "inferd_runs_terminated_total", model="brief loop", reason="time_limit") == 1
    eventually(lambda: "it took longer than 0.5 s (runtime.max_run_ms)" in server.text, "an operator is told")


@pytest.mark.parametrize("limit", _LIMITS)
def test_long_operator_does_not_take_a_worker(server, stub, limit):
    """It cannot be interrupted, so its thread is abandoned and replaced."""
    model = f"long, {limit}"
    stuck = partial(metric, server, "inferd_stuck_threads", model=model)
    with _Others(server.grpc) as others:
        for deadline_s in _DEADLINES_S if limit == "deadline" else [PATIENCE_S]:
            call = stub.Infer.future(_long(_LONG, model), timeout=deadline_s)
            if limit == "cancel":
                _wait_until_it_runs(server, model)
                call.cancel()
            else:
                assert call.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert stub.Infer(_long(10, model), timeout=PATIENCE_S).outputs
            others.wait_answered()
            if stuck():
                break
        assert stuck() == 1, "all that came before the long run was over"


def test_shutdown_with_stuck_thread(server, stub):
    """It is not awaited, and the log names its model."""
    model = "long, cancel"
    before = _offered(server, model)
    call = stub.Infer.future(_long(_LONG, model))
    _wait_until_it_runs(server, model, before)
    call.cancel()
    eventually(lambda: metric(server, "inferd_stuck_threads", model=model) > 0, "it is given up")
    assert server.stop() == 1, "a thread is still in a run"
    assert server.events(f"model {model} is unloaded while a thread hangs in a run")


@pytest.mark.parametrize("hang", ["time.sleep(1000)", "ctypes.PyDLL(None).sleep(1000)"], ids=["waits", "keeps Python"])
def test_shutdown_with_hanging_poll_thread(repository, tmp_path, hang):
    """Whether it waits, or holds the interpreter lock."""
    script = tmp_path / "serve.py"
    script.write_text(_HANGS_WHEN_IT_DRAINS.format(hang=hang))
    arguments = ("serve", repository / "innocent", "--grpc-port", "0", "--http-port", "none", "--metrics-port", "0")
    command = [sys.executable, script, *arguments, "--set", "server.drain_grace_s=0.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            for line in process.stdout:
                if '"event":"ready"' in line:
                    break
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 1
        finally:
            process.kill()


#: The services start to drain on the poll thread.
_HANGS_WHEN_IT_DRAINS = """
import inferd.core_environment
import ctypes, time
from inferd.api.services import InferenceServices
from inferd.cli import main
InferenceServices.drain = lambda self: {hang}
main()
"""


@pytest.mark.parametrize("request_of_it", [_turns(ENDLESS_TURNS), _long(_LONG)], ids=["loop", "long operator"])
def test_shutdown_with_waiting_caller_of_endless_run(repository, request_of_it):
    """The exit status shows that a request was not answered."""
    with serving(repository, "--set", "server.drain_grace_s=0.5") as server:
        with connect(server.grpc) as channel:
            call = InferenceServiceStub(channel).Infer.future(request_of_it, timeout=PATIENCE_S)
            _wait_until_it_runs(server, request_of_it.model)
            server.process.send_signal(signal.SIGTERM)
            assert call.exception() is not None
        assert server.wait() == 1, server.text
