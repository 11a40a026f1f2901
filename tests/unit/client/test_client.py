"""The blocking client over a real socket."""

import threading

import grpc
import numpy as np
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import (
    Cancelled,
    Client,
    DeadlineExceeded,
    InvalidInput,
    ModelState,
    NotFound,
    PredictedRun,
    RunCost,
    Unavailable,
    Unimplemented,
)
from tests.patience import PATIENCE_S
from tests.unit.client.fake_service import BROKEN, DIGITS, FakeService, refuse, serving


def test_infer_returns_outputs(client):
    """With the model, version and timing of the answer."""
    sent = {"X": np.arange(6, dtype=np.float32).reshape(2, 3), "name": ["a", "b"]}
    result = client.infer("digits", sent, request_id="r1")
    np.testing.assert_array_equal(result["X"], sent["X"])
    assert result.outputs["name"].tolist() == [b"a", b"b"]
    assert (result.model, result.version, result.request_id) == ("digits", "1", "r1")
    assert (result.timing.queue_s, result.timing.run_s, result.timing.batch_rows) == (0.0015, 0.00025, 8)


def test_sends_every_parameter(client, service):
    """Version, outputs, priority and request id; the timeout is the call's deadline and not a field."""
    remaining = []

    def answer(request, context):
        remaining.append(context.time_remaining())
        return pb.InferResponse()

    service.on_infer = answer
    client.infer("m", {"x": 1}, outputs=["b", "a"], version="2", priority=3, timeout_s=5, request_id="r")
    (request,) = service.requests
    assert (request.model, request.version, list(request.outputs)) == ("m", "2", ["b", "a"])
    assert (request.priority, request.request_id, request.HasField("timeout")) == (3, "r", False)
    assert 3 < remaining[0] <= 5.5


def test_receives_large_messages(client):
    """Above gRPC's default limit of 4 MiB."""
    big = np.arange(2_000_000, dtype=np.float32)
    np.testing.assert_array_equal(client.infer("m", {"x": big})["x"], big)


def test_threads_share_client(client):
    """Concurrent calls each get their own answer."""
    results: dict[int, int] = {}

    def call(number: int) -> None:
        results[number] = int(client.infer("m", {"x": number})["x"])

    threads = [threading.Thread(target=call, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: n for n in range(16)}


def test_errors_are_exceptions_with_a_short_trace(client, service):
    """The class follows the status, and gRPC's error is the context, which tracebacks omit."""
    service.on_infer = lambda _, context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, 'input "X": expected FP32')
    with pytest.raises(InvalidInput, match='input "X": expected FP32') as caught:
        client.infer("m", {})
    assert isinstance(caught.value.__context__, grpc.RpcError)
    assert caught.value.__suppress_context__


def test_timeouts_end_calls(client, service):
    """At the call's own timeout."""
    gone = threading.Event()

    def hang(request, context):
        context.add_callback(gone.set)
        gone.wait(PATIENCE_S)
        return pb.InferResponse()

    service.on_infer = hang
    with pytest.raises(DeadlineExceeded):
        client.infer("m", {}, timeout_s=0.05)
    assert gone.wait(PATIENCE_S)


def test_default_timeout_is_clients(server, service):
    """For calls without their own."""
    remaining = []
    service.on_infer = lambda _, context: remaining.append(context.time_remaining()) or pb.InferResponse()
    with Client(server.address, timeout_s=7) as client:
        client.infer("m", {})
    with Client(server.address, timeout_s=None) as client:
        client.infer("m", {})
    # gRPC rounds deadlines up on the wire.
    assert 5 < remaining[0] <= 7.5
    assert remaining[1] is None or remaining[1] > 10**6


def test_models_are_described():
    """Every field of a model version, also of a failed one."""
    with serving(FakeService(DIGITS, BROKEN)) as server, Client(server.address) as client:
        digits, broken = client.models()
        assert client.model("digits") == digits
    assert (digits.name, digits.version, digits.state, digits.reason) == ("digits", "1", ModelState.READY, "")
    (x,) = digits.inputs
    assert (x.name, x.datatype, x.dtype, x.shape, x.batch_axis) == ("X", "FP32", np.float32, ("batch", 64), 0)
    assert digits.batching.max_wait_s == 0.0015
    assert (digits.batching.verdict, digits.batching.verdict_reason) == ("proven", "")
    assert (digits.batching.checks, digits.batching.mismatches) == (12, 0)
    assert digits.providers == ("CPUExecutionProvider",)
    sizes = (PredictedRun(1, 0.0031, 0.004), PredictedRun(64, 0.0123, 0.015))
    assert digits.run_cost == RunCost(sizes=sizes, error=0.08, runs=250)
    assert broken.run_cost is None
    assert (broken.state, broken.reason, broken.inputs) == (ModelState.FAILED, "not an ONNX file", ())


@pytest.mark.parametrize(
    ("number", "verdict"), [(0, ""), (1, "proven"), (2, "contradicted"), (3, "unproven"), (99, "")]
)
def test_verdicts_are_named(number, verdict):
    """No verdict and unknown ones are empty."""
    model = pb.Model(name="m", batching=pb.Batching(verdict=number, verdict_reason="why", mismatches=3))
    with serving(FakeService(model)) as server, Client(server.address) as client:
        batching = client.model("m").batching
    assert (batching.verdict, batching.verdict_reason, batching.mismatches) == (verdict, "why", 3)


def test_optional_inputs():
    """A server without the field reports none."""
    scale = pb.TensorInfo(name="scale", datatype=pb.DATA_TYPE_FP32, optional=True)
    model = pb.Model(name="m", inputs=[*DIGITS.inputs, scale])
    with serving(FakeService(model)) as server, Client(server.address) as client:
        assert [spec.optional for spec in client.model("m").inputs] == [False, True]


def test_unknown_models_are_not_found(client):
    """They raise NotFound."""
    with pytest.raises(NotFound, match='model "nope" is not known'):
        client.model("nope")


def test_states_of_newer_servers_are_unspecified():
    """Unknown states do not prevent listing models."""
    with serving(FakeService(pb.Model(name="m", state=42))) as server, Client(server.address) as client:
        assert client.models()[0].state is ModelState.UNSPECIFIED


def test_readiness_follows_health_and_state():
    """The server is ready by its health, a model by its state; unknown models are not."""
    with serving(FakeService(DIGITS, BROKEN)) as server, Client(server.address) as client:
        assert client.is_ready()
        assert client.is_ready("digits")
        assert not client.is_ready("broken")
        assert not client.is_ready("nope")
        server.drain()
        assert not client.is_ready()


def test_unreachable_server_is_not_ready():
    """And a call is Unavailable."""
    with Client("127.0.0.1:1", retry=None) as client:
        assert not client.is_ready()
        with pytest.raises(Unavailable, match="failed to connect"):
            client.models()


def test_other_servers_are_unimplemented(server):
    """A server without the service differs from an unreachable one."""
    bare = grpc.server(None)
    port = bare.add_insecure_port("127.0.0.1:0")
    bare.start()
    try:
        with Client(f"127.0.0.1:{port}") as client, pytest.raises(Unimplemented):
            client.models()
    finally:
        bare.stop(None).wait()


def test_closing_cancels_open_calls(server, service):
    """They end with Cancelled."""
    begun, ended = threading.Event(), threading.Event()

    def hang(request, context):
        context.add_callback(ended.set)
        begun.set()
        ended.wait(PATIENCE_S)
        return pb.InferResponse()

    service.on_infer = hang
    client = Client(server.address)
    closer = threading.Thread(target=lambda: begun.wait(PATIENCE_S) and client.close())
    closer.start()
    with pytest.raises(Cancelled):
        client.infer("m", {})
    closer.join()
    assert ended.wait(PATIENCE_S)


def test_closed_client_raises(client):
    """It may be closed again but not used."""
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.models()
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.stream("m", [])


def test_sends_metadata_with_every_call(server, service):
    """The token and the caller's metadata, with our user agent, for unary calls and streams."""
    with Client(server.address, token="t", metadata={"x-team": "a"}) as client:
        client.infer("m", {})
        client.models()
        assert list(client.stream("m", [])) == []
    assert len(service.metadata) == 3
    for metadata in service.metadata:
        assert (metadata["authorization"], metadata["x-team"]) == ("Bearer t", "a")
        assert metadata["user-agent"].startswith("inferd-client/")


def test_rejections_have_retry_delay(server, service):
    """Without retries, they are raised at once."""
    service.on_infer = lambda _, context: refuse(context, pushback_ms="1500")
    with Client(server.address, retry=None) as client, pytest.raises(Exception, match="the queue is full") as caught:
        client.infer("m", {})
    assert caught.value.retry_after_s == 1.5
    assert len(service.requests) == 1
