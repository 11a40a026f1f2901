"""Metrics as a scrape shows them."""

import re
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from inferd.observability.metrics.gpu import GpuSample
from inferd.observability.metrics.models import BatchReport, RunOutcome
from inferd.observability.metrics.registry import Metrics, MetricSources, ModelSample, new_registry
from inferd.observability.metrics.run_cost import PredictedRun, RunCost
from inferd.observability.recorder import CallRecorder
from inferd.observability.timing import STAGES
from tests.unit.call_context import call_context
from tests.unit.observability.fakes import INFER, FakeCall

NAMES = {
    *("inferd_requests_total", "inferd_request_duration_seconds", "inferd_queue_duration_seconds"),
    *("inferd_inference_duration_seconds", "inferd_batch_rows", "inferd_queue_rows", "inferd_queue_bytes"),
    *("inferd_rejected_total", "inferd_inflight_requests", "inferd_model_state", "inferd_batch_failures_total"),
    *("inferd_caller_runs_total", "inferd_offered_rows_total", "inferd_poll_lag_seconds"),
    *("inferd_stage_duration_seconds", "inferd_queue_limit_rows", "inferd_model_instances"),
    *("inferd_runs_terminated_total", "inferd_stuck_threads"),
    *("inferd_message_bytes", "inferd_request_memory_bytes", "inferd_request_memory_limit_bytes"),
    "inferd_calls_refused_total",
    *("inferd_model_memory_bytes", "inferd_gpu_utilization_ratio", "inferd_gpu_memory_used_bytes"),
    *("inferd_gpu_memory_total_bytes", "inferd_access_log_dropped_total", "inferd_spans_dropped_total"),
    *("inferd_certificate_expiry_timestamp_seconds", "inferd_certificate_lifetime_seconds"),
    *("inferd_file_reload_failures_total", "inferd_batch_checks_total", "inferd_batch_check_seconds_total"),
    "inferd_batch_mismatches_total",
    *("inferd_predicted_run_seconds", "inferd_predicted_run_p95_seconds", "inferd_run_prediction_error_ratio"),
    *("inferd_model_capacity_rows_per_second", "inferd_quota_rejected_total", "inferd_jwks_age_seconds"),
}

REPORT = BatchReport(
    rows=3,
    decode_s=[0.001, 0.003],
    queue_s=[0.002, 0.2],
    stack_s=0.1,
    run_s=0.03,
    split_s=0.1,
    outcome=RunOutcome.COMPLETED,
    answered=2,
)
FAILED = replace(REPORT, stack_s=0.0, split_s=0.0, outcome=RunOutcome.FAILED, answered=0)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry(auto_describe=False)


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry, CallRecorder(), methods=[INFER])


COST = RunCost(
    sizes=(PredictedRun(1, 0.001, 0.002), PredictedRun(2, 0.0015, 0.003), PredictedRun(4, 0.002, 0.004)),
    error=0.125,
    runs=100,
)


def sources(*models: ModelSample) -> MetricSources:
    gpu = GpuSample(index="0", uuid="GPU-1", utilization=0.25, used_bytes=10, total_bytes=40)
    return MetricSources(
        models=lambda: models,
        run_costs=lambda: {("digits", "1"): COST},
        inflight_requests=lambda: 4,
        server_usage=lambda: SimpleNamespace(
            held_bytes=100, taken_bytes=250, budget_bytes=1000, rejected={"MEMORY_BUDGET": 3, "NO_THREAD": 0}
        ),
        poll_lag_s=lambda: 0.5,
        log_lines_dropped=lambda: 6,
        certificate_expiry=lambda: {"certificate": 2e9, "client_ca": 3e9},
        certificate_lifetimes_s=lambda: {"certificate": 3600.0, "client_ca": 86400.0},
        file_reload_failures=lambda: {"tls": 1, "tokens": 0},
        spans_dropped=lambda: 7,
        quota_rejections=lambda: {"requests_per_s": 2, "rows_per_s": 0},
        jwks_age_s=lambda: 12.5,
        gpus=lambda: [gpu, replace(gpu, index="1", uuid="GPU-2", utilization=None)],
    )


READY = ModelSample(
    model="digits",
    version="1",
    state="ready",
    queue_rows=7,
    queue_limit_rows=70,
    queue_bytes=800,
    instances=2,
    capacity_rows_per_s=450.5,
    memory_bytes=9000,
)


def use_everything(metrics: Metrics) -> None:
    """Bring a sample into every family."""
    stats = metrics.stats_for("digits", "1")
    stats.failed(0.0, "QUEUE_FULL")
    stats.batch_done(REPORT)
    finish(metrics)
    metrics.set_sources(sources(READY))


def finish(metrics: Metrics, code: grpc.StatusCode = grpc.StatusCode.OK, **call: object) -> None:
    metrics.requests.count([FakeCall(ended_at=100.03, **call).ended(code)])


def test_names(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Parsed from the exposition; dashboards and autoscalers depend on them."""
    use_everything(metrics)
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    assert names == NAMES
    assert all(family.documentation and family.samples for family in families)


def test_openmetrics_is_well_formed(metrics: Metrics, registry: CollectorRegistry) -> None:
    """According to its own, stricter parser."""
    use_everything(metrics)
    families = list(parse_openmetrics(openmetrics.generate_latest(registry).decode()))
    assert {family.name.removesuffix("_total") for family in families} == {n.removesuffix("_total") for n in NAMES}


def test_docs_describe_every_metric() -> None:
    """docs/metrics.md names these metrics and no others."""
    page = (Path(__file__).parents[4] / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(inferd_\w+)`", page, re.MULTILINE)) == NAMES


def test_counts_batch_checks(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Number, duration and mismatches; zero before the first, so that rates see it."""
    stats, labels = metrics.stats_for("digits", "1"), {"model": "digits", "version": "1"}
    assert registry.get_sample_value("inferd_batch_mismatches_total", labels) == 0
    stats.run_ended("time_limit")
    stats.checked(0.25, mismatch=False)
    stats.checked(0.5, mismatch=True)
    assert registry.get_sample_value("inferd_batch_checks_total", labels) == 2
    ended = {**labels, "reason": "time_limit"}
    assert registry.get_sample_value("inferd_runs_terminated_total", ended) == 1
    assert registry.get_sample_value("inferd_batch_check_seconds_total", labels) == 0.75
    assert registry.get_sample_value("inferd_batch_mismatches_total", labels) == 1


def test_gauges_are_read_at_the_scrape(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Never updated in between."""
    metrics.set_sources(sources(READY))
    labels = {"model": "digits", "version": "1"}
    assert registry.get_sample_value("inferd_queue_rows", labels) == 7
    assert registry.get_sample_value("inferd_queue_limit_rows", labels) == 70
    assert registry.get_sample_value("inferd_queue_bytes", labels) == 800
    assert registry.get_sample_value("inferd_model_instances", labels) == 2
    assert registry.get_sample_value("inferd_model_capacity_rows_per_second", labels) == 450.5
    assert registry.get_sample_value("inferd_model_memory_bytes", labels) == 9000
    assert registry.get_sample_value("inferd_inflight_requests") == 4
    assert registry.get_sample_value("inferd_poll_lag_seconds") == 0.5
    assert registry.get_sample_value("inferd_access_log_dropped_total") == 6
    assert registry.get_sample_value("inferd_spans_dropped_total") == 7


def test_predicted_run_times(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Of one row and of the largest batch, which may be the same; no error before it is known."""
    labels = {"model": "digits", "version": "1"}

    def read(suffix: str = "") -> dict[str, float | None]:
        name = f"inferd_predicted_run{suffix}_seconds"
        values = {rows: registry.get_sample_value(name, {**labels, "rows": rows}) for rows in ("1", "2", "4")}
        return {rows: value for rows, value in values.items() if value is not None}

    metrics.set_sources(sources(READY))
    assert read() == {"1": 0.001, "4": 0.002}
    assert read("_p95") == {"1": 0.002, "4": 0.004}
    assert registry.get_sample_value("inferd_run_prediction_error_ratio", labels) == 0.125
    alone = RunCost(sizes=COST.sizes[:1], error=None, runs=0)
    metrics.set_sources(replace(sources(READY), run_costs=lambda: {("digits", "1"): alone}))
    assert read() == {"1": 0.001}
    assert registry.get_sample_value("inferd_run_prediction_error_ratio", labels) is None


def test_gpu_metrics(metrics: Metrics, registry: CollectorRegistry) -> None:
    """No utilization sample for a device that does not report it; no family without GPUs."""
    metrics.set_sources(sources(READY))
    first, second = {"gpu": "0", "uuid": "GPU-1"}, {"gpu": "1", "uuid": "GPU-2"}
    assert registry.get_sample_value("inferd_gpu_utilization_ratio", first) == 0.25
    assert registry.get_sample_value("inferd_gpu_utilization_ratio", second) is None
    assert registry.get_sample_value("inferd_gpu_memory_used_bytes", second) == 10
    assert registry.get_sample_value("inferd_gpu_memory_total_bytes", second) == 40
    metrics.set_sources(replace(sources(READY), gpus=tuple))
    assert "inferd_gpu" not in generate_latest(registry).decode()


def test_model_state_has_a_series_for_each_state(metrics: Metrics, registry: CollectorRegistry) -> None:
    """A change shows as 1 to 0 and not as a gap."""
    metrics.set_sources(sources(READY))
    states = {
        state: registry.get_sample_value("inferd_model_state", {"model": "digits", "version": "1", "state": state})
        for state in ("loading", "ready", "failed", "unloading")
    }
    assert states == {"loading": 0.0, "ready": 1.0, "failed": 0.0, "unloading": 0.0}


def test_scrape_before_start(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Without gauges."""
    assert "inferd_queue_rows" not in generate_latest(registry).decode()


def test_counts_and_times_requests(metrics: Metrics, registry: CollectorRegistry) -> None:
    """One call, one count, in the series of its status."""
    metrics.stats_for("digits", "1")
    finish(metrics, context=call_context(model="digits", version="1"))
    finish(metrics, context=call_context(model="digits", version="1"))
    finish(metrics, grpc.StatusCode.RESOURCE_EXHAUSTED, context=call_context(model="digits", version="1"))
    labels = {"model": "digits", "version": "1", "method": "inferd.v1.InferenceService/Infer", "code": "OK"}
    assert registry.get_sample_value("inferd_requests_total", labels) == 2
    assert registry.get_sample_value("inferd_requests_total", {**labels, "code": "RESOURCE_EXHAUSTED"}) == 1
    name = "inferd_request_duration_seconds"
    assert registry.get_sample_value(f"{name}_count", labels) == 2
    assert registry.get_sample_value(f"{name}_sum", labels) == pytest.approx(0.06)
    assert registry.get_sample_value(f"{name}_bucket", {**labels, "le": "0.025"}) == 0
    assert registry.get_sample_value(f"{name}_bucket", {**labels, "le": "0.05"}) == 2


def test_exemplars_of_sampled_calls_in_openmetrics_only(registry: CollectorRegistry) -> None:
    """The older format has none."""
    metrics = Metrics(registry, CallRecorder(), methods=[INFER])
    metrics.requests._wall_clock = lambda: 1700000000.5
    finish(metrics, annotations={"trace_id": "0af7651916cd43dd8448eb211c80319c"})
    finish(metrics)
    labels = {"model": "", "version": "", "method": INFER[1:], "code": "OK"}
    (family,) = (
        family
        for family in parse_openmetrics(openmetrics.generate_latest(registry).decode())
        if family.name == "inferd_request_duration_seconds"
    )
    examples = {sample.labels["le"]: sample.exemplar for sample in family.samples if sample.exemplar}
    assert set(examples) == {"0.05"}
    assert examples["0.05"].labels == {"trace_id": "0af7651916cd43dd8448eb211c80319c"}
    assert examples["0.05"].value == pytest.approx(0.03)
    assert float(examples["0.05"].timestamp) == 1700000000.5
    assert "0af7651916" not in generate_latest(registry).decode()
    assert registry.get_sample_value("inferd_requests_total", labels) == 2


def test_callers_cannot_create_series(metrics: Metrics) -> None:
    """All unknown names share one series."""
    metrics.stats_for("digits", "1")
    for number in range(1000):
        finish(metrics, context=call_context(model=f"m{number}", version="1"))
        finish(metrics, context=call_context(model="digits", version=f"{number + 2}"))
        finish(metrics, context=call_context(version=f"{number}"))
        finish(metrics, method=f"/x/{number}")
    series = metrics.requests.read()
    assert {(labels.model, labels.version, labels.method): durations.count for labels, durations in series.items()} == {
        ("unknown", "", INFER[1:]): 3000,
        ("", "", "unknown"): 1000,
    }
    assert metrics.requests._known == {}


def test_added_model_has_its_own_series(metrics: Metrics) -> None:
    """Although earlier calls were counted as unknown."""
    call = {"context": call_context(model="digits", version="1")}
    finish(metrics, **call)
    metrics.stats_for("digits", "1")
    finish(metrics, **call)
    assert {labels.model: series.count for labels, series in metrics.requests.read().items()} == {
        "unknown": 1,
        "digits": 1,
    }


def test_counts_batches(metrics: Metrics, registry: CollectorRegistry) -> None:
    """A report counts the batch once, and the queue time of each request."""
    stats = metrics.stats_for("digits", "1")
    stats.batch_done(REPORT)
    labels = {"model": "digits", "version": "1"}
    assert registry.get_sample_value("inferd_batch_rows_count", labels) == 1
    assert registry.get_sample_value("inferd_batch_rows_bucket", {**labels, "le": "2.0"}) == 0
    assert registry.get_sample_value("inferd_batch_rows_bucket", {**labels, "le": "4.0"}) == 1
    assert registry.get_sample_value("inferd_queue_duration_seconds_count", labels) == 2
    assert registry.get_sample_value("inferd_queue_duration_seconds_sum", labels) == pytest.approx(0.202)
    assert registry.get_sample_value("inferd_inference_duration_seconds_sum", labels) == pytest.approx(0.03)
    assert registry.get_sample_value("inferd_batch_failures_total", labels) == 0


def test_version_without_runs_has_half_the_series(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Stage series start with the first run; those that rules use start at 0."""

    def names() -> Counter[str]:
        return Counter(
            sample.name
            for family in registry.collect()
            for sample in family.samples
            if sample.labels.get("model") == "digits"
        )

    stats = metrics.stats_for("digits", "1")
    stats.offered(1)
    stats.failed(0.0, "QUEUE_FULL")
    before = names()
    stats.batch_done(REPORT)
    after = names()
    assert set(after - before) == {f"inferd_stage_duration_seconds_{suffix}" for suffix in ("bucket", "count", "sum")}
    assert sum(before.values()) < 0.55 * sum(after.values())
    assert {"inferd_queue_duration_seconds_count", "inferd_batch_rows_sum", "inferd_rejected_total"} <= set(before)


def test_stage_durations(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Per request for decode and queue, per batch for the rest; a failed run has no stack time."""
    stats = metrics.stats_for("digits", "1")
    stats.batch_done(REPORT)
    stats.answered(0.004)
    stats.batch_done(FAILED)

    def stage(name: str, suffix: str) -> float | None:
        labels = {"model": "digits", "version": "1", "stage": name}
        return registry.get_sample_value(f"inferd_stage_duration_seconds_{suffix}", labels)

    counts = {name: stage(name, "count") for name in STAGES}
    assert counts == {"decode": 4, "queue": 4, "stack": 1, "run": 2, "encode": 1}
    sums = {name: stage(name, "sum") for name in STAGES}
    assert sums == pytest.approx({"decode": 0.008, "queue": 0.404, "stack": 0.1, "run": 0.06, "encode": 0.004})


def test_counts_rejections_and_failures(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Offered rows include rejected ones; rejections count requests; both by version."""
    for version in ("1", "2"):
        stats = metrics.stats_for("digits", version)
        stats.offered(5)
        stats.failed(0.0, "SHED")
    stats.failed(0.0, "SHED")
    stats.caller_ran()
    stats.batch_done(FAILED)
    labels = {"model": "digits", "version": "2"}
    assert registry.get_sample_value("inferd_offered_rows_total", labels) == 5
    assert registry.get_sample_value("inferd_rejected_total", {**labels, "reason": "SHED"}) == 2
    assert registry.get_sample_value("inferd_rejected_total", {**labels, "version": "1", "reason": "SHED"}) == 1
    assert registry.get_sample_value("inferd_caller_runs_total", labels) == 1
    assert registry.get_sample_value("inferd_batch_failures_total", labels) == 1


def test_reloaded_model_continues_its_counters(metrics: Metrics) -> None:
    """Counters never decrease while the process lives."""
    assert metrics.stats_for("digits", "1") is metrics.stats_for("digits", "1")


def test_concurrent_counts_are_exact(registry: CollectorRegistry) -> None:
    """Calls and batches end on any thread while scrapes read."""
    recorder = CallRecorder()
    metrics = Metrics(registry, recorder, methods=[INFER])
    stats = metrics.stats_for("digits", "1")
    start = threading.Barrier(5)

    def work() -> None:
        start.wait()
        for _ in range(2000):
            stats.offered(1)
            stats.batch_done(REPORT)
            recorder.finished(FakeCall(context=call_context(model="digits", version="1")), grpc.StatusCode.OK, "")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        counts = stats.read()
        assert counts.queue_s.count == 2 * counts.batch_rows.count
        metrics.requests.read()
    for thread in threads:
        thread.join()
    counts = stats.read()
    assert (counts.offered_rows, counts.run_s.count) == (8000, 8000)
    assert sum(series.count for series in metrics.requests.read().values()) == 8000


def test_process_metrics() -> None:
    """Memory and open files, which every dashboard shows."""
    registry = new_registry()
    assert (registry.get_sample_value("process_resident_memory_bytes") or 0) > 0
    assert (registry.get_sample_value("process_open_fds") or 0) > 0


def test_certificates_and_file_reloads(metrics: Metrics, registry: CollectorRegistry) -> None:
    """By purpose; files that never failed are at 0, so that an increase shows."""
    metrics.set_sources(sources())
    assert registry.get_sample_value("inferd_certificate_expiry_timestamp_seconds", {"file": "client_ca"}) == 3e9
    assert registry.get_sample_value("inferd_certificate_lifetime_seconds", {"file": "certificate"}) == 3600
    assert registry.get_sample_value("inferd_file_reload_failures_total", {"file": "tls"}) == 1
    assert registry.get_sample_value("inferd_file_reload_failures_total", {"file": "tokens"}) == 0


def test_quota_rejections_and_age_of_keys(registry: CollectorRegistry, metrics: Metrics) -> None:
    """By limit, separate from the queue's; an age only if keys are fetched."""
    metrics.set_sources(sources())
    assert registry.get_sample_value("inferd_quota_rejected_total", {"reason": "requests_per_s"}) == 2
    assert registry.get_sample_value("inferd_jwks_age_seconds") == 12.5
    metrics.set_sources(replace(sources(), jwks_age_s=lambda: None))
    assert registry.get_sample_value("inferd_jwks_age_seconds") is None
