"""Settings of traces."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from inferd.config.section import Section, refusal

#: Where receivers take traces unless told otherwise.
_DEFAULT_PATH = "/v1/traces"


class TracingSettings(Section):
    """Traces for OpenTelemetry, off without an endpoint; docs/tracing.md says which OTEL_* variables count as well."""

    endpoint: str | None = None
    """Where to send spans by OTLP over HTTP, for example http://collector:4318; without a path, /v1/traces is added. \
Where it is not set, OTEL_EXPORTER_OTLP_ENDPOINT says it."""
    sampling_ratio: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of the calls without a traceparent that are traced. For the others their traceparent decides, unless they \
are refused for want of a credential. Health checks are never traced. Where it is not set, OTEL_TRACES_SAMPLER goes \
before the default."""
    headers_file: Path | None = None
    """A YAML file of headers to send along, by name, for receivers that want to know who sends."""
    service_name: str | None = Field(default=None, min_length=1)
    """What the server is called in the traces; without it, as the environment has it (OTEL_SERVICE_NAME), or inferd."""
    resource: dict[str, str] = Field(default_factory=dict)
    """Further facts about this server, by OpenTelemetry's names, such as k8s.pod.name."""

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_a_url(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        try:
            parts = urlsplit(endpoint)
            sensible = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            sensible = False
        if not sensible or parts.username or parts.query or parts.fragment:
            # Not what came: it may hold a password.
            text = "expected http://HOST:PORT or https://HOST:PORT, with a path or without, and nothing else"
            raise refusal(text)
        return endpoint if parts.path.strip("/") else endpoint.rstrip("/") + _DEFAULT_PATH
