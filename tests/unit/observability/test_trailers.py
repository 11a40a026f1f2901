"""Trailing metadata of calls."""

from dataclasses import replace

import grpc
import pytest

from inferd.batching.request import BatchTiming
from inferd.observability import timing
from inferd.observability.stream_results import StreamResult, result_listeners
from inferd.observability.timing import Stages
from inferd.observability.trailers import TrailersInterceptor
from tests.unit.call_context import call_context
from tests.unit.observability.fakes import FakeCall

OK = grpc.StatusCode.OK
INTERNAL = grpc.StatusCode.INTERNAL
BATCH = BatchTiming(started_at=100.5, stack_s=0.0001, run_s=0.0034, rows=12)
RESULT = StreamResult(request_id="r", model="m", version="1", rows=1, status="OK", error="", stages=Stages())
ALL_STAGES = Stages(
    decoding_at=100.0, decoded_at=100.00005, queue_s=0.0012, batch=BATCH, encoding_at=100.6, encoded_at=100.60025
)


def run(call, code=OK, *, meanwhile=lambda: None, report_always=False):
    interceptor = TrailersInterceptor(lambda: b"\x01", report_always=report_always)
    assert interceptor.started(call) is None
    meanwhile()
    call.ended_at = 100.005
    interceptor.finished(call, code, "")
    return call.trailing


def test_no_trailers_unless_requested():
    """The call has no annotation either."""
    call = FakeCall(metadata=(("user-agent", "x"),))
    assert run(call) == []
    assert call.annotations == {}


def test_returns_request_id():
    """With any status."""
    for code in (OK, INTERNAL):
        call = FakeCall(metadata=(("x-request-id", "abc"),))
        assert run(call, code) == [("x-request-id", "abc")]
        assert call.context.request_id == "abc"


def test_error_always_has_request_id():
    """That of the message or a generated one, for users to quote."""
    assert run(FakeCall(context=call_context(request_id="mine")), INTERNAL) == [("x-request-id", "mine")]
    call = FakeCall()
    assert run(call, INTERNAL) == [("x-request-id", call.context.request_id)]


@pytest.mark.parametrize("sent", ["x" * 10_000, "a\x1b[31m\r\nb", "größe"])
def test_sanitizes_request_id(sent):
    """Before it is used anywhere."""
    call = FakeCall(metadata=(("x-request-id", sent),))
    ((_, returned),) = run(call)
    assert returned == call.context.request_id
    assert len(returned) <= 128
    assert returned.isascii()
    assert returned.isprintable()


def test_ignores_empty_request_id():
    """One is generated instead."""
    assert run(FakeCall(metadata=(("x-request-id", ""),))) == []


def test_timing_of_request():
    """In milliseconds, in the order of the stages."""
    call = FakeCall(metadata=(("inferd-timing", "1"),))

    def handle():
        stages = timing.of(call.annotations)
        for name in ("decoding_at", "decoded_at", "queue_s", "batch", "encoding_at", "encoded_at"):
            setattr(stages, name, getattr(ALL_STAGES, name))

    assert run(call, meanwhile=handle) == [
        (
            "inferd-timing",
            "decode;dur=0.050, queue;dur=1.200, stack;dur=0.100, run;dur=3.400, encode;dur=0.250, total;dur=5.000",
        )
    ]


def test_timing_of_failed_request():
    """Completed stages only."""
    call = FakeCall(metadata=(("inferd-timing", "1"),), context=call_context(request_id="r"))
    assert run(call, INTERNAL) == [("x-request-id", "r"), ("inferd-timing", "total;dur=5.000")]


def test_timing_of_stream():
    """Sums over its requests."""
    call = FakeCall(metadata=(("inferd-timing", "1"), ("inferd-timing", "1")))

    def handle():
        (listener,) = result_listeners(call)
        for stages in (
            ALL_STAGES,
            Stages(load_s=0.5, decoding_at=1.0, decoded_at=1.001),
            Stages(load_s=0.25, queue_s=0.001),
        ):
            listener(call, replace(RESULT, stages=stages))

    assert run(call, meanwhile=handle) == [
        (
            "inferd-timing",
            (
                "load;dur=750.000, decode;dur=1.050, queue;dur=2.200, "
                "stack;dur=0.100, run;dur=3.400, encode;dur=0.250, total;dur=5.000"
            ),
        )
    ]


@pytest.mark.parametrize("value", ["0", "", "true"])
def test_only_1_requests_timing(value):
    """Other values are reserved."""
    assert run(FakeCall(metadata=(("inferd-timing", value),))) == []


def test_load_report():
    """On request, or always."""
    asking = (("endpoint-load-metrics-format", "bin"),)
    report = ("endpoint-load-metrics-bin", b"\x01")
    assert run(FakeCall(metadata=asking)) == [report]
    assert run(FakeCall(metadata=asking), report_always=True) == [report]
    assert run(FakeCall(), report_always=True) == [report]
    assert run(FakeCall(context=call_context(request_id="r")), INTERNAL, report_always=True)[-1] == report
    assert run(FakeCall(metadata=(("endpoint-load-metrics-format", "json"),))) == []


@pytest.mark.parametrize("report_always", [False, True])
def test_no_load_report_for_unauthenticated_callers(report_always):
    """Neither for rejected calls nor for health checks without a credential."""
    asking = (("endpoint-load-metrics-format", "bin"),)
    refused = run(FakeCall(metadata=asking), grpc.StatusCode.UNAUTHENTICATED, report_always=report_always)
    assert [name for name, _ in refused] == ["x-request-id"]
    assert (
        run(FakeCall(metadata=asking, context=call_context(principal="anonymous")), report_always=report_always) == []
    )
    known = FakeCall(metadata=asking, context=call_context(principal="token:alice"))
    assert run(known, report_always=report_always) == [("endpoint-load-metrics-bin", b"\x01")]
