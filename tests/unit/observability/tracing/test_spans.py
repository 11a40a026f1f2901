"""Spans built from records."""

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status
from opentelemetry.sdk.resources import Resource

from inferd.batching.request import BatchTiming
from inferd.call_context import Generated
from inferd.observability import timing
from inferd.observability.timing import Stages
from inferd.observability.tracing.interceptor import SpanRecord
from inferd.observability.tracing.spans import SpanBuilder
from tests.otlp import attributes, spans_of
from tests.unit.observability.tracing.test_trace_context import SPAN, TRACE

LOCAL_PARENT = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
REMOTE_PARENT = LOCAL_PARENT | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
EPOCH_AHEAD_S = 1_700_000_000
BATCH = BatchTiming(started_at=100.25, stack_s=0.125, run_s=0.0625, rows=12)
STAGES = Stages(
    decoding_at=100.0, decoded_at=100.125, queue_s=0.0625, batch=BATCH, encoding_at=100.5, encoded_at=100.53125
)


def record(**fields):
    return SpanRecord(
        **{
            "trace_id": TRACE,
            "span_id": "00000000000000aa",
            "parent_id": SPAN,
            "tracestate": "a=b",
            "method": "/inferd.v1.InferenceService/Infer",
            "started_at": 100.0,
            "ended_at": 101.0,
            "status": "OK",
            "error": "",
            "peer": "ipv4:10.0.0.7:53124",
            "facts": {"model": "digits", "version": "1", "rows": 2},
            "stages": Stages(),
            **fields,
        }
    )


def builder():
    resource = Resource({"service.name": "inferd"})
    return SpanBuilder(resource, "1.2", clock=lambda: 100.0, epoch_s=lambda: 100.0 + EPOCH_AHEAD_S)


def made(builder, *records):
    """The next spans, as they are sent."""
    return list(spans_of(encode_spans(builder.build(records))))


def events(span):
    """When each stage began, and how long it took in milliseconds."""
    return {
        event.name: ((event.time_unix_nano - EPOCH_AHEAD_S * 10**9) / 1e9, attributes(event)["duration_ms"])
        for event in span.events
    }


def times(span):
    return (
        (span.start_time_unix_nano - EPOCH_AHEAD_S * 10**9) / 1e9,
        (span.end_time_unix_nano - EPOCH_AHEAD_S * 10**9) / 1e9,
    )


def test_call():
    """Names, times and attributes by OpenTelemetry's conventions."""
    request = encode_spans(builder().build([record()]))
    (of,) = request.resource_spans
    assert attributes(of.resource) == {"service.name": "inferd"}
    assert (of.scope_spans[0].scope.name, of.scope_spans[0].scope.version) == ("inferd", "1.2")
    (span,) = spans_of(request)
    assert span.name == "inferd.v1.InferenceService/Infer"
    assert span.kind == Span.SPAN_KIND_SERVER
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (TRACE, "00000000000000aa", SPAN)
    assert (span.trace_state, span.flags) == ("a=b", REMOTE_PARENT)
    assert times(span) == (100.0, 101.0)
    assert attributes(span) == {
        "rpc.system": "grpc",
        "rpc.service": "inferd.v1.InferenceService",
        "rpc.method": "Infer",
        "rpc.grpc.status_code": 0,
        "network.peer.address": "10.0.0.7",
        "network.peer.port": 53124,
        "inferd.model": "digits",
        "inferd.version": "1",
        "inferd.rows": 2,
    }
    assert span.status.code == Status.STATUS_CODE_UNSET


@pytest.mark.parametrize(
    ("status", "number", "is_error"),
    [("INTERNAL", 13, True), ("UNAVAILABLE", 14, True), ("RESOURCE_EXHAUSTED", 8, False), ("NOT_FOUND", 5, False)],
)
def test_error_status_for_server_errors_only(status, number, is_error):
    """Callers' mistakes must not raise the error rate of a dashboard."""
    (span,) = made(builder(), record(status=status, error="why"))
    assert attributes(span)["rpc.grpc.status_code"] == number
    assert (span.status.code == Status.STATUS_CODE_ERROR) is is_error
    assert span.status.message == ("why" if is_error else "")


@pytest.mark.parametrize(
    ("peer", "address"), [("ipv6:[::1]:4000", "::1"), ("unix:/run/x", None), ("unknown", None), ("", None)]
)
def test_peer_addresses(peer, address):
    """None without an IP address."""
    (span,) = made(builder(), record(peer=peer))
    assert attributes(span).get("network.peer.address") == address


def test_stages_are_events():
    """With start and duration."""
    (span,) = made(builder(), record(stages=STAGES))
    assert events(span) == {
        "decode": (100.0, 125.0),
        "queue": (100.1875, 62.5),
        "stack": (100.25, 125.0),
        "run": (100.375, 62.5),
        "encode": (100.5, 31.25),
    }
    assert [event.name for event in span.events] == list(timing.STAGES)


def test_wait_for_a_model_on_demand():
    """Ends when decoding begins."""
    stages = Stages(load_s=0.5, decoding_at=100.75, decoded_at=101.0)
    (span,) = made(builder(), record(stages=stages))
    assert events(span) == {"load": (100.25, 500.0), "decode": (100.75, 250.0)}


def test_incomplete_request():
    """Has its completed stages."""
    (span,) = made(builder(), record(stages=Stages(decoding_at=100.0, decoded_at=100.5, encoding_at=100.75)))
    assert events(span) == {"decode": (100.0, 500.0)}


def test_batch_and_requests_are_linked():
    """The batch follows one build later, with links to all requests."""
    spans = builder()
    (first,) = made(spans, record(stages=STAGES))
    second, batch = made(spans, record(span_id="00000000000000bb", stages=STAGES))
    assert spans.build([]) == []
    assert [(link.trace_id, link.span_id) for link in batch.links] == [
        (each.trace_id, each.span_id) for each in (first, second)
    ]
    assert batch.trace_id.hex() != TRACE
    for each in (first, second):
        assert [(link.trace_id, link.span_id) for link in each.links] == [(batch.trace_id, batch.span_id)]
        assert attributes(each)["inferd.batch.rows"] == 12
    assert (batch.name, batch.kind, batch.parent_span_id) == ("batch", Span.SPAN_KIND_INTERNAL, b"")
    assert times(batch) == (100.25, 100.4375)
    assert events(batch) == {"stack": (100.25, 125.0), "run": (100.375, 62.5)}
    assert attributes(batch) == {"inferd.model": "digits", "inferd.version": "1", "inferd.batch.rows": 12}


def test_different_batches_have_different_spans():
    """Even with equal timings."""
    other = BatchTiming(started_at=100.25, stack_s=0.125, run_s=0.0625, rows=12)
    spans = builder()
    made(spans, record(stages=STAGES), record(stages=Stages(queue_s=0.0, batch=other)))
    assert [len(batch.links) for batch in made(spans)] == [1, 1]


def test_request_of_stream():
    """A child of the call, of internal kind."""
    (span,) = made(builder(), record(method="", peer=""))
    assert (span.name, span.kind, span.flags) == ("request", Span.SPAN_KIND_INTERNAL, LOCAL_PARENT)
    assert "rpc.system" not in attributes(span)


def test_names_that_are_not_utf8():
    """A model is named after its directory, and errors name it."""
    (span,) = made(builder(), record(facts={"model": "m\udc80"}, status="INTERNAL", error="m\udc80 failed"))
    assert attributes(span)["inferd.model"] == "m\\udc80"
    assert span.status.message == "m\\udc80 failed"


def test_root_span():
    """Without a parent."""
    (span,) = made(builder(), record(parent_id="", tracestate=""))
    assert (span.parent_span_id, span.trace_state) == (b"", "")


def test_generation():
    """Tokens and the reason of the end by OpenTelemetry's conventions for generative models, and the first token."""
    generated = Generated(
        operation="chat", prompt_tokens=12, tokens=5, first_token_s=0.25, finish_reasons={"stop": None, "length": None}
    )
    (span,) = made(builder(), record(generated=generated))
    found = attributes(span)
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.request.model"] == "digits"
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (12, 5)
    (reasons,) = [each.value.array_value for each in span.attributes if each.key == "gen_ai.response.finish_reasons"]
    assert [each.string_value for each in reasons.values] == ["stop", "length"]
    assert events(span) == {"first_token": (100.0, 250.0)}


def test_other_models_have_no_attributes_of_generation():
    """They would be counted as generative ones."""
    (span,) = made(builder(), record())
    assert not [name for name in attributes(span) if name.startswith("gen_ai")]
