"""Setup of tracing."""

import os
import subprocess
import sys

import pytest

from inferd.config.tracing import TracingSettings
from inferd.observability.tracing.setup import Tracing
from tests.otlp import Receiver, attributes
from tests.unit.observability.fakes import INFER, FakeCall
from tests.unit.observability.logging.test_access_log import OK
from tests.unit.observability.tracing.test_trace_context import SPAN, TRACE


@pytest.fixture(autouse=True)
def _without_variables(monkeypatch):
    """Without the environment of the tests."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def receiver():
    """A real collector on a free port."""
    made = Receiver()
    yield made
    made.close()


def test_off_without_endpoint():
    """No interceptor, no thread."""
    tracing = Tracing(TracingSettings())
    tracing.start()
    tracing.stop()
    assert tracing.interceptors == ()
    assert tracing.dropped == 0


def test_does_not_import_opentelemetry_without_endpoint():
    """It need not be installed."""
    code = """
import sys
from inferd.config.tracing import TracingSettings
from inferd.observability.tracing.setup import Tracing
import inferd.app.application
tracing = Tracing(TracingSettings())
tracing.start()
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def _not_installed(monkeypatch):
    """As without the extra."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    for name in [*sys.modules]:
        if name.startswith(
            ("opentelemetry.", "inferd.observability.tracing.export", "inferd.observability.tracing.spans")
        ):
            monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("_not_installed")
def test_missing_package():
    """The error at the start says what to install."""
    tracing = Tracing(TracingSettings(endpoint="http://127.0.0.1:9"))
    with pytest.raises(RuntimeError, match=r"tracing.endpoint is set, .*pip install 'inferd\[otel\]'"):
        tracing.start()


def send_one(tracing, *metadata):
    """Send the span of one call."""
    tracing.start()
    (interceptor,) = tracing.interceptors
    call = FakeCall(metadata=metadata)
    interceptor.started(call)
    call.over(OK)
    tracing.stop()


def test_resource_attributes(receiver):
    """Those of the server."""
    send_one(Tracing(TracingSettings(endpoint=receiver.endpoint, sampling_ratio=1.0)))
    resource = attributes(receiver.requests[0].resource_spans[0].resource)
    assert resource["service.name"] == "inferd"
    assert {"service.version", "service.instance.id", "host.name", "process.pid"} <= set(resource)
    assert receiver.paths == ["/v1/traces"]
    assert [span.name for span in receiver.spans] == [INFER.removeprefix("/")]


@pytest.mark.parametrize(("named", "name"), [(None, "elsewhere"), ("digits", "digits")])
def test_resource_attributes_of_the_environment(monkeypatch, tmp_path, receiver, named, name):
    """Settings take precedence."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging,k8s.pod.name=other")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "elsewhere")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=other,x-tenant=them")
    headers = tmp_path / "headers.yaml"
    headers.write_text("x-api-key: planted\n")
    send_one(
        Tracing(
            TracingSettings(
                endpoint=receiver.endpoint,
                sampling_ratio=1.0,
                headers_file=headers,
                service_name=named,
                resource={"k8s.pod.name": "digits-0"},
            )
        )
    )
    resource = attributes(receiver.requests[0].resource_spans[0].resource)
    assert (resource["service.name"], resource["k8s.pod.name"]) == (name, "digits-0")
    assert resource["deployment.environment.name"] == "staging"
    assert (receiver.headers[0]["X-Api-Key"], receiver.headers[0]["X-Tenant"]) == ("planted", "them")


@pytest.mark.parametrize(
    ("variable", "suffix"),
    [("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/v1/traces")],
)
def test_endpoint_of_the_environment(monkeypatch, receiver, caplog, variable, suffix):
    """As for any program with OpenTelemetry, with its sampler and headers."""
    monkeypatch.setenv(variable, receiver.endpoint + suffix)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=theirs")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    send_one(Tracing(TracingSettings()))
    assert receiver.paths == ["/v1/traces"]
    assert [span.name for span in receiver.spans] == [INFER.removeprefix("/")]
    assert receiver.headers[0]["X-Api-Key"] == "theirs"
    assert caplog.records == []


def test_logs_ignored_variables_at_the_start(monkeypatch, caplog):
    """One line each."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    tracing = Tracing(TracingSettings())
    tracing.start()
    tracing.stop()
    assert tracing.interceptors == ()
    (entry,) = caplog.records
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is set: set OTEL_EXPORTER_OTLP_PROTOCOL to http/protobuf" in entry.getMessage()


@pytest.mark.usefixtures("_not_installed")
def test_missing_package_requested_by_the_environment(monkeypatch, caplog):
    """Variables are set for many programs at once: the server starts without tracing, with a warning."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    tracing = Tracing(TracingSettings())
    tracing.start()
    assert tracing.interceptors == ()
    (entry,) = caplog.records
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is set: install OpenTelemetry, pip install 'inferd[otel]'" in entry.getMessage()


def test_does_not_quote_invalid_header_of_the_environment(monkeypatch, caplog, receiver):
    """It may be a credential."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "planted secret")
    send_one(Tracing(TracingSettings(endpoint=receiver.endpoint, sampling_ratio=1.0)))
    assert [entry.getMessage() for entry in caplog.records] == ["OTEL_EXPORTER_OTLP_HEADERS has an invalid header"]
    assert len(receiver.requests) == 1


def test_ignores_invalid_tracestate(caplog, receiver):
    """Without a log line: callers could flood the log."""
    parent = ("traceparent", f"00-{TRACE}-{SPAN}-01")
    send_one(Tracing(TracingSettings(endpoint=receiver.endpoint)), parent, ("tracestate", "a=1,nonsense"))
    assert [(span.trace_id.hex(), span.trace_state) for span in receiver.spans] == [(TRACE, "")]
    assert caplog.records == []


@pytest.mark.parametrize("text", ["- planted", "a: 1", "{", "\xff", 'a: "planted\\r\\nb: c"'])
def test_rejects_invalid_headers_file(tmp_path, text):
    """Without quoting the file."""
    file = tmp_path / "headers.yaml"
    file.write_bytes(text.encode("latin-1"))
    tracing = Tracing(TracingSettings(endpoint="http://127.0.0.1:9", headers_file=file))
    with pytest.raises(RuntimeError, match=r"tracing.headers_file: expected lines of NAME: VALUE in .*headers.yaml$"):
        tracing.start()
