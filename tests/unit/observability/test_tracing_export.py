"""Spans on their way: sent, tried again, given up."""

import logging

import pytest

from inferd.observability.tracing_export import OtlpHttpSender, RefusedError, SpanExporter
from inferd.observability.tracing_records import SpanQueue
from inferd.observability.tracing_spans import SpanMaker
from tests.otlp import Receiver
from tests.unit.observability.test_tracing_spans import record


class Bench:
    """An exporter whose receiver does what the test says; nothing runs by itself."""

    def __init__(self):
        self.queue = SpanQueue()
        self.now = 0.0
        self.sent = []
        self.failure = None
        self.exporter = SpanExporter(
            self.queue, SpanMaker({}, "1"), self._send, patience_s=30.0, clock=lambda: self.now
        )

    def _send(self, body):
        if self.failure is not None:
            raise self.failure
        self.sent.append(body)


@pytest.fixture
def receiver():
    """A real one, on a port of its own."""
    made = Receiver()
    yield made
    made.close()


def test_nothing_is_sent_of_nothing():
    """An idle server is silent."""
    bench = Bench()
    assert bench.exporter.export() is False
    assert bench.sent == []


def test_spans_are_tried_again(caplog):
    """The very same; it is said once that they are not taken, and once that they are again."""
    bench = Bench()
    bench.queue.put(record())
    bench.failure = OSError("connection refused")
    with caplog.at_level(logging.INFO, logger="inferd.observability.tracing_export"):
        for _ in range(3):
            assert bench.exporter.export() is False
        bench.failure = None
        assert bench.exporter.export() is True
    assert len(bench.sent) == 1
    assert bench.queue.dropped == 0
    texts = [entry.getMessage() for entry in caplog.records]
    assert texts == ["spans are not taken", "spans are taken again"]
    assert caplog.records[0].reason == "connection refused"


def test_spans_are_given_up(caplog):
    """After a while, and counted."""
    bench = Bench()
    bench.queue.put(record())
    bench.failure = OSError("down")
    bench.exporter.export()
    bench.now = 30.0
    bench.exporter.export()
    assert bench.queue.dropped == 1
    bench.failure = None
    assert bench.exporter.export() is False
    assert bench.sent == []


def test_spans_that_are_not_wanted_are_not_tried_again():
    """They would not be wanted later either."""
    bench = Bench()
    bench.queue.put(record())
    bench.failure = RefusedError("HTTP 400")
    assert bench.exporter.export() is True
    assert bench.queue.dropped == 1


def test_a_record_that_makes_no_span_is_not_the_end(caplog):
    """It is counted, and the next ones are sent."""
    bench = Bench()
    bench.queue.put(record(trace_id="no hexadecimal"))
    assert bench.exporter.export() is False
    assert bench.queue.dropped == 1
    bench.queue.put(record())
    assert bench.exporter.export() is True


def test_what_waits_is_sent_at_the_end(receiver):
    """Its batches too."""
    queue = SpanQueue()
    exporter = SpanExporter(queue, SpanMaker({}, "1"), OtlpHttpSender(receiver.endpoint, {}), period_s=3600.0)
    exporter.start()
    queue.put(record())
    exporter.stop()
    assert [span.name for span in receiver.spans] == ["inferd.v1.InferenceService/Infer"]


def test_a_receiver_that_hangs_does_not_hold_up_the_end(receiver):
    """No longer than it may."""
    receiver.go_on.clear()
    queue = SpanQueue()
    exporter = SpanExporter(queue, SpanMaker({}, "1"), OtlpHttpSender(receiver.endpoint, {}), period_s=3600.0)
    exporter.start()
    queue.put(record())
    exporter.stop(timeout_s=0.05)
    receiver.go_on.set()
    receiver.wait_for("inferd.v1.InferenceService/Infer")


def test_a_post(receiver):
    """To the path that was given, with the headers that were given."""
    OtlpHttpSender(f"{receiver.endpoint}/v1/traces", {"x-key": "secret"})(b"")
    assert receiver.paths == ["/v1/traces"]
    assert receiver.headers[0]["X-Key"] == "secret"
    assert receiver.headers[0]["Content-Type"] == "application/x-protobuf"


@pytest.mark.parametrize(
    ("status", "error"), [(503, OSError), (429, OSError), (400, RefusedError), (401, RefusedError)]
)
def test_posts_that_are_refused(receiver, status, error):
    """Some may be tried again."""
    receiver.answers = [status]
    with pytest.raises(error, match=f"HTTP {status}"):
        OtlpHttpSender(receiver.endpoint, {})(b"")


def test_nobody_is_there():
    """That may change."""
    gone = Receiver()
    gone.close()
    with pytest.raises(OSError, match="refused"):
        OtlpHttpSender(gone.endpoint, {})(b"")
