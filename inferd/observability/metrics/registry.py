"""All metrics of the server, as Prometheus reads them. docs/metrics.md says what each is for."""

import threading
from collections.abc import Collection, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inferd.observability.metrics.families import (
    ModelSample,
    Sources,
    caller_families,
    certificate_families,
    file_families,
    gpu_families,
    model_families,
    request_families,
    state_families,
    usage_families,
)
from inferd.observability.metrics.models import ModelStats
from inferd.observability.metrics.requests import RequestMetrics
from inferd.observability.recorder import CallRecorder

__all__ = ["Metrics", "ModelSample", "Sources", "new_registry"]


def new_registry() -> CollectorRegistry:
    """Return a registry that tells of the process and of Python."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class Metrics(Collector):
    """The metrics of one server.

    The numbers are kept in plain objects with a lock each, and turned into Prometheus' form only when a scrape comes:
    prometheus-client's own histograms take a lock and a loop over the buckets for each single value.
    Threads: ``stats_for`` the loader, ``collect`` the scrape, ``requests`` see there.
    """

    def __init__(self, registry: CollectorRegistry, recorder: CallRecorder, *, methods: Collection[str]) -> None:
        self.requests = RequestMetrics(recorder, methods)
        self._models: dict[tuple[str, str], ModelStats] = {}
        self._lock = threading.Lock()
        self._sources: Sources | None = None
        registry.register(self)

    def stats_for(self, model: str, version: str) -> ModelStats:
        """Return where batching counts what happens to a model version; the same one if it is loaded again."""
        self.requests.add_model(model, version)
        with self._lock:
            return self._models.setdefault((model, version), ModelStats())

    def busy_s(self) -> dict[tuple[str, str], float]:
        """Return for how long each model version has been running so far, in all of its instances."""
        with self._lock:
            return {labels: metrics.busy_s for labels, metrics in self._models.items()}

    def watch(self, sources: Sources) -> None:
        """Read the gauges from ``sources`` from now on."""
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        yield from request_families(self.requests.read())
        with self._lock:
            models = dict(self._models)
        yield from model_families({labels: metrics.read() for labels, metrics in models.items()})
        if self._sources is not None:
            yield from _of_sources(self._sources)


def _of_sources(sources: Sources) -> Iterator[Metric]:
    yield from state_families(sources.models())
    yield from gpu_families(sources.gpus())
    yield from certificate_families(sources.certificate_expiry(), sources.certificate_lifetimes_s())
    yield from file_families(sources.file_reload_failures())
    yield from caller_families(sources.quota_rejections(), sources.jwks_age_s())
    yield GaugeMetricFamily("inferd_inflight_requests", "RPCs that are open", value=sources.inflight_requests())
    yield from usage_families(sources.server_usage())
    yield GaugeMetricFamily("inferd_poll_lag_seconds", "How late the poll thread is", value=sources.poll_lag_s())
    yield CounterMetricFamily(
        "inferd_access_log_dropped", "Log lines that were dropped", value=sources.log_lines_dropped()
    )
    yield CounterMetricFamily("inferd_spans_dropped", "Spans that were lost", value=sources.spans_dropped())
