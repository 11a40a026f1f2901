"""Triton's metrics beside inferd's own."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from inferd.observability.metrics.exposition import exposition
from inferd.observability.metrics.registry import Metrics
from inferd.observability.recorder import CallRecorder
from tests.unit.observability.fakes import INFER
from tests.unit.observability.metrics.samples import READY, REPORT, sources

_LABELS = {"model": "digits", "version": "1"}
_TEXT, _OPENMETRICS = "", "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def triton(registry: CollectorRegistry) -> Metrics:
    metrics = Metrics(registry, CallRecorder(), methods=[INFER], triton_names=True)
    stats = metrics.stats_for("digits", "1")
    stats.batch_done(replace(REPORT, success_s=0.5, waited_s=0.25))
    stats.failed(0.1, "QUEUE_FULL")
    stats.failed(0.1)
    stats.failed(0.1, by_model=True)
    metrics.set_sources(sources(READY))
    return metrics


@pytest.mark.usefixtures("triton")
def test_counters_are_those_of_model_statistics(registry: CollectorRegistry) -> None:
    """Of two requests in one run of three rows; durations are whole microseconds, as in Triton."""
    text, _ = exposition(registry, _TEXT)
    values = dict(re.findall(rb'^(nv_inference_\w+){model="digits",version="1"} (\S+)$', text, re.MULTILINE))
    assert {name.decode(): float(value) for name, value in values.items()} == {
        "nv_inference_request_success": 2,
        "nv_inference_count": 3,
        "nv_inference_exec_count": 1,
        "nv_inference_request_duration_us": 500_000,
        "nv_inference_queue_duration_us": 250_000,
        "nv_inference_compute_input_duration_us": 200_000,
        "nv_inference_compute_infer_duration_us": 60_000,
        "nv_inference_compute_output_duration_us": 200_000,
        "nv_inference_pending_request_count": 5,
    }


@pytest.mark.usefixtures("triton")
def test_failures_by_reason(registry: CollectorRegistry) -> None:
    """Those of the model, and all others, which the server rejected or let expire."""
    name = "nv_inference_request_failure"
    found = {
        reason: registry.get_sample_value(name, {**_LABELS, "reason": reason}) for reason in ("REJECTED", "BACKEND")
    }
    assert found == {"REJECTED": 2, "BACKEND": 1}


@pytest.mark.usefixtures("triton")
def test_gpus_are_known_by_uuid(registry: CollectorRegistry) -> None:
    """A device that does not report its utilization has its memory only."""
    assert registry.get_sample_value("nv_gpu_utilization", {"gpu_uuid": "GPU-1"}) == 0.25
    assert registry.get_sample_value("nv_gpu_utilization", {"gpu_uuid": "GPU-2"}) is None
    assert registry.get_sample_value("nv_gpu_memory_used_bytes", {"gpu_uuid": "GPU-2"}) == 10


@pytest.mark.usefixtures("triton")
def test_counters_have_no_suffix(registry: CollectorRegistry) -> None:
    """In the text format they are counters; OpenMetrics accepts them as of unknown type."""
    text, _ = exposition(registry, _TEXT)
    assert b"# TYPE nv_inference_count counter\nnv_inference_count{" in text
    openmetrics, _ = exposition(registry, _OPENMETRICS)
    families = {family.name: family for family in parse_openmetrics(openmetrics.decode())}
    assert families["nv_inference_count"].type == "unknown"
    assert families["nv_inference_count"].samples[0].value == 3


def test_off_by_default(metrics: Metrics, registry: CollectorRegistry) -> None:
    """They repeat what inferd's own metrics tell."""
    metrics.stats_for("digits", "1").batch_done(REPORT)
    metrics.set_sources(sources(READY))
    assert b"nv_" not in exposition(registry, _TEXT)[0]


def test_docs_describe_every_metric(registry: CollectorRegistry, triton: Metrics) -> None:
    """docs/metrics.md names these metrics and no others."""
    page = (Path(__file__).parents[4] / "docs" / "metrics.md").read_text()
    families = {family.name for family in triton.collect() if family.name.startswith("nv_")}
    assert set(re.findall(r"^\| `(nv_\w+)`", page, re.MULTILINE)) == families
