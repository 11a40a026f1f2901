"""Which calls are traced, and what is taken down of them."""

import random
from dataclasses import replace

import grpc
import pytest

from inferd.batching.request import BatchTiming
from inferd.observability import timing
from inferd.observability.calls import StreamResult, result_listeners
from inferd.observability.timing import Stages
from inferd.observability.tracing.interceptor import SpanQueue, TracingInterceptor
from inferd.observability.tracing.plan import Sampling
from tests.unit.call_context import call_context
from tests.unit.observability.fakes import INFER, FakeCall
from tests.unit.observability.tracing.test_trace_context import SPAN, TRACE

OK = grpc.StatusCode.OK


class Drawn(random.Random):
    """Draws what the test says, and otherwise at random."""

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
def test_a_share_of_calls_without_a_trace(draw, ratio, expected):
    """Each begins a trace of its own."""
    call = FakeCall(metadata=(("user-agent", "x"),))
    records = traced(call, draw=draw, ratio=ratio)
    assert len(records) == expected
    assert len(call.annotations.get("trace_id", "")) == 32 * expected
    assert all(record.parent_id == "" for record in records)


@pytest.mark.parametrize(("flags", "ratio", "expected"), [("01", 0.0, 1), ("00", 1.0, 0)])
def test_the_caller_decides_for_its_own_traces(flags, ratio, expected):
    """Whatever the share."""
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
def test_a_share_of_all_traces_whatever_the_caller_decides(flags, trace, ratio, expected):
    """By the trace id, so that others who take the same share trace the same calls; under the caller's span."""
    call = FakeCall(metadata=(("traceparent", f"00-{trace}-{SPAN}-{flags}"),))
    records = traced(call, ratio=ratio, by_parent=False)
    assert [(record.trace_id, record.parent_id) for record in records] == [(trace, SPAN)] * expected


def test_traces_of_callers_may_count_for_nothing():
    """Where the environment has it that they are not read."""
    call = FakeCall(metadata=(("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "a=b")))
    assert traced(call, ratio=0.0, reads_parent=False) == []
    (record,) = traced(call, draw=0.0, reads_parent=False)
    assert (record.parent_id, record.tracestate) == ("", "")
    assert record.trace_id != TRACE


def test_a_call_continues_the_trace_of_its_caller():
    """Under a span of its own, which is in the log and in the metrics too."""
    state = (("tracestate", "a=b"), ("tracestate", "c=d"))
    call = FakeCall(metadata=(*state, ("traceparent", f"00-{TRACE}-{SPAN}-01")))
    (record,) = traced(call)
    assert (record.trace_id, record.parent_id, record.tracestate) == (TRACE, SPAN, "a=b,c=d")
    assert (call.annotations["trace_id"], call.annotations["span_id"]) == (TRACE, record.span_id)
    assert len(record.span_id) == 16
    assert record.span_id != SPAN


def test_strangers_cannot_fill_the_queue():
    """What is open to everyone is never traced, and who is refused does not decide; a share of those is kept."""
    wanted = (("traceparent", f"00-{TRACE}-{SPAN}-01"),)
    assert traced(FakeCall(metadata=wanted), untraced=[INFER]) == []
    assert traced(FakeCall(metadata=wanted), code=grpc.StatusCode.UNAUTHENTICATED) == []
    assert len(traced(FakeCall(metadata=wanted), code=grpc.StatusCode.PERMISSION_DENIED)) == 1
    assert len(traced(FakeCall(), ratio=1.0, code=grpc.StatusCode.UNAUTHENTICATED)) == 1


def test_a_broken_traceparent_begins_a_trace():
    """And its state belongs to nothing."""
    call = FakeCall(metadata=(("tracestate", "a=b"), ("traceparent", "nonsense")))
    (record,) = traced(call, draw=0.0)
    assert (record.parent_id, record.tracestate) == ("", "")


def test_a_record_of_a_call():
    """Texts and numbers, cut to length."""
    call = FakeCall(context=call_context(model="m", version="1", rows=2, principal="token:a", permissions=object()))
    (record,) = traced(call, draw=0.0, code=grpc.StatusCode.INTERNAL, details="x" * 10_000)
    assert (record.method, record.peer) == (INFER, "ipv4:127.0.0.1:40000")
    assert (record.started_at, record.ended_at) == (100.0, 100.5)
    assert (record.status, record.error) == ("INTERNAL", "x" * 256)
    request_id = call.context.request_id
    assert record.facts == {"model": "m", "version": "1", "rows": 2, "principal": "token:a", "request_id": request_id}
    assert record.stages is timing.of(call.annotations)


def test_requests_of_a_traced_stream_have_records_of_their_own():
    """Under that of the stream."""
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


def test_ids_of_requests_are_made_harmless():
    """Records wait by the thousand, and callers write the ids."""
    call, queue = FakeCall(), SpanQueue()
    TracingInterceptor(Sampling(ratio=1.0), queue).started(call)
    (listener,) = result_listeners(call)
    named = StreamResult(
        request_id="é" + "x" * 10_000, model="", version="", rows=0, status="OK", error="", stages=Stages()
    )
    listener(call, named)
    (record,) = queue.take(10)
    assert record.facts == {"request_id": "?" + "x" * 127}


def test_calls_that_are_not_traced_leave_nothing():
    """Neither here nor with the call."""
    call = FakeCall()
    assert traced(call) == []
    assert call.annotations == {}


def test_what_finds_no_room_is_counted():
    """And nobody waits for it."""
    queue = SpanQueue(max_queued=2)
    for _ in range(5):
        started(queue).over(OK)
    assert (len(queue), queue.dropped) == (2, 3)


def started(queue):
    call = FakeCall()
    TracingInterceptor(Sampling(ratio=1.0), queue).started(call)
    return call
