"""All metrics of the server, as a Prometheus collector; described in docs/metrics.md."""

import threading
from collections.abc import Collection, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inferd.observability.metrics.families import (
    MetricSources,
    ModelSample,
    caller_families,
    certificate_families,
    file_families,
    gpu_families,
    model_families,
    request_families,
    run_cost_families,
    state_families,
    usage_families,
)
from inferd.observability.metrics.models import ModelStats
from inferd.observability.metrics.requests import RequestMetrics
from inferd.observability.recorder import CallRecorder

__all__ = ["MetricSources", "Metrics", "ModelSample", "new_registry"]


def new_registry() -> CollectorRegistry:
    """Return a registry with the standard process_* and python_* metrics."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class Metrics(Collector):
    """The metrics of one server.

    Counts are kept in plain objects with a lock each, and converted to metric families at a scrape: the histograms of
    prometheus-client take a lock and a loop over the buckets for each value.
    Threads: ``stats_for`` the loader, ``collect`` the scrape; for ``requests`` see there.
    """

    def __init__(self, registry: CollectorRegistry, recorder: CallRecorder, *, methods: Collection[str]) -> None:
        self.requests = RequestMetrics(recorder, methods)
        self._models: dict[tuple[str, str], ModelStats] = {}
        self._lock = threading.Lock()
        self._sources: MetricSources | None = None
        registry.register(self)

    def stats_for(self, model: str, version: str) -> ModelStats:
        """Return the counts of a model version, the same object if it is loaded again; creates its series."""
        self.requests.add_model(model, version)
        with self._lock:
            return self._models.setdefault((model, version), ModelStats())

    def busy_s(self) -> dict[tuple[str, str], float]:
        """Return the run time of each model version so far in seconds, summed over its instances."""
        with self._lock:
            return {labels: metrics.busy_s for labels, metrics in self._models.items()}

    def set_sources(self, sources: MetricSources) -> None:
        """Read gauges from ``sources`` from now on."""
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        yield from request_families(self.requests.read())
        with self._lock:
            models = dict(self._models)
        yield from model_families({labels: metrics.read() for labels, metrics in models.items()})
        if self._sources is not None:
            yield from _of_sources(self._sources)


def _of_sources(sources: MetricSources) -> Iterator[Metric]:
    yield from state_families(sources.models())
    yield from run_cost_families(sources.run_costs())
    yield from gpu_families(sources.gpus())
    yield from certificate_families(sources.certificate_expiry(), sources.certificate_lifetimes_s())
    yield from file_families(sources.file_reload_failures())
    yield from caller_families(sources.quota_rejections(), sources.jwks_age_s())
    yield GaugeMetricFamily("inferd_inflight_requests", "Open RPCs", value=sources.inflight_requests())
    yield from usage_families(sources.server_usage())
    yield GaugeMetricFamily("inferd_poll_lag_seconds", "Lag of the poll thread", value=sources.poll_lag_s())
    yield CounterMetricFamily("inferd_access_log_dropped", "Dropped log lines", value=sources.log_lines_dropped())
    yield CounterMetricFamily("inferd_spans_dropped", "Dropped spans", value=sources.spans_dropped())
