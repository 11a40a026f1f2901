"""Spans, made of records."""

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from inferd.batching.request import BatchTiming
from inferd.observability.timing import Stages
from inferd.observability.tracing_records import SpanRecord
from inferd.observability.tracing_spans import SpanMaker
from tests.otlp import attributes, spans_of
from tests.unit.observability.test_tracing_context import SPAN, TRACE

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


def maker():
    return SpanMaker({"service.name": "inferd"}, "1.2", clock=lambda: 100.0, epoch_s=lambda: 100.0 + EPOCH_AHEAD_S)


def times(span):
    return (
        (span.start_time_unix_nano - EPOCH_AHEAD_S * 10**9) / 1e9,
        (span.end_time_unix_nano - EPOCH_AHEAD_S * 10**9) / 1e9,
    )


def test_a_call():
    """Named, timed and told of by OpenTelemetry's conventions."""
    request = maker().make([record()])
    (of,) = request.resource_spans
    assert attributes(of.resource) == {"service.name": "inferd"}
    assert (of.scope_spans[0].scope.name, of.scope_spans[0].scope.version) == ("inferd", "1.2")
    (span,) = spans_of(request)
    assert span.name == "inferd.v1.InferenceService/Infer"
    assert span.kind == Span.SPAN_KIND_SERVER
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (TRACE, "00000000000000aa", SPAN)
    assert (span.trace_state, span.flags) == ("a=b", 0x301)
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
def test_only_the_servers_fault_is_an_error(status, number, is_error):
    """What a caller gets wrong must not raise the error rate of a dashboard."""
    (span,) = spans_of(maker().make([record(status=status, error="why")]))
    assert attributes(span)["rpc.grpc.status_code"] == number
    assert (span.status.code == Status.STATUS_CODE_ERROR) is is_error
    assert span.status.message == ("why" if is_error else "")


@pytest.mark.parametrize(
    ("peer", "address"), [("ipv6:[::1]:4000", "::1"), ("unix:/run/x", None), ("unknown", None), ("", None)]
)
def test_peers_of_all_kinds(peer, address):
    """Those without an address have none."""
    (span,) = spans_of(maker().make([record(peer=peer)]))
    assert attributes(span).get("network.peer.address") == address


def test_stages_are_children():
    """At the times that they had, within their call."""
    span, *stages = spans_of(maker().make([record(stages=STAGES)]))
    assert {(stage.trace_id, stage.parent_span_id) for stage in stages} == {(span.trace_id, span.span_id)}
    assert {stage.name: times(stage) for stage in stages} == {
        "decode": (100.0, 100.125),
        "queue": (100.1875, 100.25),
        "stack": (100.25, 100.375),
        "run": (100.375, 100.4375),
        "encode": (100.5, 100.53125),
    }


def test_a_batch_is_linked_to_its_requests():
    """And they name it; it comes one time later, so that all of them are there."""
    spans = maker()
    first = list(spans_of(spans.make([record(stages=STAGES)])))
    second = list(spans_of(spans.make([record(span_id="00000000000000bb", stages=STAGES)])))
    assert spans.make([]) is None
    requests = [first[0], next(span for span in second if span.span_id.hex() == "00000000000000bb")]
    (batch,) = [span for span in second if span.name == "batch"]
    linked = [(link.trace_id, link.span_id) for link in batch.links]
    assert linked == [(each.trace_id, each.span_id) for each in requests]
    assert batch.trace_id.hex() != TRACE
    for each in requests:
        facts = attributes(each)
        assert facts["inferd.batch.trace_id"] == batch.trace_id.hex()
        assert facts["inferd.batch.span_id"] == batch.span_id.hex()
        assert facts["inferd.batch.rows"] == 12
    runs = [span for span in [*first, *second] if span.name == "run" and span.parent_span_id != batch.span_id]
    assert {link.span_id for run in runs for link in run.links} == {batch.span_id}
    assert times(batch) == (100.25, 100.4375)
    assert attributes(batch) == {"inferd.model": "digits", "inferd.version": "1", "inferd.batch.rows": 12}
    children = {span.name: times(span) for span in second if span.parent_span_id == batch.span_id}
    assert children == {"stack": (100.25, 100.375), "run": (100.375, 100.4375)}


def test_requests_of_different_batches():
    """Each has its own, though they look the same."""
    other = BatchTiming(started_at=100.25, stack_s=0.125, run_s=0.0625, rows=12)
    spans = maker()
    spans.make([record(stages=STAGES), record(stages=Stages(queue_s=0.0, batch=other))])
    batches = [span for span in spans_of(spans.make([])) if span.name == "batch"]
    assert [len(batch.links) for batch in batches] == [1, 1]


def test_a_request_of_a_stream():
    """Within its call, and itself no call."""
    (span,) = spans_of(maker().make([record(method="", peer="")]))
    assert (span.name, span.kind, span.flags) == ("request", Span.SPAN_KIND_INTERNAL, 0x101)
    assert "rpc.system" not in attributes(span)


def test_names_that_are_not_utf8():
    """A model is named after its directory."""
    (span,) = spans_of(maker().make([record(facts={"model": "m\udc80"})]))
    assert attributes(span)["inferd.model"] == "m\\udc80"
