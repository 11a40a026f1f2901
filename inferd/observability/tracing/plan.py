"""Whether and how to trace, by the settings and by OpenTelemetry's variables. Pure.

Who sends, to whom and with what is read by OpenTelemetry itself. Here is read what its tracers and its batch processor
would read, which are not used, and what nobody here heeds is told of.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from inferd.config.tracing import TracingSettings

#: By the names of OpenTelemetry: the share of the calls that is traced, None for that of the argument, and whether the
#: caller's decision goes before it.
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

#: What is often set for all programs of a machine, whether they trace or not.
_EVERYWHERE = frozenset(
    ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "OTEL_PROPAGATORS")
)

_MOST_DIGITS = 7

_HEEDED = frozenset(
    (
        *_ENDPOINTS,
        *_PROTOCOLS,
        *_EVERYWHERE,
        *("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"),
        *("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
        *(
            f"OTEL_EXPORTER_OTLP_{signal}{name}"
            for signal in ("", "TRACES_")
            for name in ("HEADERS", "TIMEOUT", "COMPRESSION", "CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
        ),
    )
)

#: What to do instead of setting what is not heeded.
_INSTEAD = {
    "OTEL_BSP_EXPORT_TIMEOUT": "set OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_INSECURE": "the endpoint's http:// or https:// says it",
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE": "the endpoint's http:// or https:// says it",
    "OTEL_METRICS_EXPORTER": "have /metrics scraped",
    "OTEL_LOGS_EXPORTER": "have standard output collected",
    "OTEL_LOG_LEVEL": "set log.levels",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Which calls are traced: of those without a traceparent the share ``ratio``.

    Of the others those that their callers trace, if ``by_parent``, or else the same share by their trace ids.
    Without ``reads_parent`` there are no others.
    """

    ratio: float
    by_parent: bool = True
    reads_parent: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class TracingPlan:
    """How to trace, if ``is_on``. ``asked_by`` is the setting or the variable that asks for it.

    ``endpoint`` is None where OpenTelemetry reads it. ``max_waiting`` spans wait, and every ``period_s`` they are sent,
    at most ``max_export`` at a time. ``warnings`` are for the log.
    """

    is_on: bool
    asked_by: str = ""
    endpoint: str | None = None
    sampling: Sampling = Sampling(ratio=0.0)
    period_s: float = 1.0
    max_waiting: int = 4096
    max_export: int = 512
    warnings: tuple[str, ...] = ()


def plan_tracing(settings: TracingSettings, environment: Mapping[str, str]) -> TracingPlan:
    """Decide by the settings, and where they say nothing by the environment."""
    found = _Variables(environment)
    asked_by = "tracing.endpoint" if settings.endpoint is not None else found.asked_by()
    off_by = found.off_by()
    if off_by:
        why = (f"nothing is traced, although {asked_by} is set, because of {off_by}",) if asked_by else ()
        return TracingPlan(is_on=False, warnings=why)
    if settings.endpoint is not None:
        found.expect_protocol("spans go to tracing.endpoint by http/protobuf")
    found.tell_unheeded()
    if not asked_by:
        found.tell_idle()
        return TracingPlan(is_on=False, warnings=tuple(found.warnings))
    max_waiting = found.whole("OTEL_BSP_MAX_QUEUE_SIZE", 4096)
    return TracingPlan(
        is_on=True,
        asked_by=asked_by,
        endpoint=settings.endpoint,
        sampling=found.sampling(settings),
        period_s=found.whole("OTEL_BSP_SCHEDULE_DELAY", 1000) / 1000,
        max_waiting=max_waiting,
        max_export=min(found.whole("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512), max_waiting),
        warnings=tuple(found.warnings),
    )


class _Variables:
    """OpenTelemetry's variables, of which those that are empty are not set, and ``warnings`` of what they say."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._given = {
            name: value.strip() for name, value in environment.items() if name.startswith("OTEL_") and value.strip()
        }
        self.warnings: list[str] = []

    def off_by(self) -> str:
        """Return what turns traces off, whoever asks for them; empty if nothing does."""
        if self._given.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return "OTEL_SDK_DISABLED"
        return "OTEL_TRACES_EXPORTER=none" if self._names("OTEL_TRACES_EXPORTER") == ["none"] else ""

    def asked_by(self) -> str:
        """Return which variable asks for traces; empty if none does, or for none that can be sent."""
        exporters = self._names("OTEL_TRACES_EXPORTER")
        if unknown := sorted({*exporters} - {"otlp", "none"}):
            self.warnings.append(f"OTEL_TRACES_EXPORTER: expected otlp or none, got {', '.join(unknown)}")
            if "otlp" not in exporters:
                return ""
        endpoint = self._first(_ENDPOINTS)
        asked_by = endpoint or ("OTEL_TRACES_EXPORTER" if "otlp" in exporters else "")
        if not asked_by:
            return ""
        if self._protocol() == "grpc":
            self.warnings.append(
                f"nothing is traced, although {asked_by} is set: set {self._first(_PROTOCOLS)} to http/protobuf, and "
                "the endpoint to the receiver's port for HTTP, which is 4318 by default"
            )
            return ""
        self.expect_protocol("spans are sent by http/protobuf")
        if endpoint and not _is_url(self._given[endpoint]):
            # Not what came: it may hold a password.
            self.warnings.append(f"nothing is traced: {endpoint}: expected http://HOST:PORT or https://HOST:PORT")
            return ""
        return asked_by

    def expect_protocol(self, instead: str) -> None:
        """Tell what is done ``instead`` of a protocol that is not known here."""
        if self._protocol() not in ("", "http/protobuf"):
            self.warnings.append(f"{self._first(_PROTOCOLS)} is not heeded: {instead}")

    def sampling(self, settings: TracingSettings) -> Sampling:
        """Return which calls are traced: as the settings say, if they do."""
        reads_parent = self._reads_parent()
        name = self._given.get("OTEL_TRACES_SAMPLER", "").lower()
        if name and "sampling_ratio" in settings.model_fields_set:
            self.warnings.append("OTEL_TRACES_SAMPLER is not heeded: tracing.sampling_ratio is set")
        elif name in _SAMPLERS:
            ratio, by_parent = _SAMPLERS[name]
            return Sampling(
                ratio=self._ratio() if ratio is None else ratio, by_parent=by_parent, reads_parent=reads_parent
            )
        elif name:
            self.warnings.append(f"OTEL_TRACES_SAMPLER is not heeded: expected {', '.join(_SAMPLERS)}")
        elif "OTEL_TRACES_SAMPLER_ARG" in self._given:
            self.warnings.append("OTEL_TRACES_SAMPLER_ARG is not heeded without OTEL_TRACES_SAMPLER")
        return Sampling(ratio=settings.sampling_ratio, reads_parent=reads_parent)

    def whole(self, name: str, default: int) -> int:
        """Return a number that is at least 1."""
        text = self._given.get(name, str(default))
        if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS and int(text):
            return int(text)
        self.warnings.append(
            f"{name}: expected a whole number from 1 to {10**_MOST_DIGITS - 1}, it is {default} instead"
        )
        return default

    def tell_unheeded(self) -> None:
        """Warn of what is not read by anybody here."""
        left = {name for name, value in self._given.items() if name not in _HEEDED and value.lower() != "none"}
        self.warnings += [f"{name} is not heeded: {_INSTEAD[name]}" for name in sorted(left & _INSTEAD.keys())]
        if others := sorted(left - _INSTEAD.keys()):
            self.warnings.append(f"not heeded of OpenTelemetry's variables: {', '.join(others)}")

    def tell_idle(self) -> None:
        """Warn of what only says how to trace, where nothing asks for traces and nothing has been said of that."""
        idle = sorted(self._given.keys() & _HEEDED - {*_ENDPOINTS, "OTEL_SDK_DISABLED", *_EVERYWHERE})
        if idle and not self.warnings:
            self.warnings.append(
                f"nothing is traced, although there is {', '.join(idle)}: set tracing.endpoint or {_ENDPOINTS[1]}"
            )

    def _protocol(self) -> str:
        return self._given.get(self._first(_PROTOCOLS), "").lower()

    def _reads_parent(self) -> bool:
        if "OTEL_PROPAGATORS" not in self._given:
            return True
        names = self._names("OTEL_PROPAGATORS")
        if unknown := sorted({*names} - {"tracecontext", "baggage", "none"}):
            self.warnings.append(f"OTEL_PROPAGATORS: expected tracecontext, baggage or none, got {', '.join(unknown)}")
        return "tracecontext" in names

    def _ratio(self) -> float:
        with suppress(ValueError):
            ratio = float(self._given.get("OTEL_TRACES_SAMPLER_ARG", "1"))
            if 0.0 <= ratio <= 1.0:
                return ratio
        self.warnings.append("OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1, it is 1 instead")
        return 1.0

    def _first(self, variables: Sequence[str]) -> str:
        return next((name for name in variables if name in self._given), "")

    def _names(self, variable: str) -> list[str]:
        return [name.strip().lower() for name in self._given.get(variable, "").split(",") if name.strip()]


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
