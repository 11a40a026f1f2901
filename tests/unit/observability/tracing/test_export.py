"""Export of spans: sent, retried, dropped."""

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
    """Accepts or rejects spans as scripted."""

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
    """A sender with a scripted exporter, whose thread only exports at the end."""

    def __init__(self, exporter=None):
        self.queue = SpanQueue()
        self.exporter = exporter or ScriptedExporter()
        self.sender = SpanSender(self.queue, SpanBuilder(Resource({}), "1"), self.exporter, period_s=3600.0)

    def join(self):
        """Wait for a thread that `stop` left behind: what it logs late is not for the next test."""
        self.sender._thread.join(TIMEOUT_S)


@pytest.fixture
def receiver():
    """A real collector on a free port."""
    made = Receiver()
    yield made
    made.close()


def test_exports_nothing_when_idle():
    """No empty requests."""
    bench = Bench()
    bench.exporter.export = None
    bench.sender.send()


def test_exports_all_queued_spans():
    """However many."""
    bench = Bench()
    for _ in range(1500):
        bench.queue.put(record())
    bench.sender.send()
    assert len(bench.exporter.taken) == 1500


def test_logs_failure_and_recovery_once(caplog):
    """Dropped spans are counted; OpenTelemetry's own lines are suppressed."""
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


def test_survives_an_exception_of_the_exporter(caplog):
    """It is logged once without its text, its spans are dropped, and the thread exports later ones."""
    bench = Bench()
    export = bench.exporter.export

    def failing(spans):
        raise OSError("secret")

    bench.exporter.export = failing
    bench.sender.start()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            bench.queue.put(record())
            bench.sender.send()
        bench.exporter.export = export
        bench.queue.put(record())
        bench.sender.stop(TIMEOUT_S)
    assert bench.queue.dropped == 2
    assert len(bench.exporter.taken) == 1
    assert [entry.getMessage() for entry in caplog.records] == ["span export failed", "span export recovered"]
    assert caplog.records[0].reason == "OSError"


def test_survives_invalid_record(caplog):
    """It is counted, and the next ones are exported."""
    bench = Bench()
    bench.queue.put(record(trace_id="no hexadecimal"))
    bench.sender.send()
    assert bench.queue.dropped == 1
    bench.queue.put(record())
    bench.sender.send()
    assert len(bench.exporter.taken) == 1


def test_stop_exports_queued_spans():
    """Those of batches too."""
    bench = Bench()
    bench.sender.start()
    bench.queue.put(record(stages=STAGES))
    bench.sender.stop(TIMEOUT_S)
    assert [span.name for span in bench.exporter.taken] == ["inferd.v1.InferenceService/Infer", "batch"]


def test_stop_has_a_timeout(receiver):
    """With a receiver that hangs."""
    receiver.go_on.clear()
    bench = Bench(OTLPSpanExporter(receiver.endpoint))
    bench.sender.start()
    bench.queue.put(record())
    bench.sender.stop(timeout_s=0.05)
    receiver.go_on.set()
    receiver.wait_for("inferd.v1.InferenceService/Infer")
    bench.join()


def test_unreachable_receiver(caplog):
    """Retries end with the sender."""
    gone = Receiver()
    gone.close()
    bench = Bench(OTLPSpanExporter(gone.endpoint))
    bench.sender.start()
    bench.queue.put(record())
    bench.sender.stop(timeout_s=0.2)
    bench.join()
    assert "refused" in caplog.records[0].reason


@pytest.mark.parametrize("status", [400, 401])
def test_rejected_spans_are_not_retried(receiver, caplog, status):
    """The reason is logged."""
    receiver.answers = [status]
    bench = Bench(OTLPSpanExporter(receiver.endpoint))
    bench.sender.start()
    bench.queue.put(record())
    bench.sender.stop(TIMEOUT_S)
    assert bench.queue.dropped == 1
    assert len(receiver.paths) == 1
    assert str(status) in caplog.records[0].reason


def test_does_not_quote_invalid_header(receiver, caplog):
    """It may be a credential."""
    bench = Bench(OTLPSpanExporter(receiver.endpoint, headers={"authorization": "planted\nsecret"}))
    bench.sender.start()
    bench.queue.put(record())
    bench.sender.stop(TIMEOUT_S)
    assert bench.queue.dropped == 1
    assert "InvalidHeader" in caplog.records[0].reason
    assert "planted" not in caplog.text + caplog.records[0].reason
