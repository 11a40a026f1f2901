"""Request ids and timings through a real server: in trailers and in the log."""

import grpc
import numpy as np
import pytest

from inferd import demo
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd._generated.inferd.v1 import inference_pb2_grpc
from tests import onnx_models
from tests.patience import PATIENCE_S
from tests.server import serving

TIMEOUT_S = PATIENCE_S
STAGES = ["decode", "queue", "stack", "run", "encode", "total"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The demo model and one that fails when it runs."""
    repository = tmp_path_factory.mktemp("models")
    onnx_models.save(onnx_models.lookup(), repository / "lookup" / "1" / "model.onnx")
    with serving(demo.repository(), repository) as running:
        yield running


@pytest.fixture(scope="module")
def stub(server):
    """A stub as users generate it."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield inference_pb2_grpc.InferenceServiceStub(channel)


def request(**fields):
    pixels = demo.samples().inputs[:1]
    tensor = pb.Tensor(name="X", shape=pixels.shape, raw=pixels.astype(np.float32).tobytes())
    return pb.InferRequest(**{"model": "digits", "inputs": [tensor], **fields})


def infer(stub, message, **metadata):
    """Return the status and the trailing metadata."""
    sent = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
    call = stub.Infer.future(message, timeout=TIMEOUT_S, metadata=sent)
    code = call.code()
    return code, {pair.key: pair.value for pair in call.trailing_metadata()}


def parsed(server_timing):
    entries = (entry.split(";dur=") for entry in server_timing.split(", "))
    return {name: float(duration_ms) for name, duration_ms in entries}


def test_request_id_in_metadata(server, stub):
    """Returned, and logged beside that of the message."""
    code, trailing = infer(stub, request(request_id="own-1"), x_request_id="sent-1")
    assert code is grpc.StatusCode.OK
    assert trailing == {"x-request-id": "sent-1"}
    assert server.wait_event("access", request_id="sent-1")["id"] == "own-1"


def test_no_trailers_unless_requested(stub):
    """No trailing metadata at all."""
    assert infer(stub, request()) == (grpc.StatusCode.OK, {})


def test_rejected_request_is_logged_with_the_returned_id(server, stub):
    """Whether the caller or the server chose it."""
    code, trailing = infer(stub, request(model="nobody"))
    assert code is grpc.StatusCode.NOT_FOUND
    assert server.wait_event("access", request_id=trailing["x-request-id"])["status"] == "NOT_FOUND"


def test_failed_run_is_logged_with_the_returned_id(server, stub):
    """In the line with the cause, besides the access line."""
    index = np.array([99], np.int64)
    tensor = pb.Tensor(name="index", shape=index.shape, raw=index.tobytes())
    metadata = {"x_request_id": "broken-1", "inferd_timing": "1"}
    code, trailing = infer(stub, pb.InferRequest(model="lookup", inputs=[tensor]), **metadata)
    assert (code, trailing["x-request-id"]) == (grpc.StatusCode.INTERNAL, "broken-1")
    timing = parsed(trailing["inferd-timing"])
    assert list(timing) == [stage for stage in STAGES if stage != "encode"]
    assert 0 < timing["run"] < timing["total"]
    assert server.wait_event("a request to model lookup failed")["request_id"] == "broken-1"
    line = server.wait_event("access", request_id="broken-1")
    assert (line["status"], line["batch_rows"]) == ("INTERNAL", 1)
    assert (line["queue_ms"], line["run_ms"]) == (timing["queue"], timing["run"])


def test_timing(stub):
    """All stages, in sum no longer than the total."""
    code, trailing = infer(stub, request(), inferd_timing="1")
    assert code is grpc.StatusCode.OK
    timing = parsed(trailing["inferd-timing"])
    assert list(timing) == STAGES
    total = timing.pop("total")
    assert 0 < sum(timing.values()) <= total < TIMEOUT_S * 1000


def test_timing_of_stream(stub):
    """Sums over its requests."""
    metadata = (("inferd-timing", "1"), ("x-request-id", "stream-1"))
    messages = [pb.StreamInferRequest(requests=[request(request_id=str(number))]) for number in range(3)]
    call = stub.StreamInfer(iter(messages), timeout=TIMEOUT_S, metadata=metadata)
    results = [result for message in call for result in message.results]
    trailing = {pair.key: pair.value for pair in call.trailing_metadata()}
    timing = parsed(trailing["inferd-timing"])
    assert trailing["x-request-id"] == "stream-1"
    assert list(timing) == STAGES
    run_ms = sum(result.response.timing.run_us for result in results) / 1000
    assert timing["run"] == pytest.approx(run_ms, abs=0.001 * len(results) + 0.002)
