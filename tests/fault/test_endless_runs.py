"""Runs that do not end: their callers, their model, the others, and the end of the server."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests import onnx_models
from tests.load import PATIENCE_S, add_model, busy_model, connect, eventually, metric
from tests.server import ROOT, serving

#: More turns of a loop than any machine does.
_ENDLESS = 4e18

#: In this time at most somebody else has an answer, also on a machine that has more to do than these tests.
_SOON_S = 2.0

#: Elements with which the long operator takes some 20 s.
_LONG = 200_000


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A model that loops as often as a request says, one with a long operator, and an innocent one."""
    folder = tmp_path_factory.mktemp("models")
    add_model(folder, "loop", busy_model())
    add_model(folder, "long", onnx_models.one_long_operator())
    add_model(folder, "innocent", onnx_models.linear())
    return folder


def _request(model, x):
    return v1.InferRequest(model=model, inputs=[v1.Tensor(name="x", shape=x.shape, raw=x.tobytes())])


def _turns(number):
    return _request("loop", np.full((1, 1), number, np.float32))


def _long(length):
    return _request("long", np.zeros((1, length), np.float32))


def _reason(error):
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(details).details[0].Unpack(info)
    return info.reason


class _Others:
    """Somebody who asks for the server's health and another model all the while, and how long that took at most."""

    def __init__(self, address):
        self._channel = connect(address)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.calls = 0
        self.longest_s = 0.0

    def __enter__(self):
        self._thread.start()
        eventually(lambda: self.calls > 0, "the first answer")
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join(PATIENCE_S)
        self._channel.close()

    def _ask(self):
        health, infer = health_pb2_grpc.HealthStub(self._channel), InferenceServiceStub(self._channel)
        asks = (
            lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S),
            lambda: infer.Infer(_request("innocent", np.ones((1, 3), np.float32)), timeout=PATIENCE_S),
        )
        while not self._ended.wait(0.002):
            for ask in asks:
                began_at = time.monotonic()
                ask()
                self.longest_s = max(self.longest_s, time.monotonic() - began_at)
                self.calls += 1


@contextmanager
def _asking(server):
    with connect(server.grpc) as channel:
        yield InferenceServiceStub(channel)


def test_a_run_without_end_ends_with_its_caller(repository):
    """Also after many short ones; others do not notice, the model answers again, and the server stops in good order."""
    with serving(repository) as server:
        with _asking(server) as stub, _Others(server.grpc) as others:
            for _ in range(64):
                stub.Infer(_turns(1), timeout=PATIENCE_S)
            with pytest.raises(grpc.RpcError) as told:
                stub.Infer(_turns(_ENDLESS), timeout=1)
            assert told.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert stub.Infer(_turns(1), timeout=PATIENCE_S).outputs
            assert metric(server, "inferd_runs_terminated_total", model="loop", reason="abandoned") == 1
        assert others.longest_s < _SOON_S
        assert server.stop() == 0, server.text


def test_a_caller_who_cancels_ends_a_run_without_end(repository):
    """There may be no deadline at all."""
    with serving(repository) as server, _asking(server) as stub:
        call = stub.Infer.future(_turns(_ENDLESS))
        eventually(lambda: metric(server, "inferd_inflight_requests") == 1, "it has arrived")
        call.cancel()
        assert stub.Infer(_turns(1), timeout=PATIENCE_S).outputs


def test_a_run_that_takes_too_long_is_ended_for_callers_who_wait(repository):
    """They are told why, at once, and so is an operator."""
    with serving(repository, "--set", "runtime.max_run_ms=500") as server, _asking(server) as stub:
        began_at = time.monotonic()
        with pytest.raises(grpc.RpcError) as told:
            stub.Infer(_turns(_ENDLESS), timeout=PATIENCE_S)
        assert time.monotonic() - began_at < 0.5 + _SOON_S
        assert (told.value.code(), _reason(told.value)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "RUN_TOO_LONG")
        assert "0.5 s" in told.value.details()
        assert stub.Infer(_turns(1), timeout=PATIENCE_S).outputs
        assert metric(server, "inferd_runs_terminated_total", model="loop", reason="time_limit") == 1
        assert server.stop() == 0
        assert server.text.count("it took longer than 0.5 s (runtime.max_run_ms)") == 1


@pytest.mark.parametrize("limit", ["deadline", "cancel", "max_run_ms"])
def test_a_long_operator_costs_its_model_no_worker(repository, limit):
    """It cannot be ended, so its thread is left to itself and another one takes its place."""
    settings = ("--set", "runtime.max_run_ms=1000") if limit == "max_run_ms" else ()
    with serving(repository, *settings) as server:
        with _asking(server) as stub, _Others(server.grpc) as others:
            began_at = time.monotonic()
            call = stub.Infer.future(_long(_LONG), timeout=1 if limit == "deadline" else PATIENCE_S)
            if limit == "cancel":
                eventually(lambda: metric(server, "inferd_queue_rows", model="long") == 0, "it runs")
                call.cancel()
            else:
                assert call.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert time.monotonic() - began_at < 1 + _SOON_S
            assert stub.Infer(_long(10), timeout=PATIENCE_S).outputs
            assert time.monotonic() - began_at < 2 + 2 * _SOON_S
            assert metric(server, "inferd_stuck_threads", model="long") == 1
        assert others.longest_s < _SOON_S
        began_at = time.monotonic()
        assert server.stop() == 1, "a thread is still in the run"
        assert time.monotonic() - began_at < 25
        assert server.events("model long is unloaded while a thread hangs in a run")


@pytest.mark.parametrize("hang", ["time.sleep(1000)", "ctypes.PyDLL(None).sleep(1000)"], ids=["waits", "keeps Python"])
def test_the_grace_ends_the_server_although_the_poll_thread_hangs(repository, tmp_path, hang):
    """Be it that it waits for something, or that no thread of Python's can run any more."""
    script = tmp_path / "serve.py"
    script.write_text(_HANGS_WHEN_IT_DRAINS.format(hang=hang))
    arguments = ("serve", repository / "innocent", "--grpc-port", "0", "--http-port", "0")
    command = [sys.executable, script, *arguments, "--set", "server.drain_grace_s=0.5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            for line in process.stdout:
                if '"event":"ready"' in line:
                    break
            began_at = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 1
            assert time.monotonic() - began_at < 0.5 + 5
        finally:
            process.kill()


#: The services are told to drain on the poll thread.
_HANGS_WHEN_IT_DRAINS = """
import inferd.core_environment
import ctypes, time
from inferd.api.services import InferenceServices
from inferd.cli import main
InferenceServices.drain = lambda self: {hang}
main()
"""


@pytest.mark.parametrize("request_of_it", [_turns(_ENDLESS), _long(_LONG)], ids=["loop", "long operator"])
def test_the_grace_ends_the_server_whatever_runs(repository, request_of_it):
    """Somebody still waits; that is what the exit status says."""
    with serving(repository, "--set", "server.drain_grace_s=1") as server:
        with _asking(server) as stub:
            call = stub.Infer.future(request_of_it, timeout=PATIENCE_S)
            eventually(lambda: metric(server, "inferd_inflight_requests") == 1, "it has arrived")
            began_at = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert call.exception() is not None
        assert server.wait() == 1, server.text
        assert time.monotonic() - began_at < 1 + 5
