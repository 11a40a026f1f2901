"""All metrics of the server, as a Prometheus collector; described in docs/metrics.md."""

import threading
import time
from collections.abc import Callable, Collection, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inferd.observability.metrics.families import (
    MetricSources,
    ModelLabels,
    ModelSample,
    caller_families,
    certificate_families,
    file_families,
    gpu_families,
    http_families,
    load_families,
    model_families,
    request_families,
    run_cost_families,
    state_families,
    usage_families,
)
from inferd.observability.metrics.generation import GenerationStats
from inferd.observability.metrics.generation_families import generation_families, sequence_families
from inferd.observability.metrics.models import Activity, ModelStats
from inferd.observability.metrics.remote import remote_families
from inferd.observability.metrics.requests import RequestMetrics
from inferd.observability.metrics.residency import residency_families
from inferd.observability.metrics.routing import routing_families
from inferd.observability.metrics.triton import triton_families
from inferd.observability.recorder import CallRecorder

__all__ = ["MetricSources", "Metrics", "ModelSample", "new_registry"]

#: How long the counts of a version are kept after it was unloaded: several scrapes, so that none of them is lost.
_KEPT_S = 600.0


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
    prometheus-client take a lock and a loop over the buckets for each value. Versions come and go without an end, so
    those of a version that is gone are dropped after a while, at a scrape. ``triton_names`` adds Triton's metrics.
    Threads: ``stats_for`` and ``generation_stats_for`` the loader, ``collect`` the scrape; for ``requests`` see there.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        recorder: CallRecorder,
        *,
        methods: Collection[str],
        triton_names: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.requests = RequestMetrics(recorder, methods)
        self._triton_names = triton_names
        self._clock = clock
        self._models: dict[ModelLabels, ModelStats] = {}
        # Of language models, in addition.
        self._generations: dict[ModelLabels, GenerationStats] = {}
        self._gone_at: dict[ModelLabels, float] = {}
        self._lock = threading.Lock()
        self._sources: MetricSources | None = None
        registry.register(self)

    def stats_for(self, model: str, version: str) -> ModelStats:
        """Return the counts of a model version, the same object if it is soon loaded again; creates its series."""
        with self._lock:
            self.requests.add_model(model, version)
            self._gone_at.pop((model, version), None)
            return self._models.setdefault((model, version), ModelStats())

    def generation_stats_for(self, model: str, version: str) -> GenerationStats:
        """Return the counts of a version of a language model, which include those of `stats_for`."""
        stats = self.stats_for(model, version)
        with self._lock:
            return self._generations.setdefault((model, version), GenerationStats(stats))

    def busy_s(self) -> dict[ModelLabels, float]:
        """Return the run time of each model version so far in seconds, summed over its instances."""
        with self._lock:
            return {labels: metrics.busy_s for labels, metrics in self._models.items()}

    def activity(self) -> dict[ModelLabels, Activity]:
        """Return what each model version has done so far."""
        with self._lock:
            models = dict(self._models)
        return {labels: metrics.activity() for labels, metrics in models.items()}

    def set_sources(self, sources: MetricSources) -> None:
        """Read gauges from ``sources`` from now on."""
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        samples = None if self._sources is None else list(self._sources.models())
        if samples is not None:
            self._forget_gone(samples)
        yield from request_families(self.requests.read())
        with self._lock:
            models, language_models = dict(self._models), dict(self._generations)
        counts = {labels: metrics.read() for labels, metrics in models.items()}
        yield from model_families(counts)
        yield from generation_families({labels: metrics.read() for labels, metrics in language_models.items()})
        if samples is not None and self._sources is not None:
            yield from _of_sources(self._sources, samples)
            yield from sequence_families(samples)
            if self._triton_names:
                yield from triton_families(counts, samples, self._sources.gpus())

    def _forget_gone(self, samples: Collection[ModelSample]) -> None:
        """Drop the counts of versions that have been unloaded for a while."""
        present = {(sample.model, sample.version) for sample in samples if sample.state != "unavailable"}
        now = self._clock()
        with self._lock:
            for labels in list(self._models):
                if labels in present:
                    self._gone_at.pop(labels, None)
                elif now - self._gone_at.setdefault(labels, now) >= _KEPT_S:
                    del self._models[labels], self._gone_at[labels]
                    self._generations.pop(labels, None)
                    self.requests.remove_model(*labels)


def _of_sources(sources: MetricSources, samples: Collection[ModelSample]) -> Iterator[Metric]:
    yield from state_families(samples)
    yield from load_families(sources.loads())
    yield from residency_families(sources.residency())
    yield from routing_families(sources.routing(), sources.shadows())
    yield from run_cost_families(sources.run_costs())
    yield from gpu_families(sources.gpus())
    yield from certificate_families(sources.certificate_expiry(), sources.certificate_lifetimes_s())
    yield from file_families(sources.file_reload_failures())
    yield from caller_families(sources.quota_rejections(), sources.jwks_age_s())
    yield from http_families(sources.http_refused())
    if sources.remote is not None:
        yield from remote_families(sources.remote())
    yield GaugeMetricFamily("inferd_inflight_requests", "Open RPCs", value=sources.inflight_requests())
    yield from usage_families(sources.server_usage())
    yield GaugeMetricFamily("inferd_poll_lag_seconds", "Lag of the poll thread", value=sources.poll_lag_s())
    yield CounterMetricFamily("inferd_access_log_dropped", "Dropped log lines", value=sources.log_lines_dropped())
    yield CounterMetricFamily("inferd_spans_dropped", "Dropped spans", value=sources.spans_dropped())
