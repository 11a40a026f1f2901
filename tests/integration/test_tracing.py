"""Traces of a real server, as a real OTLP collector gets them."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from inferd import demo
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd._generated.inferd.v1 import inference_pb2_grpc
from tests.integration.test_call_trailers import request
from tests.otlp import Receiver, attributes
from tests.patience import PATIENCE_S
from tests.server import ServerProcess, serving

TIMEOUT_S = PATIENCE_S
METHOD = "inferd.v1.InferenceService/Infer"
STREAM = "inferd.v1.InferenceService/StreamInfer"
#: Concurrent calls.
MANY = range(100, 132)


def traceparent(number, sampled=True):
    return ("traceparent", f"00-{number:032x}-{number:016x}-0{int(sampled)}")


@pytest.fixture(scope="module")
def receiver():
    """Accepts all spans."""
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(receiver):
    """Traces only calls whose callers do, and delays batches so that calls share them."""
    settings = [f"tracing.endpoint={receiver.endpoint}", "tracing.sampling_ratio=0"]
    with serving(demo.repository(), *(f"--set={setting}" for setting in settings)) as running:
        yield running


@pytest.fixture(scope="module")
def stub(server):
    """A stub as users generate it."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield inference_pb2_grpc.InferenceServiceStub(channel)


def of_trace(receiver, number):
    """Return the spans of a trace, by name."""
    return {span.name: span for span in receiver.spans if int.from_bytes(span.trace_id) == number}


def within(inner, outer):
    return (
        outer.start_time_unix_nano <= inner.start_time_unix_nano <= inner.end_time_unix_nano <= outer.end_time_unix_nano
    )


def linked(span):
    return {(link.trace_id, link.span_id) for link in span.links}


def wait_for_batches(receiver, spans):
    """Wait for the batches that these spans link to, and return them."""
    wanted = {each for span in spans for each in linked(span)}
    while len(found := [span for span in receiver.spans if (span.trace_id, span.span_id) in wanted]) < len(wanted):
        receiver.posted.get(timeout=TIMEOUT_S)
    return found


@pytest.fixture(scope="module")
def called(receiver, stub):
    """All calls of these tests, made at once because spans are sent once a second; numbers identify their traces."""
    metadata = (traceparent(1), ("tracestate", "a=b"), ("x-request-id", "traced-1"))
    stub.Infer(request(), timeout=TIMEOUT_S, metadata=metadata)
    stub.Infer(request(), timeout=TIMEOUT_S, metadata=(traceparent(2, sampled=False),))
    stub.Infer(request(), timeout=TIMEOUT_S)
    with pytest.raises(grpc.RpcError):
        stub.Infer(request(model="nobody"), timeout=TIMEOUT_S, metadata=(traceparent(4),))
    message = pb.StreamInferRequest(requests=[request(request_id=str(number)) for number in range(3)])
    list(stub.StreamInfer(iter([message]), timeout=TIMEOUT_S, metadata=(traceparent(5),)))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: stub.Infer(request(), metadata=(traceparent(number),)), MANY))
    receiver.wait_for(METHOD, 2 + len(MANY))
    receiver.wait_for(STREAM)
    receiver.wait_for("request", 3)


@pytest.mark.usefixtures("called")
def test_request(server, receiver):
    """A server span below the caller's, with its stages and its batch."""
    spans = of_trace(receiver, 1)
    assert set(spans) == {METHOD}
    call = spans[METHOD]
    assert (int.from_bytes(call.parent_span_id), call.trace_state) == (1, "a=b")
    facts = attributes(call)
    assert (facts["inferd.model"], facts["inferd.rows"], facts["inferd.request_id"]) == ("digits", 1, "traced-1")
    assert [event.name for event in call.events] == ["decode", "queue", "stack", "run", "encode"]
    begins = [event.time_unix_nano for event in call.events]
    assert begins == sorted(begins)
    assert call.start_time_unix_nano <= begins[0] <= begins[-1] <= call.end_time_unix_nano
    (batch,) = wait_for_batches(receiver, [call])
    assert linked(batch) == {(call.trace_id, call.span_id)}
    assert linked(call) == {(batch.trace_id, batch.span_id)}
    assert within(batch, call)
    line = server.wait_event("access", request_id="traced-1")
    assert (line["trace_id"], line["span_id"]) == (call.trace_id.hex(), call.span_id.hex())


@pytest.mark.usefixtures("called")
def test_untraced_callers(receiver):
    """Neither unsampled parents nor, with a ratio of 0, calls without a parent."""
    traced = [int.from_bytes(span.trace_id) for span in receiver.spans if span.name == METHOD]
    assert sorted(traced) == [1, 4, *MANY]


@pytest.mark.usefixtures("called")
def test_error(receiver):
    """It has a span, too."""
    assert attributes(of_trace(receiver, 4)[METHOD])["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.usefixtures("called")
def test_stream(receiver):
    """Its requests are child spans, linked to their batches."""
    requests = receiver.wait_for("request", 3)
    stream = of_trace(receiver, 5)[STREAM]
    assert {each.parent_span_id for each in requests} == {stream.span_id}
    assert sorted(attributes(each)["inferd.request_id"] for each in requests) == ["0", "1", "2"]
    assert all(within(each, stream) for each in requests)
    batches = wait_for_batches(receiver, requests)
    assert {each for batch in batches for each in linked(batch)} == {(each.trace_id, each.span_id) for each in requests}


@pytest.mark.usefixtures("called")
def test_requests_in_one_batch(receiver):
    """Links go both ways, whatever the batches."""
    requests = [span for span in receiver.spans if span.name == METHOD and int.from_bytes(span.trace_id) in MANY]
    batches = wait_for_batches(receiver, requests)
    there = {((batch.trace_id, batch.span_id), each) for batch in batches for each in linked(batch)}
    assert there == {(batch, (each.trace_id, each.span_id)) for each in requests for batch in linked(each)}
    assert len(there) == len(requests)


def test_unreadable_headers_file(tmp_path):
    """The server does not start, and names the reason."""
    settings = ["tracing.endpoint=http://127.0.0.1:9", f"tracing.headers_file={tmp_path / 'missing.yaml'}"]
    server = ServerProcess(demo.repository(), *(f"--set={setting}" for setting in settings))
    assert server.wait() != 0
    assert "missing.yaml" in server.text
