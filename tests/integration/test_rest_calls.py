"""Inference over HTTP through a real server goes the way of gRPC: queue, deadlines, metrics, log, traces, drain."""

import http.client
import json
import signal
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from inferd import demo
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests import load
from tests.otlp import Receiver, attributes
from tests.patience import PATIENCE_S
from tests.server import ServerProcess, serving

DIGITS = "/v2/models/digits/infer"
BUSY = "/v2/models/busy/infer"
METHOD = "POST /v2/models/{model}/infer"


def digit() -> bytes:
    pixels = demo.samples().inputs[:1]
    tensor = {"name": "X", "shape": list(pixels.shape), "datatype": "FP32", "data": pixels.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def busy_row() -> bytes:
    row = load.array(1)
    tensor = {"name": "x", "shape": list(row.shape), "datatype": "FP32", "data": row.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def ask(server: ServerProcess, path: str, body: bytes, **headers: str) -> http.client.HTTPConnection:
    assert server.rest is not None
    connection = http.client.HTTPConnection(server.rest, timeout=PATIENCE_S)
    connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    return connection


def answer(connection: http.client.HTTPConnection) -> tuple[int, dict[str, str], Any]:
    response = connection.getresponse()
    found = response.status, {name.lower(): value for name, value in response.getheaders()}, json.loads(response.read())
    connection.close()
    return found


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The demo model, and one that a caller can occupy, with a queue for one row; traces as callers wish."""
    repository = tmp_path_factory.mktemp("models")
    queue = {"max_rows": 1, "max_delay_ms": 100_000}
    load.add_model(repository, "busy", load.busy_model(), {"batching": {"max_batch_size": 1}, "queue": queue})
    settings = (f"tracing.endpoint={receiver.endpoint}", "tracing.sampling_ratio=0", "api.overload_status=UNAVAILABLE")
    with serving(demo.repository(), repository, *(f"--set={each}" for each in settings)) as running:
        yield running


@pytest.fixture(scope="module")
def busy(server: ServerProcess) -> Iterator[load.BusyModel]:
    with load.connect(server.grpc) as channel:
        yield load.BusyModel(server, channel, "busy")


def test_answer_is_that_of_grpc(server: ServerProcess) -> None:
    """And the call is counted by its operation, logged with its id and status, and says its timing."""
    labels = {"model": "digits", "method": METHOD, "code": "OK"}
    before = load.metric(server, "inferd_requests_total", **labels)
    status, headers, content = answer(ask(server, DIGITS, digit(), X_Request_Id="one", Inferd_Timing="1"))
    assert status == 200
    pixels = demo.samples().inputs[:1].astype(np.float32)
    with grpc.insecure_channel(server.grpc) as channel:
        tensor = pb.Tensor(name="X", shape=pixels.shape, raw=pixels.tobytes())
        other = InferenceServiceStub(channel).Infer(pb.InferRequest(model="digits", inputs=[tensor]))
    expected = {each.name: each.raw for each in other.outputs if each.raw}
    probabilities = next(each for each in content["outputs"] if each["datatype"] == "FP32")
    assert np.array(probabilities["data"], np.float32).tobytes() == expected[probabilities["name"]]
    assert headers["x-request-id"] == "one"
    assert headers["inferd-timing"].startswith("decode;dur=")
    line = server.wait_event("access", request_id="one")
    assert (line["method"], line["status"], line["http_status"], line["rows"]) == (METHOD, "OK", 200, 1)
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert load.metric(server, "inferd_requests_total", **labels) == before + 1


def test_trace(server: ServerProcess, receiver: Receiver) -> None:
    """The span of a call over HTTP says so, and has the caller's as its parent."""
    headers = {"traceparent": f"00-{7:032x}-{8:016x}-01"}
    assert answer(ask(server, DIGITS, digit(), **headers))[0] == 200
    while not (spans := [each for each in receiver.spans if int.from_bytes(each.trace_id) == 7]):
        receiver.posted.get(timeout=PATIENCE_S)
    found = attributes(spans[0])
    assert (spans[0].name, int.from_bytes(spans[0].parent_span_id)) == (METHOD, 8)
    assert found["http.request.method"] == "POST"
    assert found["http.route"] == "/v2/models/{model}/infer"
    assert found["http.response.status_code"] == 200
    assert "rpc.system" not in found
    assert "inferd.http_status" not in found


def test_overload(server: ServerProcess, busy: load.BusyModel) -> None:
    """A full queue answers 503, by the setting, with when to come again; before the tensors are looked at."""
    with busy.occupied():
        waiting = ask(server, BUSY, busy_row(), X_Request_Id="waits")
        busy.wait_queued(1)
        status, headers, content = answer(ask(server, BUSY, busy_row()))
        assert (status, content["reason"]) == (503, "QUEUE_FULL")
        assert int(headers["retry-after"]) * 1000 >= content["retry_after_ms"] >= 1
        assert "grpc-status-details-bin" not in headers
        # Gone while it waits: its place is free at once.
        waiting.close()
        busy.wait_queued(0)
    line = server.wait_event("access", request_id="waits")
    assert (line["status"], line["http_status"]) == ("CANCELLED", 499)


def test_deadline(server: ServerProcess, busy: load.BusyModel) -> None:
    """In a header; what waits in the queue leaves it."""
    with busy.occupied():
        status, _, content = answer(ask(server, BUSY, busy_row(), X_Request_Timeout_Ms="30"))
        assert (status, content["error"] != "") == (504, True)
        busy.wait_queued(0)


def test_priorities(server: ServerProcess) -> None:
    """Parameters of the protocol are validated as over gRPC."""
    body = json.loads(digit()) | {"parameters": {"priority": 99}}
    status, _, content = answer(ask(server, DIGITS, json.dumps(body).encode()))
    assert (status, content["reason"]) == (400, "INVALID_INPUT")


def test_drain_loses_nothing() -> None:
    """Of callers that go on until they are told to close their connections."""
    with serving(demo.repository(), "--set=server.drain_delay_s=0") as server:
        lost: list[object] = []
        begun = threading.Barrier(5, timeout=PATIENCE_S)

        def call_http() -> None:
            assert server.rest is not None
            connection = http.client.HTTPConnection(server.rest, timeout=PATIENCE_S)
            for number in range(1_000_000):
                try:
                    connection.request("POST", DIGITS, digit())
                    response = connection.getresponse()
                    response.read()
                except (ConnectionError, http.client.HTTPException) as error:
                    lost.append(error)
                    break
                if response.status != 200:
                    lost.append(response.status)
                if number == 0:
                    begun.wait()
                if response.will_close:
                    break
            connection.close()

        callers = [threading.Thread(target=each) for each in [call_http] * 4]
        for caller in callers:
            caller.start()
        begun.wait()
        assert server.stop(signal.SIGTERM) == 0
        for caller in callers:
            caller.join(PATIENCE_S)
        assert lost == []
        assert server.events("stopped")[0]["in_time"] is True
