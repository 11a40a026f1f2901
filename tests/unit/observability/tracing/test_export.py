"""Spans on their way: sent, tried again, given up."""

import logging

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from inferd.observability.tracing.export import SpanSender
from inferd.observability.tracing.interceptor import SpanQueue
from inferd.observability.tracing.spans import SpanBuilder
from tests.otlp import TIMEOUT_S, Receiver
from tests.unit.observability.tracing.test_spans import STAGES, record

OUR_LOG = "inferd.observability.tracing.export"
SDK_LOG = logging.getLogger(OTLPSpanExporter.__module__)


class ScriptedExporter(SpanExporter):
    """Takes spans or not, as the test says."""

    def __init__(self):
        self.taken = []
        self.result = SpanExportResult.SUCCESS

    def export(self, spans):
        """As the exporter of OpenTelemetry does, which tells its log of failures."""
        if self.result is SpanExportResult.FAILURE:
            SDK_LOG.warning("Transient error %s", "connection refused")
        else:
            self.taken += spans
        return self.result


class Bench:
    """A sender whose exporter does what the test says, and whose thread does nothing until the end."""

    def __init__(self, exporter=None):
        self.queue = SpanQueue()
        self.exporter = exporter or ScriptedExporter()
        self.sender = SpanSender(self.queue, SpanBuilder(Resource({}), "1"), self.exporter, period_s=3600.0)


@pytest.fixture
def receiver():
    """A real one, on a port of its own."""
    made = Receiver()
    yield made
    made.close()


def test_nothing_is_sent_of_nothing():
    """An idle server is silent."""
    bench = Bench()
    bench.exporter.export = None
    bench.sender.send()


def test_all_that_waits_is_sent():
    """However much it is."""
    bench = Bench()
    for _ in range(1500):
        bench.queue.put(record())
    bench.sender.send()
    assert len(bench.exporter.taken) == 1500


def test_spans_that_are_not_taken(caplog):
    """They are counted; it is said once, and once that they are taken again, and not by OpenTelemetry."""
    bench = Bench()
    bench.sender.start()
    bench.exporter.result = SpanExportResult.FAILURE
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            bench.queue.put(record())
            bench.sender.send()
        bench.exporter.result = SpanExportResult.SUCCESS
        for _ in range(2):
            bench.queue.put(record())
            bench.sender.send()
    bench.sender.stop(TIMEOUT_S)
    assert bench.queue.dropped == 3
    assert len(bench.exporter.taken) == 2
    assert [(entry.name, entry.getMessage()) for entry in caplog.records] == [
        (OUR_LOG, "span export failed"),
        (OUR_LOG, "span export recovered"),
    ]
    assert caplog.records[0].reason == "Transient error connection refused"


def test_a_record_that_makes_no_span_is_not_the_end(caplog):
    """It is counted, and the next ones are sent."""
    bench = Bench()
    bench.queue.put(record(trace_id="no hexadecimal"))
    bench.sender.send()
    assert bench.queue.dropped == 1
    bench.queue.put(record())
    bench.sender.send()
    assert len(bench.exporter.taken) == 1


def test_what_waits_is_sent_at_the_end():
    """Its batches too."""
    bench = Bench()
    bench.sender.start()
    bench.queue.put(record(stages=STAGES))
    bench.sender.stop(TIMEOUT_S)
    assert [span.name for span in bench.exporter.taken] == ["inferd.v1.InferenceService/Infer", "batch"]


def test_a_receiver_that_hangs_does_not_hold_up_the_end(receiver):
    """No longer than it may."""
    receiver.go_on.clear()
    bench = Bench(OTLPSpanExporter(receiver.endpoint))
    bench.sender.start()
    bench.queue.put(record())
    bench.sender.stop(timeout_s=0.05)
    receiver.go_on.set()
    receiver.wait_for("inferd.v1.InferenceService/Infer")


def test_nobody_is_there(caplog):
    """Trying again ends with the sender."""
    gone = Receiver()
    gone.close()
    bench = Bench(OTLPSpanExporter(gone.endpoint))
    bench.sender.start()
    bench.queue.put(record())
    bench.sender.stop(timeout_s=0.2)
    assert "refused" in caplog.records[0].reason


@pytest.mark.parametrize("status", [400, 401])
def test_spans_that_are_not_wanted(receiver, caplog, status):
    """They are not tried again, and the reason is told."""
    receiver.answers = [status]
    bench = Bench(OTLPSpanExporter(receiver.endpoint))
    bench.sender.start()
    bench.queue.put(record())
    bench.sender.stop(TIMEOUT_S)
    assert bench.queue.dropped == 1
    assert len(receiver.paths) == 1
    assert str(status) in caplog.records[0].reason


def test_a_header_that_cannot_be_sent_is_not_quoted(receiver, caplog):
    """It may be a credential."""
    bench = Bench(OTLPSpanExporter(receiver.endpoint, headers={"authorization": "planted\nsecret"}))
    bench.sender.start()
    bench.queue.put(record())
    bench.sender.stop(TIMEOUT_S)
    assert bench.queue.dropped == 1
    assert "InvalidHeader" in caplog.records[0].reason
    assert "planted" not in caplog.text + caplog.records[0].reason
