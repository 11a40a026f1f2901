"""All metrics of the server, as Prometheus reads them. docs/metrics.md says what each is for."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from inferd.observability.histogram import Histogram
from inferd.observability.model_metrics import ModelCounts, ModelMetrics
from inferd.observability.request_metrics import RequestLabels, RequestMetrics

#: Label values of ``inferd_model_state``.
MODEL_STATES = ("loading", "ready", "failed", "unloading")

_MODEL = ("model", "version")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSample:
    """How one model version stands at the moment of a scrape; ``state`` is one of `MODEL_STATES`."""

    model: str
    version: str
    state: str
    queue_rows: int
    queue_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """What is read when a scrape comes, in its thread. None of these may block."""

    models: Callable[[], Iterable[ModelSample]]
    inflight_requests: Callable[[], int]
    poll_lag_s: Callable[[], float]
    log_lines_dropped: Callable[[], int]


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
    Threads: ``observer_for`` the loader, ``collect`` the scrape, ``requests`` see there.
    """

    def __init__(self, registry: CollectorRegistry, *, methods: Collection[str]) -> None:
        self.requests = RequestMetrics(methods)
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self._lock = threading.Lock()
        self._sources: Sources | None = None
        registry.register(self)

    def observer_for(self, model: str, version: str) -> ModelMetrics:
        """Return where batching counts what happens to a model version; the same one if it is loaded again."""
        self.requests.add_model(model, version)
        with self._lock:
            return self._models.setdefault((model, version), ModelMetrics())

    def watch(self, sources: Sources) -> None:
        """Read the gauges from ``sources`` from now on."""
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        yield from _request_families(self.requests.read())
        with self._lock:
            models = dict(self._models)
        yield from _model_families({labels: metrics.read() for labels, metrics in models.items()})
        if self._sources is not None:
            yield from _gauges(self._sources)


def _request_families(series: dict[RequestLabels, Histogram]) -> Iterator[Metric]:
    requests = CounterMetricFamily("inferd_requests", "RPCs that ended", labels=RequestLabels._fields)
    for labels, durations in series.items():
        requests.add_metric(labels, durations.count)
    yield requests
    yield _histogram(
        "inferd_request_duration_seconds", "From accepting an RPC to its status", RequestLabels._fields, series
    )


def _model_families(models: dict[tuple[str, str], ModelCounts]) -> Iterator[Metric]:
    counters: tuple[tuple[str, str, Callable[[ModelCounts], int]], ...] = (
        ("inferd_offered_rows", "Rows that asked to be admitted, also those refused", lambda m: m.offered_rows),
        ("inferd_caller_runs", "Requests that ran outside the queue", lambda m: m.caller_runs),
        ("inferd_batch_failures", "Runs of the model that failed", lambda m: m.batch_failures),
    )
    for name, text, read in counters:
        family = CounterMetricFamily(name, text, labels=_MODEL)
        for labels, counts in models.items():
            family.add_metric(labels, read(counts))
        yield family
    histograms: tuple[tuple[str, str, Callable[[ModelCounts], Histogram]], ...] = (
        ("inferd_queue_duration_seconds", "From admission of a request to its batch", lambda m: m.queue_s),
        ("inferd_inference_duration_seconds", "Runs of the model", lambda m: m.run_s),
        ("inferd_batch_rows", "Rows of a batch", lambda m: m.batch_rows),
    )
    for name, text, histogram in histograms:
        yield _histogram(name, text, _MODEL, {labels: histogram(counts) for labels, counts in models.items()})
    yield _rejected(models)


def _rejected(models: dict[tuple[str, str], ModelCounts]) -> Metric:
    totals: dict[tuple[str, str], int] = {}
    for (model, _), counts in models.items():
        for reason, number in counts.rejected.items():
            totals[model, reason] = totals.get((model, reason), 0) + number
    family = CounterMetricFamily("inferd_rejected", "Requests refused or shed", labels=("model", "reason"))
    for labels, total in totals.items():
        family.add_metric(labels, total)
    return family


def _gauges(sources: Sources) -> Iterator[Metric]:
    rows = GaugeMetricFamily("inferd_queue_rows", "Rows that wait", labels=_MODEL)
    nbytes = GaugeMetricFamily("inferd_queue_bytes", "Bytes of inputs that wait", labels=_MODEL)
    states = GaugeMetricFamily("inferd_model_state", "1 for the state it is in", labels=(*_MODEL, "state"))
    for sample in sources.models():
        labels = (sample.model, sample.version)
        rows.add_metric(labels, sample.queue_rows)
        nbytes.add_metric(labels, sample.queue_bytes)
        for state in MODEL_STATES:
            states.add_metric((*labels, state), float(state == sample.state))
    yield from (rows, nbytes, states)
    yield GaugeMetricFamily("inferd_inflight_requests", "RPCs that are open", value=sources.inflight_requests())
    yield GaugeMetricFamily("inferd_poll_lag_seconds", "How late the poll thread is", value=sources.poll_lag_s())
    yield CounterMetricFamily(
        "inferd_access_log_dropped", "Log lines that were dropped", value=sources.log_lines_dropped()
    )


def _histogram(
    name: str,
    text: str,
    label_names: tuple[str, ...],
    series: dict[RequestLabels, Histogram] | dict[tuple[str, str], Histogram],
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=label_names)
    for labels, histogram in series.items():
        family.add_metric(labels, histogram.buckets(), histogram.sum)
    return family
