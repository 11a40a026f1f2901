"""Sampling of calls, and their records."""

import random
from dataclasses import replace

import grpc
import pytest

from inferd.batching.request import BatchTiming
from inferd.call_context import Generated, generated_by
from inferd.observability import timing
from inferd.observability.stream_results import StreamResult, result_listeners
from inferd.observability.timing import Stages
from inferd.observability.tracing.interceptor import SpanQueue, TracingInterceptor
from inferd.observability.tracing.plan import Sampling
from tests.unit.call_context import call_context
from tests.unit.observability.fakes import INFER, FakeCall
from tests.unit.observability.tracing.test_trace_context import SPAN, TRACE

OK = grpc.StatusCode.OK


class Drawn(random.Random):
    """Draws the given number, else at random."""

    def __init__(self, draw):
        super().__init__(1)
        self._draw = draw

    def random(self):
        return self._draw


def traced(call, *, ratio=0.01, draw=0.5, code=OK, details="", queue=None, untraced=(), **sampling):
    queue = SpanQueue() if queue is None else queue
    sampling = Sampling(ratio=ratio, **sampling)
    interceptor = TracingInterceptor(sampling, queue, untraced=untraced, clock=lambda: 100.5, source=Drawn(draw))
    assert interceptor.started(call) is None
    call.over(code, details)
    return queue.take(100)


@pytest.mark.parametrize(
    ("draw", "ratio", "expected"), [(0.009, 0.01, 1), (0.01, 0.01, 0), (0.0, 0.0, 0), (0.99, 1, 1)]
)
def test_samples_ratio_of_calls_without_parent(draw, ratio, expected):
    """Each starts a trace."""
    call = FakeCall(metadata=(("user-agent", "x"),))
    records = traced(call, draw=draw, ratio=ratio)
    assert len(records) == expected
    assert len(call.annotations.get("trace_id", "")) == 32 * expected
    assert all(record.parent_id == "" for record in records)


@pytest.mark.parametrize(("flags", "ratio", "expected"), [("01", 0.0, 1), ("00", 1.0, 0)])
def test_follows_the_decision_of_the_parent(flags, ratio, expected):
    """Whatever the ratio."""
    call = FakeCall(metadata=(("traceparent", f"00-{TRACE}-{SPAN}-{flags}"),))
    assert len(traced(call, ratio=ratio)) == expected


@pytest.mark.parametrize("flags", ["00", "01"])
@pytest.mark.parametrize(
    ("trace", "ratio", "expected"),
    [
        ("0" * 31 + "1", 0.0, 0),
        ("f" * 32, 1.0, 1),
        ("f" * 16 + "4" + "0" * 15, 0.25, 0),
        ("f" * 16 + "3" + "f" * 15, 0.25, 1),
    ],
)
def test_samples_ratio_by_trace_id(flags, trace, ratio, expected):
    """Ratio samplers elsewhere choose the same traces; the span has its parent."""
    call = FakeCall(metadata=(("traceparent", f"00-{trace}-{SPAN}-{flags}"),))
    records = traced(call, ratio=ratio, by_parent=False)
    assert [(record.trace_id, record.parent_id) for record in records] == [(trace, SPAN)] * expected


def test_ignores_parent_if_configured():
    """By the propagators of the environment."""
    call = FakeCall(metadata=(("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "a=b")))
    assert traced(call, ratio=0.0, reads_parent=False) == []
    (record,) = traced(call, draw=0.0, reads_parent=False)
    assert (record.parent_id, record.tracestate) == ("", "")
    assert record.trace_id != TRACE


def test_continues_the_trace_of_the_caller():
    """With a span of its own, whose id is in the log and in exemplars."""
    state = (("tracestate", "a=b"), ("tracestate", "c=d"))
    call = FakeCall(metadata=(*state, ("traceparent", f"00-{TRACE}-{SPAN}-01")))
    (record,) = traced(call)
    assert (record.trace_id, record.parent_id, record.tracestate) == (TRACE, SPAN, "a=b,c=d")
    assert (call.annotations["trace_id"], call.annotations["span_id"]) == (TRACE, record.span_id)
    assert len(record.span_id) == 16
    assert record.span_id != SPAN


def test_unauthenticated_callers_cannot_fill_the_queue():
    """Public methods are never traced, and rejected callers cannot request a trace."""
    wanted = (("traceparent", f"00-{TRACE}-{SPAN}-01"),)
    assert traced(FakeCall(metadata=wanted), untraced=[INFER]) == []
    assert traced(FakeCall(metadata=wanted), code=grpc.StatusCode.UNAUTHENTICATED) == []
    assert len(traced(FakeCall(metadata=wanted), code=grpc.StatusCode.PERMISSION_DENIED)) == 1
    assert len(traced(FakeCall(), ratio=1.0, code=grpc.StatusCode.UNAUTHENTICATED)) == 1


def test_invalid_traceparent_starts_a_trace():
    """Its tracestate is ignored."""
    call = FakeCall(metadata=(("tracestate", "a=b"), ("traceparent", "nonsense")))
    (record,) = traced(call, draw=0.0)
    assert (record.parent_id, record.tracestate) == ("", "")


def test_record_of_call():
    """Texts and numbers, truncated."""
    call = FakeCall(context=call_context(model="m", version="1", rows=2, principal="token:a", permissions=object()))
    (record,) = traced(call, draw=0.0, code=grpc.StatusCode.INTERNAL, details="x" * 10_000)
    assert (record.method, record.peer) == (INFER, "ipv4:127.0.0.1:40000")
    assert (record.started_at, record.ended_at) == (100.0, 100.5)
    assert (record.status, record.error) == ("INTERNAL", "x" * 256)
    request_id = call.context.request_id
    assert record.facts == {"model": "m", "version": "1", "rows": 2, "principal": "token:a", "request_id": request_id}
    assert record.stages is timing.of(call.annotations)


def test_requests_of_traced_stream_have_records():
    """With the stream as parent."""
    call, queue = FakeCall(), SpanQueue()
    interceptor = TracingInterceptor(Sampling(ratio=1.0), queue, clock=lambda: 100.5)
    interceptor.started(call)
    (listener,) = result_listeners(call)
    stages = Stages(decoding_at=100.1, queue_s=0.1, batch=BatchTiming(started_at=100.2, stack_s=0, run_s=0, rows=1))
    result = StreamResult(request_id="r7", model="m", version="1", rows=3, status="OK", error="", stages=stages)
    listener(call, result)
    listener(call, replace(result, model="", version="", rows=0, status="NOT_FOUND", error="no", stages=Stages()))
    call.over(OK)
    request, unknown, stream = queue.take(10)
    assert {request.trace_id, unknown.trace_id} == {stream.trace_id}
    assert {request.parent_id, unknown.parent_id} == {stream.span_id}
    assert len({request.span_id, unknown.span_id, stream.span_id}) == 3
    assert (request.method, request.started_at, request.ended_at) == ("", 100.1, 100.5)
    assert request.facts == {"model": "m", "version": "1", "rows": 3, "request_id": "r7"}
    assert (unknown.started_at, unknown.status, unknown.error, unknown.facts) == (
        100.5,
        "NOT_FOUND",
        "no",
        {"request_id": "r7"},
    )


def test_sanitizes_request_ids():
    """Callers choose them, and thousands of records are queued."""
    call, queue = FakeCall(), SpanQueue()
    TracingInterceptor(Sampling(ratio=1.0), queue).started(call)
    (listener,) = result_listeners(call)
    named = StreamResult(
        request_id="é" + "x" * 10_000, model="", version="", rows=0, status="OK", error="", stages=Stages()
    )
    listener(call, named)
    (record,) = queue.take(10)
    assert record.facts == {"request_id": "?" + "x" * 127}


def test_untraced_call_has_no_annotation():
    """And no record."""
    call = FakeCall()
    assert traced(call) == []
    assert call.annotations == {}


def test_full_queue_drops_and_counts():
    """Without blocking."""
    queue = SpanQueue(max_queued=2)
    for _ in range(5):
        started(queue).over(OK)
    assert (len(queue), queue.dropped) == (2, 3)


def started(queue):
    call = FakeCall()
    TracingInterceptor(Sampling(ratio=1.0), queue).started(call)
    return call


def test_generation():
    """Of a call, and of each request of a stream."""
    call = FakeCall(metadata=(("traceparent", f"00-{TRACE}-{SPAN}-01"),))
    queue = SpanQueue()
    TracingInterceptor(Sampling(ratio=1.0), queue, clock=lambda: 100.5).started(call)
    total = generated_by(call.annotations)
    of_request = Generated(prompt_tokens=3)
    result = StreamResult(
        request_id="r", model="lm", version="1", rows=1, status="OK", error="", stages=Stages(), generated=of_request
    )
    for listener in result_listeners(call):
        listener(call, result)
    call.over(OK, "")
    assert [record.generated for record in queue.take(2)] == [of_request, total]
