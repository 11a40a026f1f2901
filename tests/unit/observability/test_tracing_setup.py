"""What it takes to trace."""

import subprocess
import sys

import pytest

from inferd.config.tracing import TracingSettings
from inferd.observability.tracing_setup import Tracing
from tests.otlp import Receiver, attributes
from tests.unit.observability.fakes import INFER, FakeCall
from tests.unit.observability.test_access_log import OK


def test_nothing_is_traced_without_an_endpoint():
    """No interceptor, no thread."""
    tracing = Tracing(TracingSettings())
    tracing.start()
    tracing.stop()
    assert tracing.interceptors == ()
    assert tracing.dropped == 0


def test_nothing_of_opentelemetry_is_imported_without_an_endpoint():
    """It need not even be there."""
    code = """
import sys
from inferd.config.tracing import TracingSettings
from inferd.observability.tracing_setup import Tracing
import inferd.app
tracing = Tracing(TracingSettings())
tracing.start()
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_package_that_is_missing(monkeypatch):
    """Said at the start, with what to do."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    for name in [*sys.modules]:
        if name.startswith(
            ("opentelemetry.", "inferd.observability.tracing_export", "inferd.observability.tracing_spans")
        ):
            monkeypatch.delitem(sys.modules, name)
    tracing = Tracing(TracingSettings(endpoint="http://127.0.0.1:9"))
    with pytest.raises(RuntimeError, match=r"tracing.endpoint is set, .*pip install 'inferd\[otel\]'"):
        tracing.start()


def test_who_sends_what(tmp_path):
    """The headers from a file, and the facts about the server."""
    headers = tmp_path / "headers.yaml"
    headers.write_text("x-api-key: planted\n")
    receiver = Receiver()
    settings = TracingSettings(
        endpoint=receiver.endpoint,
        sampling_ratio=1.0,
        headers_file=headers,
        service_name="digits",
        resource={"k8s.pod.name": "digits-0"},
    )
    tracing = Tracing(settings)
    tracing.start()
    (interceptor,) = tracing.interceptors
    call = FakeCall()
    interceptor.started(call)
    interceptor.finished(call, OK, "")
    tracing.stop()
    receiver.close()
    resource = attributes(receiver.requests[0].resource_spans[0].resource)
    assert (resource["service.name"], resource["k8s.pod.name"]) == ("digits", "digits-0")
    assert {"service.version", "service.instance.id", "host.name", "process.pid"} <= set(resource)
    assert receiver.headers[0]["X-Api-Key"] == "planted"
    assert receiver.paths == ["/v1/traces"]
    assert [span.name for span in receiver.spans] == [INFER.removeprefix("/")]


@pytest.mark.parametrize("text", ["- planted", "a: 1", "{", "\xff"])
def test_headers_that_are_none(tmp_path, text):
    """Said without what is in the file."""
    file = tmp_path / "headers.yaml"
    file.write_bytes(text.encode("latin-1"))
    tracing = Tracing(TracingSettings(endpoint="http://127.0.0.1:9", headers_file=file))
    with pytest.raises(RuntimeError, match=r"tracing.headers_file: expected lines of NAME: VALUE in .*headers.yaml$"):
        tracing.start()
