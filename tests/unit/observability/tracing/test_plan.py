"""Whether to trace, from settings and OpenTelemetry's variables."""

import pytest

from inferd.config.tracing import TracingSettings
from inferd.observability.tracing.plan import Sampling, TracingPlan, plan_tracing

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
SAMPLER = "OTEL_TRACES_SAMPLER"
ARG = "OTEL_TRACES_SAMPLER_ARG"
URL = "http://collector:4318"
SET = TracingSettings(endpoint=URL)


def plan(settings: TracingSettings | None = None, **environment: str) -> TracingPlan:
    return plan_tracing(settings or TracingSettings(), environment)


def traced(**environment: str) -> TracingPlan:
    """Return the plan where the environment asks for traces."""
    return plan(None, **{ENDPOINT: URL, **environment})


@pytest.mark.parametrize(
    ("settings", "environment", "requested_by"),
    [
        (None, {}, ""),
        (SET, {}, "tracing.endpoint"),
        (SET, {ENDPOINT: "http://other"}, "tracing.endpoint"),
        (None, {ENDPOINT: URL}, ENDPOINT),
        (None, {TRACES_ENDPOINT: URL}, TRACES_ENDPOINT),
        (None, {"OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
        (None, {ENDPOINT: URL, "OTEL_TRACES_EXPORTER": "otlp"}, ENDPOINT),
        (None, {ENDPOINT: URL, PROTOCOL: "http/protobuf"}, ENDPOINT),
        (None, {ENDPOINT: URL, PROTOCOL: "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, ENDPOINT),
        (None, {ENDPOINT: " "}, ""),
        (None, {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": ""}, ""),
        (SET, {"OTEL_SDK_DISABLED": "false"}, "tracing.endpoint"),
        (None, {"OTEL_SDK_DISABLED": "true"}, ""),
        (None, {"OTEL_TRACES_EXPORTER": "none"}, ""),
        (None, {"OTEL_SERVICE_NAME": "a", "OTEL_RESOURCE_ATTRIBUTES": "b=c", "OTEL_PROPAGATORS": "b3"}, ""),
    ],
)
def test_requests_for_tracing(settings: TracingSettings | None, environment: dict[str, str], requested_by: str) -> None:
    """An endpoint in the settings or the environment, without warnings."""
    found = plan(settings, **environment)
    assert (found.requested_by, found.is_on, found.warnings) == (requested_by, bool(requested_by), ())
    assert found.endpoint == (SET.endpoint if settings else None)


@pytest.mark.parametrize("switch", [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")])
def test_environment_disables_tracing(switch: tuple[str, str]) -> None:
    """With a warning."""
    for settings, environment, requested_by in ((SET, {}, "tracing.endpoint"), (None, {ENDPOINT: URL}, ENDPOINT)):
        found = plan(settings, **environment, **dict([switch]), OTEL_BSP_EXPORT_TIMEOUT="1")
        assert not found.is_on
        (warning,) = found.warnings
        assert f"although {requested_by} is set, because of {switch[0]}" in warning


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({ENDPOINT: URL, PROTOCOL: "grpc"}, (PROTOCOL, "http/protobuf", "4318", ENDPOINT)),
        ({"OTEL_TRACES_EXPORTER": "otlp", PROTOCOL: "grpc"}, (PROTOCOL, "OTEL_TRACES_EXPORTER")),
        ({ENDPOINT: "collector:4318"}, (ENDPOINT, "expected http://HOST:PORT")),
        ({TRACES_ENDPOINT: "http://[planted"}, (TRACES_ENDPOINT, "expected http://HOST:PORT")),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, ("OTEL_TRACES_EXPORTER", "otlp or none, got zipkin")),
        ({ENDPOINT: URL, "OTEL_TRACES_EXPORTER": "console"}, ("OTEL_TRACES_EXPORTER", "got console")),
        ({SAMPLER: "always_on"}, (SAMPLER, "set tracing.endpoint or OTEL_EXPORTER_OTLP_ENDPOINT")),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "planted"}, ("OTEL_EXPORTER_OTLP_HEADERS", "set tracing.endpoint")),
    ],
)
def test_warns_about_unsupported_export(environment: dict[str, str], told: tuple[str, ...]) -> None:
    """With variable and remedy, without values that may hold a credential."""
    found = plan(None, **environment)
    assert not found.is_on
    text = " ".join(found.warnings)
    assert [word for word in told if word not in text] == []
    assert "planted" not in text


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({PROTOCOL: "http/json"}, f"{PROTOCOL} is ignored: spans are sent by http/protobuf"),
        ({"OTEL_TRACES_EXPORTER": "otlp,console"}, "OTEL_TRACES_EXPORTER: expected otlp or none, got console"),
        ({SAMPLER: "jaeger_remote"}, "OTEL_TRACES_SAMPLER is ignored: expected always_on, always_off, "),
        ({ARG: "0.5"}, "OTEL_TRACES_SAMPLER_ARG is ignored without OTEL_TRACES_SAMPLER"),
        ({"OTEL_PROPAGATORS": "tracecontext,b3"}, "OTEL_PROPAGATORS: expected tracecontext, baggage or none, got b3"),
        ({"OTEL_BSP_EXPORT_TIMEOUT": "1"}, "OTEL_BSP_EXPORT_TIMEOUT is ignored: set OTEL_EXPORTER_OTLP_TIMEOUT"),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, "OTEL_METRICS_EXPORTER is ignored: have /metrics scraped"),
        ({"OTEL_LOGS_EXPORTER": "otlp"}, "OTEL_LOGS_EXPORTER is ignored: have standard output collected"),
        ({"OTEL_X": "1", "OTEL_A": "1"}, "ignored variables of OpenTelemetry: OTEL_A, OTEL_X"),
    ],
)
def test_warns_about_ignored_variables(environment: dict[str, str], told: str) -> None:
    """Tracing is on nevertheless."""
    found = traced(**environment)
    assert found.is_on
    (warning,) = found.warnings
    assert warning.startswith(told)


def test_warns_about_ignored_variables_without_tracing() -> None:
    """An operator who sets them expects an effect."""
    assert plan(None, OTEL_METRICS_EXPORTER="otlp", OTEL_LOGS_EXPORTER="none").warnings == (
        "OTEL_METRICS_EXPORTER is ignored: have /metrics scraped",
    )


@pytest.mark.parametrize(
    ("environment", "sampling"),
    [
        ({}, Sampling(ratio=0.01)),
        ({SAMPLER: "always_on"}, Sampling(ratio=1.0, by_parent=False)),
        ({SAMPLER: "always_off"}, Sampling(ratio=0.0, by_parent=False)),
        ({SAMPLER: "traceidratio", ARG: "0.25"}, Sampling(ratio=0.25, by_parent=False)),
        ({SAMPLER: "traceidratio"}, Sampling(ratio=1.0, by_parent=False)),
        ({SAMPLER: "ParentBased_Always_On"}, Sampling(ratio=1.0)),
        ({SAMPLER: "parentbased_always_off"}, Sampling(ratio=0.0)),
        ({SAMPLER: "parentbased_traceidratio", ARG: "0.5"}, Sampling(ratio=0.5)),
        ({SAMPLER: "always_on", ARG: "0.5"}, Sampling(ratio=1.0, by_parent=False)),
        ({"OTEL_PROPAGATORS": "baggage"}, Sampling(ratio=0.01, reads_parent=False)),
        ({"OTEL_PROPAGATORS": "none"}, Sampling(ratio=0.01, reads_parent=False)),
        ({"OTEL_PROPAGATORS": "tracecontext,baggage"}, Sampling(ratio=0.01)),
    ],
)
def test_samplers_of_the_environment(environment: dict[str, str], sampling: Sampling) -> None:
    """All that OpenTelemetry defines, with its defaults."""
    found = traced(**environment)
    assert (found.sampling, found.warnings) == (sampling, ())


@pytest.mark.parametrize("arg", ["1.5", "-0.1", "half", "nan", "inf"])
def test_invalid_sampler_argument(arg: str) -> None:
    """All calls are traced, as OpenTelemetry specifies, with a warning."""
    found = traced(**{SAMPLER: "traceidratio", ARG: arg})
    assert found.sampling.ratio == 1.0
    assert found.warnings == ("OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1; using 1",)


def test_settings_take_precedence() -> None:
    """With a warning about the variable."""
    found = plan(TracingSettings(endpoint=URL, sampling_ratio=0.2), **{SAMPLER: "always_on", PROTOCOL: "grpc"})
    assert found.sampling == Sampling(ratio=0.2)
    assert found.warnings == (
        f"{PROTOCOL} is ignored: spans go to tracing.endpoint by http/protobuf",
        "OTEL_TRACES_SAMPLER is ignored: tracing.sampling_ratio is set",
    )


def test_batch_sizes_and_period() -> None:
    """As for OpenTelemetry's own batches; an export is at most as large as the queue."""
    found = traced(OTEL_BSP_SCHEDULE_DELAY="250", OTEL_BSP_MAX_QUEUE_SIZE="100", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="200")
    assert (found.period_s, found.max_queued, found.max_export, found.warnings) == (0.25, 100, 100, ())
    for bad in ("0", "-1", "1.5", "x", "9" * 5000):
        found = traced(OTEL_BSP_MAX_QUEUE_SIZE=bad)
        assert found.max_queued == 4096
        (warning,) = found.warnings
        assert warning.startswith("OTEL_BSP_MAX_QUEUE_SIZE: expected a whole number")
