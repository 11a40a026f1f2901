"""Metrics as a scrape shows them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from inferd.models.states import ModelState
from inferd.observability.metrics.loads import LOAD_OUTCOMES
from inferd.observability.metrics.registry import Metrics, ModelSample, new_registry
from inferd.observability.metrics.residency import LOAD_CAUSES
from inferd.observability.metrics.run_cost import RunCost
from inferd.observability.recorder import CallRecorder
from tests.fakes import FakeClock
from tests.unit.call_context import call_context
from tests.unit.observability.fakes import INFER
from tests.unit.observability.metrics.samples import (
    COST,
    LANGUAGE_MODEL,
    READY,
    REPORT,
    finish,
    generate,
    sources,
)

NAMES = {
    *("inferd_requests_total", "inferd_request_duration_seconds", "inferd_queue_duration_seconds"),
    *("inferd_inference_duration_seconds", "inferd_batch_rows", "inferd_queue_rows", "inferd_queue_bytes"),
    *("inferd_rejected_total", "inferd_inflight_requests", "inferd_model_state", "inferd_batch_failures_total"),
    *("inferd_caller_runs_total", "inferd_offered_rows_total", "inferd_poll_lag_seconds"),
    *("inferd_stage_duration_seconds", "inferd_queue_limit_rows", "inferd_model_instances"),
    *("inferd_model_instances_under_load", "inferd_instance_changes_total"),
    *("inferd_runs_terminated_total", "inferd_stuck_threads"),
    *("inferd_message_bytes", "inferd_request_memory_bytes", "inferd_request_memory_limit_bytes"),
    *("inferd_calls_refused_total", "inferd_http_refused_total"),
    *("inferd_remote_downloaded_bytes_total", "inferd_remote_pending_bytes", "inferd_remote_cache_bytes"),
    *("inferd_remote_files_total", "inferd_remote_listings_total"),
    *("inferd_model_memory_bytes", "inferd_gpu_utilization_ratio", "inferd_gpu_memory_used_bytes"),
    *("inferd_gpu_memory_total_bytes", "inferd_access_log_dropped_total", "inferd_spans_dropped_total"),
    *("inferd_certificate_expiry_timestamp_seconds", "inferd_certificate_lifetime_seconds"),
    *("inferd_file_reload_failures_total", "inferd_batch_checks_total", "inferd_batch_check_seconds_total"),
    *("inferd_batch_mismatches_total", "inferd_one_core_batches_total"),
    *("inferd_predicted_run_seconds", "inferd_predicted_run_p95_seconds", "inferd_run_prediction_error_ratio"),
    *("inferd_model_loads_total", "inferd_model_unloads_total", "inferd_model_load_duration_seconds"),
    *("inferd_model_load_causes_total", "inferd_model_loads_waiting", "inferd_model_evictions_total"),
    *("inferd_models_memory_bytes", "inferd_models_memory_reserved_bytes", "inferd_models_memory_budget_bytes"),
    *("inferd_cold_requests_total", "inferd_model_device_memory_bytes"),
    *("inferd_model_share", "inferd_model_label", "inferd_shadow_requests_total"),
    *("inferd_out_of_memory_runs_total", "inferd_session_reopens_total"),
    *("inferd_model_max_rows", "inferd_model_broken"),
    *("inferd_prompt_tokens_total", "inferd_generation_tokens_total", "inferd_offered_tokens_total"),
    *("inferd_prefill_seconds_total", "inferd_generation_requests_total", "inferd_time_to_first_token_seconds"),
    *("inferd_inter_token_latency_seconds", "inferd_e2e_request_latency_seconds"),
    *("inferd_request_prefill_time_seconds", "inferd_iteration_tokens", "inferd_request_prompt_tokens"),
    "inferd_request_max_tokens",
    *("inferd_request_generation_tokens", "inferd_sequences_running", "inferd_sequences_limit"),
    *("inferd_sequences_waiting", "inferd_waiting_tokens"),
    *("inferd_kv_cache_bytes", "inferd_kv_cache_used_bytes"),
    *("inferd_kv_cache_usage_ratio", "inferd_model_capacity_tokens_per_second"),
    *("inferd_model_capacity_rows_per_second", "inferd_quota_rejected_total", "inferd_jwks_age_seconds"),
}


def use_everything(metrics: Metrics) -> None:
    """Bring a sample into every family."""
    stats = metrics.stats_for("digits", "1")
    stats.failed(0.0, "QUEUE_FULL")
    stats.batch_done(REPORT)
    finish(metrics)
    generate(metrics.generation_stats_for("lm", "1"))
    metrics.set_sources(sources(READY, LANGUAGE_MODEL))


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


def test_gauges_are_read_at_the_scrape(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Never updated in between."""
    metrics.set_sources(sources(READY))
    labels = {"model": "digits", "version": "1"}
    assert registry.get_sample_value("inferd_queue_rows", labels) == 7
    assert registry.get_sample_value("inferd_queue_limit_rows", labels) == 70
    metrics.set_sources(sources(replace(READY, max_rows=4, is_broken=True)))
    assert registry.get_sample_value("inferd_model_max_rows", labels) == 4
    assert registry.get_sample_value("inferd_model_broken", labels) == 1
    assert registry.get_sample_value("inferd_queue_bytes", labels) == 800
    assert registry.get_sample_value("inferd_model_instances", labels) == 2
    assert registry.get_sample_value("inferd_model_instances_under_load", labels) == 3
    assert registry.get_sample_value("inferd_instance_changes_total", labels | {"reason": "load"}) == 1
    assert registry.get_sample_value("inferd_model_capacity_rows_per_second", labels) == 450.5
    assert registry.get_sample_value("inferd_model_memory_bytes", labels) == 9000
    assert registry.get_sample_value("inferd_remote_files_total", {"outcome": "downloaded"}) == 1
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
        for state in (each.value for each in ModelState)
    }
    assert states == {each.value: float(each is ModelState.READY) for each in ModelState}


def test_unavailable_version_has_a_state_only(metrics: Metrics, registry: CollectorRegistry) -> None:
    """It has no queue, and may stay known for as long as its files are there."""
    metrics.set_sources(sources(replace(READY, state="unavailable")))
    labels = {"model": "digits", "version": "1"}
    assert registry.get_sample_value("inferd_model_state", {**labels, "state": "unavailable"}) == 1
    assert registry.get_sample_value("inferd_queue_rows", labels) is None


def test_loads_by_outcome(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Of each model, whatever its versions."""
    metrics.set_sources(sources(READY))
    ended = {
        outcome: registry.get_sample_value("inferd_model_loads_total", {"model": "digits", "outcome": outcome})
        for outcome in LOAD_OUTCOMES
    }
    assert ended == {"ready": 2, "failed": 1, "cancelled": 0}
    assert registry.get_sample_value("inferd_model_unloads_total", {"model": "digits"}) == 1


def test_scrape_before_start(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Without gauges."""
    assert "inferd_queue_rows" not in generate_latest(registry).decode()


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


class Coming:
    """Metrics of versions that come and go, with a clock that the test moves."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.clock = FakeClock()
        self.metrics = Metrics(registry, CallRecorder(), methods=[INFER], clock=self.clock)

    def load(self, state: str = "ready") -> None:
        self.metrics.stats_for("digits", "1").offered(3)
        self.metrics.set_sources(sources(replace(READY, state=state)))

    def scrape(self, after_s: float = 0.0) -> tuple[float | None, float | None]:
        """Return the offered rows, and the calls of the version."""
        self.clock.advance(after_s)
        labels = {"model": "digits", "version": "1"}
        offered = self.registry.get_sample_value("inferd_offered_rows_total", labels)
        call = {**labels, "method": INFER.removeprefix("/"), "code": "OK"}
        return offered, self.registry.get_sample_value("inferd_requests_total", call)


@pytest.mark.parametrize("gone", [(), (replace(READY, state="unavailable"),)])
def test_counts_of_a_version_that_is_gone(registry: CollectorRegistry, gone: tuple[ModelSample, ...]) -> None:
    """They stay for some scrapes, so that none is lost, and are dropped then."""
    coming = Coming(registry)
    coming.load()
    finish(coming.metrics, context=call_context(model="digits", version="1"))
    assert coming.scrape() == (3, 1)
    coming.metrics.set_sources(sources(*gone))
    assert coming.scrape() == (3, 1)
    assert coming.scrape(after_s=599) == (3, 1)
    assert coming.scrape(after_s=1) == (None, None)


def test_version_that_comes_back_goes_on_counting(registry: CollectorRegistry) -> None:
    """Within that time; also if it is being loaded at the scrape that would drop it."""
    coming = Coming(registry)
    coming.load()
    coming.metrics.set_sources(sources())
    coming.scrape()
    coming.metrics.stats_for("digits", "1").offered(1)
    assert coming.scrape(after_s=600)[0] == 4
    coming.load()
    assert coming.scrape(after_s=600)[0] == 7


def test_version_that_comes_back_later_begins_at_zero(registry: CollectorRegistry) -> None:
    """Which is what a counter does after a restart."""
    coming = Coming(registry)
    coming.load()
    coming.metrics.set_sources(sources())
    coming.scrape()
    coming.scrape(after_s=600)
    coming.load()
    assert coming.scrape()[0] == 3


def test_memory_budget_of_models(metrics: Metrics, registry: CollectorRegistry) -> None:
    """By kind of memory, without a budget where there is none; loads, evictions and misses by model."""
    metrics.set_sources(sources(READY))
    value = registry.get_sample_value
    assert value("inferd_models_memory_bytes", {"kind": "host"}) == 300
    assert value("inferd_models_memory_reserved_bytes", {"kind": "host"}) == 100
    assert value("inferd_models_memory_budget_bytes", {"kind": "host"}) == 500
    assert value("inferd_models_memory_budget_bytes", {"kind": "device"}) is None
    assert value("inferd_model_loads_waiting") == 2
    loads = {
        cause: value("inferd_model_load_causes_total", {"model": "digits", "cause": cause}) for cause in LOAD_CAUSES
    }
    assert loads == {"start": 0, "change": 0, "call": 0, "demand": 1}
    evictions = {
        in_use: value("inferd_model_evictions_total", {"model": "digits", "in_use": in_use})
        for in_use in ("false", "true")
    }
    assert evictions == {"false": 1, "true": 0}
    assert value("inferd_cold_requests_total", {"model": "digits"}) == 7
