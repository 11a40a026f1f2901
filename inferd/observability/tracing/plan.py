"""Decide whether and how to trace, from the settings and OpenTelemetry's environment variables. Pure functions.

OpenTelemetry's exporter reads its own variables. Its tracers and batch processor are not used, so their variables are
read here; unsupported variables are reported.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from inferd.config.tracing import TracingSettings

#: OpenTelemetry's samplers: the ratio, None if it is the argument, and whether the caller's decision takes precedence.
_SAMPLERS: Mapping[str, tuple[float | None, bool]] = {
    "always_on": (1.0, False),
    "always_off": (0.0, False),
    "traceidratio": (None, False),
    "parentbased_always_on": (1.0, True),
    "parentbased_always_off": (0.0, True),
    "parentbased_traceidratio": (None, True),
}

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

#: Variables that are often set for all programs of a machine, whether they trace or not.
_GENERAL = frozenset(
    ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "OTEL_PROPAGATORS")
)

_MAX_DIGITS = 7

_SUPPORTED = frozenset(
    (
        *_ENDPOINTS,
        *_PROTOCOLS,
        *_GENERAL,
        *("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"),
        *("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
        *(
            f"OTEL_EXPORTER_OTLP_{signal}{name}"
            for signal in ("", "TRACES_")
            for name in ("HEADERS", "TIMEOUT", "COMPRESSION", "CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
        ),
    )
)

#: Unsupported variables, and what to use instead.
_ALTERNATIVES = {
    "OTEL_BSP_EXPORT_TIMEOUT": "set OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_INSECURE": "the endpoint's http:// or https:// says it",
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE": "the endpoint's http:// or https:// says it",
    "OTEL_METRICS_EXPORTER": "have /metrics scraped",
    "OTEL_LOGS_EXPORTER": "have standard output collected",
    "OTEL_LOG_LEVEL": "set log.levels",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Which calls are traced: a ``ratio`` of those without a traceparent.

    Calls with one follow their caller's decision if ``by_parent``, else they are sampled with the same ratio by trace
    id. Without ``reads_parent``, traceparents are ignored.
    """

    ratio: float
    by_parent: bool = True
    reads_parent: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class TracingPlan:
    """How to trace, if ``is_on``. ``requested_by`` is the setting or variable that requests it.

    ``endpoint`` is None if OpenTelemetry reads it. At most ``max_queued`` spans are queued, and exported every
    ``period_s``, at most ``max_export`` at a time. ``warnings`` are for the log.
    """

    is_on: bool
    requested_by: str = ""
    endpoint: str | None = None
    sampling: Sampling = Sampling(ratio=0.0)
    period_s: float = 1.0
    max_queued: int = 4096
    max_export: int = 512
    warnings: tuple[str, ...] = ()


def plan_tracing(settings: TracingSettings, environment: Mapping[str, str]) -> TracingPlan:
    """Decide from the settings, else from the environment."""
    variables = _Variables(environment)
    requested_by = "tracing.endpoint" if settings.endpoint is not None else variables.requested_by()
    off_by = variables.off_by()
    if off_by:
        why = (f"tracing is off although {requested_by} is set, because of {off_by}",) if requested_by else ()
        return TracingPlan(is_on=False, warnings=why)
    if settings.endpoint is not None:
        variables.expect_protocol("spans go to tracing.endpoint by http/protobuf")
    variables.warn_ignored()
    if not requested_by:
        variables.warn_unused()
        return TracingPlan(is_on=False, warnings=tuple(variables.warnings))
    max_queued = variables.whole("OTEL_BSP_MAX_QUEUE_SIZE", 4096)
    return TracingPlan(
        is_on=True,
        requested_by=requested_by,
        endpoint=settings.endpoint,
        sampling=variables.sampling(settings),
        period_s=variables.whole("OTEL_BSP_SCHEDULE_DELAY", 1000) / 1000,
        max_queued=max_queued,
        max_export=min(variables.whole("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512), max_queued),
        warnings=tuple(variables.warnings),
    )


class _Variables:
    """OpenTelemetry's non-empty variables, and ``warnings`` about them."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._values = {
            name: value.strip() for name, value in environment.items() if name.startswith("OTEL_") and value.strip()
        }
        self.warnings: list[str] = []

    def off_by(self) -> str:
        """Return the variable that disables tracing; empty if none does."""
        if self._values.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return "OTEL_SDK_DISABLED"
        return "OTEL_TRACES_EXPORTER=none" if self._names("OTEL_TRACES_EXPORTER") == ["none"] else ""

    def requested_by(self) -> str:
        """Return the variable that requests tracing; empty if none does, or if the request cannot be met."""
        exporters = self._names("OTEL_TRACES_EXPORTER")
        if unknown := sorted({*exporters} - {"otlp", "none"}):
            self.warnings.append(f"OTEL_TRACES_EXPORTER: expected otlp or none, got {', '.join(unknown)}")
            if "otlp" not in exporters:
                return ""
        endpoint = self._first(_ENDPOINTS)
        requested_by = endpoint or ("OTEL_TRACES_EXPORTER" if "otlp" in exporters else "")
        if not requested_by:
            return ""
        if self._protocol() == "grpc":
            self.warnings.append(
                f"tracing is off although {requested_by} is set: set {self._first(_PROTOCOLS)} to http/protobuf, and "
                "the endpoint to the receiver's port for HTTP, which is 4318 by default"
            )
            return ""
        self.expect_protocol("spans are sent by http/protobuf")
        if endpoint and not _is_url(self._values[endpoint]):
            # Does not quote the value: it may hold a password.
            self.warnings.append(f"tracing is off: {endpoint}: expected http://HOST:PORT or https://HOST:PORT")
            return ""
        return requested_by

    def expect_protocol(self, instead: str) -> None:
        """Warn about an unsupported protocol, and what is done ``instead``."""
        if self._protocol() not in ("", "http/protobuf"):
            self.warnings.append(f"{self._first(_PROTOCOLS)} is ignored: {instead}")

    def sampling(self, settings: TracingSettings) -> Sampling:
        """Return which calls to trace; settings take precedence."""
        reads_parent = self._reads_parent()
        name = self._values.get("OTEL_TRACES_SAMPLER", "").lower()
        if name and "sampling_ratio" in settings.model_fields_set:
            self.warnings.append("OTEL_TRACES_SAMPLER is ignored: tracing.sampling_ratio is set")
        elif name in _SAMPLERS:
            ratio, by_parent = _SAMPLERS[name]
            return Sampling(
                ratio=self._ratio() if ratio is None else ratio, by_parent=by_parent, reads_parent=reads_parent
            )
        elif name:
            self.warnings.append(f"OTEL_TRACES_SAMPLER is ignored: expected {', '.join(_SAMPLERS)}")
        elif "OTEL_TRACES_SAMPLER_ARG" in self._values:
            self.warnings.append("OTEL_TRACES_SAMPLER_ARG is ignored without OTEL_TRACES_SAMPLER")
        return Sampling(ratio=settings.sampling_ratio, reads_parent=reads_parent)

    def whole(self, name: str, default: int) -> int:
        """Return the value of a whole number, at least 1."""
        text = self._values.get(name, str(default))
        if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS and int(text):
            return int(text)
        self.warnings.append(f"{name}: expected a whole number from 1 to {10**_MAX_DIGITS - 1}; using {default}")
        return default

    def warn_ignored(self) -> None:
        """Warn about unsupported variables."""
        left = {name for name, value in self._values.items() if name not in _SUPPORTED and value.lower() != "none"}
        self.warnings += [f"{name} is ignored: {_ALTERNATIVES[name]}" for name in sorted(left & _ALTERNATIVES.keys())]
        if others := sorted(left - _ALTERNATIVES.keys()):
            self.warnings.append(f"ignored variables of OpenTelemetry: {', '.join(others)}")

    def warn_unused(self) -> None:
        """Warn about variables without effect because nothing requests tracing, unless that was reported."""
        idle = sorted(self._values.keys() & _SUPPORTED - {*_ENDPOINTS, "OTEL_SDK_DISABLED", *_GENERAL})
        if idle and not self.warnings:
            self.warnings.append(
                f"tracing is off although {', '.join(idle)} is set: set tracing.endpoint or {_ENDPOINTS[1]}"
            )

    def _protocol(self) -> str:
        return self._values.get(self._first(_PROTOCOLS), "").lower()

    def _reads_parent(self) -> bool:
        if "OTEL_PROPAGATORS" not in self._values:
            return True
        names = self._names("OTEL_PROPAGATORS")
        if unknown := sorted({*names} - {"tracecontext", "baggage", "none"}):
            self.warnings.append(f"OTEL_PROPAGATORS: expected tracecontext, baggage or none, got {', '.join(unknown)}")
        return "tracecontext" in names

    def _ratio(self) -> float:
        with suppress(ValueError):
            ratio = float(self._values.get("OTEL_TRACES_SAMPLER_ARG", "1"))
            if 0.0 <= ratio <= 1.0:
                return ratio
        self.warnings.append("OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1; using 1")
        return 1.0

    def _first(self, variables: Sequence[str]) -> str:
        return next((name for name in variables if name in self._values), "")

    def _names(self, variable: str) -> list[str]:
        return [name.strip().lower() for name in self._values.get(variable, "").split(",") if name.strip()]


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
