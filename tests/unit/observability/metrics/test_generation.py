"""Metrics of language models."""

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from inferd.observability.metrics.generation import FINISH_REASONS, GenerationStats
from inferd.observability.metrics.registry import Metrics
from inferd.observability.recorder import CallRecorder
from tests.fakes import FakeClock
from tests.unit.observability.fakes import INFER
from tests.unit.observability.metrics.samples import FINISHED, LANGUAGE_MODEL, READY, generate, sources

LABELS = {"model": "lm", "version": "1"}


@pytest.fixture
def stats(metrics: Metrics) -> GenerationStats:
    """The counts of a language model that is loaded."""
    metrics.set_sources(sources(LANGUAGE_MODEL, READY))
    return metrics.generation_stats_for("lm", "1")


def test_tokens(stats: GenerationStats, registry: CollectorRegistry) -> None:
    """Prompt, generated and offered tokens."""
    generate(stats)
    names = ("prompt_tokens", "generation_tokens", "offered_tokens")
    assert [registry.get_sample_value(f"inferd_{name}_total", LABELS) for name in names] == [10, 5, 40]
    assert registry.get_sample_value("inferd_prefill_seconds_total", LABELS) == 0.25
    assert registry.get_sample_value("inferd_iteration_tokens_bucket", {**LABELS, "le": "2.0"}) == 3
    assert registry.get_sample_value("inferd_iteration_tokens_sum", LABELS) == 14
    assert registry.get_sample_value("inferd_request_prompt_tokens_sum", LABELS) == 10
    assert registry.get_sample_value("inferd_request_generation_tokens_sum", LABELS) == 3
    assert registry.get_sample_value("inferd_request_max_tokens_sum", LABELS) == 30


@pytest.mark.parametrize(
    ("name", "total", "count"),
    [
        ("time_to_first_token_seconds", 0.75, 1),
        ("inter_token_latency_seconds", 0.5, 4),
        ("e2e_request_latency_seconds", 1.0, 1),
        ("request_prefill_time_seconds", 0.25, 1),
        ("queue_duration_seconds", 0.5, 1),
        ("inference_duration_seconds", 0.45, 4),
        ("batch_rows", 6, 4),
    ],
)
def test_durations(stats: GenerationStats, registry: CollectorRegistry, name: str, total: float, count: int) -> None:
    """Of requests and tokens; queue and runs as for ordinary models, with a sequence for a row."""
    generate(stats)
    assert registry.get_sample_value(f"inferd_{name}_sum", LABELS) == pytest.approx(total)
    assert registry.get_sample_value(f"inferd_{name}_count", LABELS) == count


def test_finish_reasons(stats: GenerationStats, registry: CollectorRegistry) -> None:
    """Each reason has a series from the start, for rate(); requests that never ran are in no histogram."""
    never_ran = replace(FINISHED, reason="deadline", generated_tokens=0)
    for ended in (FINISHED, replace(FINISHED, reason="cancelled"), never_ran):
        stats.finished(ended)
    found = {
        reason: registry.get_sample_value("inferd_generation_requests_total", {**LABELS, "finish_reason": reason})
        for reason in FINISH_REASONS
    }
    assert found == {"stop": 1, "length": 0, "cancelled": 1, "deadline": 1, "error": 0}
    assert registry.get_sample_value("inferd_e2e_request_latency_seconds_count", LABELS) == 2


def test_requests_count_as_those_of_ordinary_models(stats: GenerationStats, registry: CollectorRegistry) -> None:
    """Triton's statistics, the alert about rejections and the status page need them."""
    generate(stats)
    stats.rejected(0.001, "QUEUE_FULL")
    for reason in ("cancelled", "deadline", "error"):
        stats.finished(replace(FINISHED, reason=reason))
    stats.run_failed(2, 0.5)
    counts = stats.model.read()
    assert (counts.success.count, counts.success.ns) == (1, 10**9)
    assert (counts.queue.ns, counts.compute_infer.ns) == (5 * 10**8, 5 * 10**8)
    assert (counts.fail.count, counts.model_failures, counts.batch_failures) == (3, 1, 1)
    assert registry.get_sample_value("inferd_rejected_total", {**LABELS, "reason": "QUEUE_FULL"}) == 1


def test_gauges(stats: GenerationStats, registry: CollectorRegistry) -> None:
    """Gauges of sequences and cache; none in rows, as the queue counts tokens."""
    names = ("sequences_running", "sequences_waiting", "waiting_tokens", "kv_cache_bytes", "kv_cache_used_bytes")
    assert [registry.get_sample_value(f"inferd_{name}", LABELS) for name in names] == [6, 2, 500, 4000, 1000]
    assert registry.get_sample_value("inferd_sequences_limit", LABELS) == 8
    assert registry.get_sample_value("inferd_model_capacity_tokens_per_second", LABELS) == 250.5
    assert registry.get_sample_value("inferd_kv_cache_usage_ratio", LABELS) == 0.25
    assert registry.get_sample_value("inferd_model_instances", LABELS) == 1
    for name in ("queue_rows", "queue_limit_rows", "model_capacity_rows_per_second", "model_max_rows"):
        assert registry.get_sample_value(f"inferd_{name}", LABELS) is None
        assert registry.get_sample_value(f"inferd_{name}", {"model": "digits", "version": "1"}) is not None


def test_ordinary_models_have_no_series(metrics: Metrics, registry: CollectorRegistry) -> None:
    """A server without language models has no such families; ordinary models are not in them."""
    metrics.stats_for("digits", "1")
    metrics.set_sources(sources(READY))
    assert "token" not in generate_latest(registry).decode().replace('"tokens"', "")
    generate(metrics.generation_stats_for("lm", "1"))
    metrics.set_sources(sources(READY, LANGUAGE_MODEL))
    lines = [line for line in generate_latest(registry).decode().splitlines() if "_token" in line or "kv_" in line]
    assert lines
    assert not [line for line in lines if "digits" in line]


def test_series_go_with_version(registry: CollectorRegistry) -> None:
    """Gauges disappear at once, counts later; a version that is loaded again before continues them."""
    clock = FakeClock()
    metrics = Metrics(registry, CallRecorder(), methods=[INFER], clock=clock)
    generate(metrics.generation_stats_for("lm", "1"))

    def scraped() -> tuple[float | None, float | None]:
        names = ("inferd_generation_tokens_total", "inferd_kv_cache_bytes")
        tokens, cache = (registry.get_sample_value(name, LABELS) for name in names)
        return tokens, cache

    metrics.set_sources(sources(LANGUAGE_MODEL))
    assert scraped() == (5, 4000)
    metrics.set_sources(sources())
    assert scraped() == (5, None)
    generate(metrics.generation_stats_for("lm", "1"))
    assert scraped() == (10, None)
    clock.advance(600)
    assert scraped() == (None, None)
    generate(metrics.generation_stats_for("lm", "1"))
    assert scraped() == (5, None)
