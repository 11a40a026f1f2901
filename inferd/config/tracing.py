"""Settings of tracing."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from inferd.config.section import Section, validation_error

#: The path of OTLP over HTTP, added to endpoints without one.
_DEFAULT_PATH = "/v1/traces"


class TracingSettings(Section):
    """OpenTelemetry traces. Off without an endpoint; docs/tracing.md lists the OTEL_* variables that also apply."""

    endpoint: str | None = None
    """Where to send spans by OTLP over HTTP, for example http://collector:4318; without a path, /v1/traces is added. \
Defaults to OTEL_EXPORTER_OTLP_ENDPOINT."""
    sampling_ratio: float = Field(default=0.01, ge=0.0, le=1.0)
    """Ratio of calls to trace among those without a traceparent. A traceparent decides for its own call, unless the \
call is rejected as unauthenticated. Health checks are never traced. If not set, OTEL_TRACES_SAMPLER takes precedence \
over the default."""
    headers_file: Path | None = None
    """YAML file with headers to send along, by name, for receivers that require authentication."""
    service_name: str | None = Field(default=None, min_length=1)
    """Name of the service in the traces. Defaults to OTEL_SERVICE_NAME, or inferd."""
    resource: dict[str, str] = Field(default_factory=dict)
    """Additional resource attributes, by OpenTelemetry's names, such as k8s.pod.name."""

    @field_validator("endpoint")
    @classmethod
    def _validate_endpoint(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        try:
            parts = urlsplit(endpoint)
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            valid = False
        if not valid or parts.username or parts.query or parts.fragment:
            # Without the value, which may contain a password.
            text = "expected http://HOST:PORT or https://HOST:PORT, optionally with a path, and nothing else"
            raise validation_error(text)
        return endpoint if parts.path.strip("/") else endpoint.rstrip("/") + _DEFAULT_PATH
