"""The access log: one line for each RPC."""

import weakref
from dataclasses import replace

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.batching.request import BatchTiming
from inferd.call_context import Generated, generated_by, sanitized_id
from inferd.config.logging import LogFormat, LogSettings
from inferd.observability.logging.access_log import AccessLog
from inferd.observability.logging.setup import renderer
from inferd.observability.logging.writer import LineWriter
from inferd.observability.recorder import CallRecorder
from inferd.observability.stream_results import StreamResult, result_listeners
from inferd.observability.timing import Stages
from inferd.plain_text import escaped
from tests.unit.call_context import call_context
from tests.unit.observability.fakes import INFER, FakeCall, Sink

OK = grpc.StatusCode.OK
NOON = 1_700_000_000.25
BATCH = BatchTiming(started_at=0.0, stack_s=0.1, run_s=0.00025, rows=12)


class Log:
    """An access log whose lines can be read, once."""

    def __init__(self, **settings: object) -> None:
        self.sink = Sink()
        self.settings = LogSettings.model_validate(settings)
        self._writer = LineWriter(self.sink)
        self.recorder = CallRecorder()
        self.access_log = AccessLog(
            self.settings,
            self.recorder,
            self._writer,
            renderer(self.settings.format),
            clock=lambda: 100.0125,
            wall_clock=lambda: NOON,
        )

    def finish(self, call: FakeCall, code: grpc.StatusCode = OK, details: str = "") -> None:
        call.ended_at = 100.0125
        self.recorder.started(call)
        self.recorder.finished(call, code, details)

    @property
    def records(self) -> list[dict[str, object]]:
        self.recorder.flush()
        assert self._writer.stop()
        return self.sink.records

    @property
    def text(self) -> str:
        self.recorder.flush()
        assert self._writer.stop()
        return b"".join(self.sink.writes).decode()


def answered() -> FakeCall:
    return FakeCall(
        context=call_context(request_id="abc", model="digits", version="1", rows=2, queue_s=0.0015, batch=BATCH)
    )


def test_answered_request() -> None:
    """All fields, in the order of reading."""
    log = Log()
    log.finish(answered())
    (record,) = log.records
    assert list(record.items()) == [
        ("time", "2023-11-14T22:13:20.250Z"),
        ("level", "info"),
        ("event", "access"),
        ("request_id", "abc"),
        ("peer", "ipv4:127.0.0.1:40000"),
        ("method", INFER),
        ("model", "digits"),
        ("version", "1"),
        ("status", "OK"),
        ("total_ms", 12.5),
        ("queue_ms", 1.5),
        ("run_ms", 0.25),
        ("batch_rows", 12),
        ("rows", 2),
    ]


def test_rejected_request_has_error() -> None:
    """Fields that were never set are left out."""
    log = Log()
    log.finish(FakeCall(context=call_context(request_id="r")), grpc.StatusCode.NOT_FOUND, "no model of that name")
    (record,) = log.records
    assert record["error"] == "no model of that name"
    assert {"model", "queue_ms", "rows"}.isdisjoint(record)


def test_line_of_http_has_its_status() -> None:
    """Besides that of gRPC, by which calls of both are found."""
    log = Log()
    log.finish(FakeCall(annotations={"http_status": 429}), grpc.StatusCode.RESOURCE_EXHAUSTED)
    (record,) = log.records
    assert (record["status"], record["http_status"]) == ("RESOURCE_EXHAUSTED", 429)


def test_stream_line_has_message_counts() -> None:
    """Requests, and messages in both directions."""
    log = Log()
    log.finish(FakeCall(annotations={"requests": 5, "messages_in": 2, "messages_out": 3}))
    (record,) = log.records
    assert (record["requests"], record["messages_in"], record["messages_out"]) == (5, 2, 3)


@pytest.mark.parametrize(
    "counts",
    [{"messages_in": 1}, {"requests": 2, "messages_in": 1}, {"requests": 2, "messages_in": 1, "messages_out": 1}],
)
def test_stream_line_has_partial_counts(counts: dict[str, object]) -> None:
    """A stream may end before anything was read or answered."""
    log = Log()
    log.finish(FakeCall(context=call_context(request_id="s"), annotations=counts), grpc.StatusCode.CANCELLED)
    (record,) = log.records
    assert {name: record.get(name) for name in counts} == counts
    assert {"requests", "messages_in", "messages_out"} & set(record) == set(counts)


def test_call_cancelled_while_its_result_is_set() -> None:
    """The poll thread ends the call while a worker sets the context of its batch."""
    log = Log()
    log.finish(FakeCall(context=call_context(request_id="r", queue_s=0.1)), grpc.StatusCode.CANCELLED)
    (record,) = log.records
    assert {"queue_ms", "run_ms", "batch_rows"}.isdisjoint(record)


@pytest.mark.parametrize(
    ("code", "level"),
    [
        (OK, "info"),
        (grpc.StatusCode.INVALID_ARGUMENT, "info"),
        (grpc.StatusCode.CANCELLED, "info"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "warning"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "warning"),
        (grpc.StatusCode.INTERNAL, "error"),
        (grpc.StatusCode.UNKNOWN, "error"),
    ],
)
def test_level_by_status(code: grpc.StatusCode, level: str) -> None:
    """Alerts on errors must not fire for callers' mistakes."""
    log = Log()
    log.finish(FakeCall(), code)
    assert [record["level"] for record in log.records] == [level]


def test_skips_lines_below_the_level() -> None:
    """At warning, only calls that were rejected, late or failed."""
    log = Log(level="warning")
    log.finish(FakeCall())
    log.finish(FakeCall(), grpc.StatusCode.UNAVAILABLE)
    assert [record["status"] for record in log.records] == ["UNAVAILABLE"]


def test_access_log_off() -> None:
    """Stream results are off as well."""
    log = Log(access=False, level="debug")
    call = FakeCall()
    log.finish(call)
    assert result_listeners(call) == ()
    assert log.records == []


def test_principal_trace_and_message_id() -> None:
    """With the id of the message if the metadata has another one."""
    log = Log()
    own = {"trace_id": "a" * 32, "span_id": "b" * 16, "own_id": "mine"}
    log.finish(FakeCall(context=call_context(request_id="r", principal="token:alice"), annotations=own))
    log.finish(FakeCall(context=call_context(request_id="s", principal="anonymous")))
    first, second = log.records
    said = {"principal": "token:alice", "trace_id": "a" * 32, "span_id": "b" * 16, "id": "mine"}
    assert first.items() >= said.items()
    assert second["principal"] == "anonymous"
    assert {"trace_id", "span_id", "id"}.isdisjoint(second)


def test_generates_missing_request_id() -> None:
    """Unique across calls and processes."""
    log, other = Log(), Log()
    for some_log in (log, log, other):
        some_log.finish(FakeCall())
    ids = [record["request_id"] for record in (*log.records, *other.records)]
    assert len(set(ids)) == 3
    assert all(ids)


def test_truncates_long_texts() -> None:
    """Callers choose them, and queued lines must not hold megabytes."""
    log = Log()
    long = "x" * 1_000_000
    log.finish(FakeCall(method=long), grpc.StatusCode.INTERNAL, long)
    assert len(log.text) < 3000


@given(texts=st.tuples(*[st.text(min_size=1, max_size=20)] * 4), style=st.sampled_from(LogFormat))
def test_escapes_text_of_callers(texts: tuple[str, str, str, str], style: LogFormat) -> None:
    """Quotes and line ends stay within their value."""
    log = Log(format=style)
    given_id, method, model, error = texts
    call = FakeCall(method=method, context=call_context(request_id=sanitized_id(given_id), model=model))
    log.finish(call, grpc.StatusCode.NOT_FOUND, error)
    if style is LogFormat.JSON:
        (record,) = log.records
        assert record["request_id"] == sanitized_id(given_id)
        assert [record[name] for name in ("method", "model", "error")] == [escaped(each) for each in texts[1:]]
    assert log.text.count("\n") == 1
    assert escaped(log.text, keep="\n") == log.text


@pytest.mark.parametrize("style", LogFormat)
def test_names_that_are_not_utf8(style: LogFormat) -> None:
    """A model is named after its directory."""
    log = Log(format=style)
    log.finish(answered())
    log.finish(FakeCall(context=call_context(model="m\udc80")), grpc.StatusCode.INTERNAL, "m\udc80")
    log.finish(answered())
    assert log.text.count("\n") == 3
    escape = r"m\\udc80" if style is not LogFormat.HUMAN else r"m\udc80"
    assert log.text.count(escape) == 2


def test_lines_of_different_calls_in_one_batch() -> None:
    """Formatted at once, without mixing fields."""
    log = Log()
    log.finish(answered())
    log.finish(FakeCall(context=call_context(request_id="r", rows=3)), grpc.StatusCode.NOT_FOUND, "no such model")
    log.finish(
        FakeCall(context=call_context(request_id="s"), annotations={"requests": 5, "messages_in": 2, "messages_out": 3})
    )
    log.finish(answered())
    first, second, third, last = log.records
    assert first == last
    assert list(second) == [
        "time",
        "level",
        "event",
        "request_id",
        "peer",
        "method",
        "status",
        "total_ms",
        "rows",
        "error",
    ]
    assert list(third)[-4:] == ["total_ms", "requests", "messages_in", "messages_out"]
    assert len(log.sink.writes) == 1


RESULT = StreamResult(
    request_id="r7",
    model="digits",
    version="1",
    rows=3,
    status="OK",
    error="",
    stages=Stages(queue_s=0.001, batch=BatchTiming(started_at=0.0, stack_s=0.1, run_s=0.25, rows=12)),
)


def test_stream_results_at_debug_level() -> None:
    """With the id of their stream."""
    log = Log(level="debug")
    call = FakeCall(context=call_context(request_id="s1"))
    log.recorder.started(call)
    (listener,) = result_listeners(call)
    listener(call, RESULT)
    listener(call, replace(RESULT, model="", version="", status="NOT_FOUND", error="no such model", stages=Stages()))
    log.finish(call)
    result, failed, access = log.records
    assert result == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "debug",
        "event": "stream_result",
        "stream_id": "s1",
        "method": INFER,
        "id": "r7",
        "status": "OK",
        "model": "digits",
        "version": "1",
        "queue_s": 0.001,
        "run_s": 0.25,
        "batch_rows": 12,
    }
    assert list(failed)[3:] == ["stream_id", "method", "id", "status", "error"]
    assert access["request_id"] == result["stream_id"]


@pytest.mark.parametrize("level", ["info", "warning"])
def test_no_stream_listener_above_debug_level(level: str) -> None:
    """Streams have no listener."""
    log = Log(level=level)
    call = FakeCall()
    log.recorder.started(call)
    assert call.annotations == {}


def test_changes_settings() -> None:
    """For calls that end from then on."""
    log = Log(level="warning")
    log.finish(FakeCall(context=call_context(request_id="before")))
    log.access_log.change(LogSettings(level="info"))
    log.finish(FakeCall(context=call_context(request_id="info")))
    log.access_log.change(LogSettings(access=False))
    log.finish(FakeCall(context=call_context(request_id="after")))
    assert [record["request_id"] for record in log.records] == ["info"]


def test_human_format() -> None:
    """The same fields for a terminal."""
    log = Log(format=LogFormat.HUMAN)
    log.finish(answered())
    (line,) = log.text.splitlines()
    assert line.startswith("2023-11-14T22:13:20.250Z [info     ] access")
    assert "model=digits version=1 status=OK total_ms=12.5 queue_ms=1.5" in line


def test_queued_lines_do_not_keep_calls_alive() -> None:
    """A call may hold a message of megabytes, and a stuck log a hundred thousand lines."""
    log = Log()
    call = FakeCall()
    gone = weakref.ref(call)
    log.finish(call)
    del call
    assert gone() is None
    assert len(log.records) == 1


def test_generation() -> None:
    """Tokens, the time to the first one, and why it ended; those of all requests of a call together."""
    log = Log()
    call = FakeCall(context=call_context(model="lm", version="1", queue_s=0.25))
    for reason in ("length", "stop"):
        generated = generated_by(call.annotations)
        generated.admitted(7)
        generated.add(1, 0.75)
        generated.add(2, 1.0)
        generated.finished(reason)
    log.finish(call)
    (record,) = log.records
    fields = ("prompt_tokens", "generated_tokens", "queue_ms", "ttft_ms", "finish_reason")
    assert [record[name] for name in fields] == [14, 6, 250.0, 750.0, "length,stop"]


def test_generation_cancelled_before_first_token() -> None:
    """What is not known is not there."""
    log = Log()
    call = FakeCall()
    generated_by(call.annotations).admitted(7)
    log.finish(call, grpc.StatusCode.CANCELLED)
    (record,) = log.records
    assert (record["prompt_tokens"], record["generated_tokens"]) == (7, 0)
    assert not record.keys() & {"queue_ms", "ttft_ms", "finish_reason"}


def test_generation_on_stream() -> None:
    """Each request has its own numbers."""
    log = Log(level="debug")
    call = FakeCall()
    log.recorder.started(call)
    (listener,) = result_listeners(call)
    generated = Generated(prompt_tokens=3, tokens=4, first_token_s=0.5, finish_reasons={"stop": None})
    listener(
        call,
        StreamResult(
            request_id="r", model="lm", version="1", rows=1, status="OK", error="", stages=Stages(), generated=generated
        ),
    )
    (record,) = log.records
    assert (record["prompt_tokens"], record["generated_tokens"], record["ttft_ms"]) == (3, 4, 500.0)
    assert record["finish_reason"] == "stop"
