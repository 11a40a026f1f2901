"""What is counted and measured of calls and batches, as a scrape shows it."""

import threading
from collections import Counter

import grpc
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from inferd.observability.metrics.histogram import DURATION_BOUNDS_S
from inferd.observability.metrics.registry import Metrics
from inferd.observability.recorder import CallRecorder
from inferd.observability.timing import STAGES
from tests.unit.call_context import call_context
from tests.unit.observability.fakes import INFER, FakeCall
from tests.unit.observability.metrics.samples import FAILED, REPORT, finish


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


def test_counts_runs_without_memory_and_sessions_opened_again(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Both outcomes are there from the start."""
    stats, labels = metrics.stats_for("digits", "1"), {"model": "digits", "version": "1"}
    opened = [("inferd_session_reopens_total", {**labels, "outcome": outcome}) for outcome in ("ok", "failed")]
    assert [registry.get_sample_value(*each) for each in opened] == [0, 0]
    stats.out_of_memory()
    stats.reopened(worked=False)
    stats.reopened(worked=False)
    stats.reopened(worked=True)
    assert registry.get_sample_value("inferd_out_of_memory_runs_total", labels) == 1
    assert [registry.get_sample_value(*each) for each in opened] == [1, 2]


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


def test_answered_calls_by_duration_over_all_methods_asked_for(metrics: Metrics) -> None:
    """Other methods and calls that failed are left out."""
    metrics.stats_for("digits", "1")
    context = call_context(model="digits", version="1")
    finish(metrics, context=context)
    finish(metrics, context=context)
    finish(metrics, grpc.StatusCode.RESOURCE_EXHAUSTED, context=context)
    assert metrics.requests.answered({"other/Method"}) == {}
    counts = metrics.requests.answered({INFER[1:]})["digits", "1"]
    assert sum(counts) == counts[DURATION_BOUNDS_S.index(0.05)] == 2


def test_activity_of_each_version(metrics: Metrics) -> None:
    """By name and version, as the series are."""
    metrics.stats_for("digits", "1").batch_done(REPORT)
    metrics.stats_for("digits", "2")
    assert {labels: each.answered for labels, each in metrics.activity().items()} == {
        ("digits", "1"): 2,
        ("digits", "2"): 0,
    }
