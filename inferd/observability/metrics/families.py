"""Metric families from counts and samples, built at each scrape. Pure functions."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from inferd.observability.metrics.exposition import HistogramFamily
from inferd.observability.metrics.generation import GenerationSample
from inferd.observability.metrics.gpu import GpuSample
from inferd.observability.metrics.histogram import Histogram
from inferd.observability.metrics.loads import LoadCounts
from inferd.observability.metrics.models import ModelCounts
from inferd.observability.metrics.requests import RequestLabels
from inferd.observability.metrics.residency import ResidencySample
from inferd.observability.metrics.routing import RoutedVersion
from inferd.observability.metrics.run_cost import PredictedRun, RunCost
from inferd.observability.timing import STAGES
from inferd.remote.counts import RemoteCount

#: Model and version.
ModelLabels = tuple[str, str]

#: Label values of ``inferd_model_state``.
MODEL_STATES = ("unavailable", "loading", "verifying", "warming", "ready", "unloading", "failed", "on_demand")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSample:
    """The state of one model version; ``state`` is one of `MODEL_STATES`, and unknown values are 0.

    ``queue_requests`` is the number of waiting requests, ``queue_limit_rows`` the present limit of queued rows,
    ``instances`` the present number of parallel batches, ``instances_under_load`` what it is likely to become,
    ``instance_changes`` how often it has changed, by reason, ``capacity_rows_per_s`` the throughput of all instances
    under load at the cheapest batch size, ``memory_bytes`` the memory of the loaded version,
    ``stuck_threads`` the number of threads that hang in an abandoned run. ``max_rows`` are those of the largest batch
    at present; ``one_core_batches`` are those that ran on one core beside others so far; ``is_broken`` while the
    session runs nothing and is being opened again. Language models, and no others, have ``generation``; what concerns
    rows means nothing for them.
    """

    model: str
    version: str
    state: str
    queue_rows: int = 0
    queue_requests: int = 0
    queue_limit_rows: int = 0
    queue_bytes: int = 0
    instances: int = 0
    instances_under_load: int = 0
    instance_changes: Mapping[str, int] = field(default_factory=dict)
    capacity_rows_per_s: float = 0.0
    memory_bytes: int = 0
    device_memory_bytes: int = 0
    stuck_threads: int = 0
    max_rows: int = 0
    one_core_batches: int = 0
    is_broken: bool = False
    generation: GenerationSample | None = None


class ServerUsage(Protocol):
    """Memory held by calls, and the number of calls rejected by the limits of the server, by reason."""

    @property
    def held_bytes(self) -> int: ...  # noqa: D102  described by `usage_families`

    @property
    def taken_bytes(self) -> int: ...  # noqa: D102

    @property
    def budget_bytes(self) -> int | None: ...  # noqa: D102

    @property
    def rejected(self) -> Mapping[str, int]: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricSources:
    """Functions that a scrape calls in its thread. None of them may block."""

    models: Callable[[], Iterable[ModelSample]]
    run_costs: Callable[[], Mapping[ModelLabels, RunCost]]
    """Of the model versions of which something is known."""
    loads: Callable[[], Mapping[str, LoadCounts]]
    """By model."""
    residency: Callable[[], ResidencySample]
    routing: Callable[[], Iterable[RoutedVersion]]
    shadows: Callable[[], Mapping[ModelLabels, Mapping[str, int]]]
    """Copied requests by outcome."""
    inflight_requests: Callable[[], int]
    server_usage: Callable[[], ServerUsage]
    poll_lag_s: Callable[[], float]
    log_lines_dropped: Callable[[], int]
    spans_dropped: Callable[[], int]
    gpus: Callable[[], Iterable[GpuSample]]
    certificate_expiry: Callable[[], Mapping[str, float]]
    """By purpose of the certificate; seconds since the epoch."""
    certificate_lifetimes_s: Callable[[], Mapping[str, float]]
    """By purpose of the certificate: its validity period in seconds."""
    file_reload_failures: Callable[[], Mapping[str, int]]
    """By purpose of the files."""
    quota_rejections: Callable[[], Mapping[str, int]]
    """By the limit that was exceeded."""
    jwks_age_s: Callable[[], float | None]
    """Time since the keys of the issuer were fetched; None if they do not come from a URL."""
    http_refused: Callable[[], Mapping[int, int]]
    """By status; empty without HTTP."""
    remote: Callable[[], RemoteCount] | None = None
    """Of models in remote storage, if there are any."""


_MODEL = ("model", "version")
_GPU = ("gpu", "uuid")

_Sample = TypeVar("_Sample")
_Labels = TypeVar("_Labels", bound=tuple[str, ...])


def request_families(series: Mapping[RequestLabels, Histogram]) -> Iterator[Metric]:
    """Yield the metrics of finished RPCs."""
    requests = CounterMetricFamily("inferd_requests", "Finished RPCs", labels=RequestLabels._fields)
    for labels, durations in series.items():
        requests.add_metric(labels, durations.count)
    yield requests
    yield HistogramFamily(
        "inferd_request_duration_seconds",
        "Time from accept to status",
        RequestLabels._fields,
        series.items(),
    )


def model_families(models: Mapping[ModelLabels, ModelCounts]) -> Iterator[Metric]:
    """Yield the metrics of batching."""
    counters: tuple[tuple[str, str, Callable[[ModelCounts], float]], ...] = (
        ("inferd_offered_rows", "Rows offered, including rejected ones", lambda m: m.offered_rows),
        ("inferd_caller_runs", "Requests run outside the queue (caller_runs)", lambda m: m.caller_runs),
        ("inferd_batch_failures", "Failed runs of the model", lambda m: m.batch_failures),
        ("inferd_out_of_memory_runs", "Runs that were out of memory", lambda m: m.out_of_memory),
        ("inferd_batch_checks", "Batches checked by running one request again alone", lambda m: m.checks),
        ("inferd_batch_check_seconds", "Time of these single runs", lambda m: m.check_s),
        ("inferd_batch_mismatches", "Checked batches whose answers differed", lambda m: m.mismatches),
    )
    for name, text, read in counters:
        family = CounterMetricFamily(name, text, labels=_MODEL)
        for labels, counts in models.items():
            family.add_metric(labels, read(counts))
        yield family
    histograms: tuple[tuple[str, str, Callable[[ModelCounts], Histogram]], ...] = (
        (
            "inferd_queue_duration_seconds",
            "Time from admission to the start of the batch",
            lambda m: m.queue_s,
        ),
        ("inferd_inference_duration_seconds", "Duration of runs of the model", lambda m: m.run_s),
        ("inferd_batch_rows", "Rows per batch", lambda m: m.batch_rows),
    )
    for name, text, histogram in histograms:
        yield HistogramFamily(name, text, _MODEL, [(labels, histogram(counts)) for labels, counts in models.items()])
    yield _ended_runs(models)
    yield _reopened(models)
    yield _stages(models)
    yield _rejected(models)


def certificate_families(expiry: Mapping[str, float], lifetimes_s: Mapping[str, float]) -> Iterator[Metric]:
    """Yield expiry and validity of the loaded certificates."""
    for name, text, by_file in (
        ("inferd_certificate_expiry_timestamp_seconds", "Expiry time of the loaded certificate", expiry),
        ("inferd_certificate_lifetime_seconds", "Validity period of the loaded certificate", lifetimes_s),
    ):
        family = GaugeMetricFamily(name, text, labels=("file",))
        for file, value in by_file.items():
            family.add_metric((file,), value)
        yield family


def file_families(reload_failures: Mapping[str, int]) -> Iterator[Metric]:
    """Yield failed reloads of changed files."""
    failures = CounterMetricFamily("inferd_file_reload_failures", "Failed reloads of changed files", labels=("file",))
    for name, count in reload_failures.items():
        failures.add_metric((name,), count)
    yield failures


def caller_families(quota_rejections: Mapping[str, int], jwks_age_s: float | None) -> Iterator[Metric]:
    """Yield rejections by quota, and the age of the issuer's keys."""
    rejected = CounterMetricFamily("inferd_quota_rejected", "Requests rejected by quota", labels=("reason",))
    for reason, count in quota_rejections.items():
        rejected.add_metric((reason,), count)
    yield rejected
    if jwks_age_s is not None:
        yield GaugeMetricFamily("inferd_jwks_age_seconds", "Age of the issuer's keys", value=jwks_age_s)


def usage_families(usage: ServerUsage) -> Iterator[Metric]:
    """Yield memory of requests, and rejections by the limits of the server."""
    gauges = (
        ("inferd_message_bytes", "Request messages of open RPCs", usage.held_bytes),
        ("inferd_request_memory_bytes", "Growth of the process due to requests", usage.taken_bytes),
        ("inferd_request_memory_limit_bytes", "Limit of the growth due to requests", usage.budget_bytes),
    )
    for name, text, value in gauges:
        if value is not None:
            yield GaugeMetricFamily(name, text, value=value)
    rejected = CounterMetricFamily(
        "inferd_calls_refused", "RPCs rejected by the limits of the server", labels=("reason",)
    )
    for reason, count in usage.rejected.items():
        rejected.add_metric((reason,), count)
    yield rejected


def http_families(refused: Mapping[int, int]) -> Iterator[Metric]:
    """Yield requests over HTTP that were refused before they were calls."""
    family = CounterMetricFamily(
        "inferd_http_refused", "Requests over HTTP refused before they were calls", labels=("status",)
    )
    for status, count in refused.items():
        family.add_metric((str(status),), count)
    yield family


def _stages(models: Mapping[ModelLabels, ModelCounts]) -> Metric:
    series = []
    for labels, counts in models.items():
        if not counts.run_s.count:
            # Half of the series of a version, and not used in rules: left out until it has run.
            continue
        durations = (counts.decode_s, counts.queue_s, counts.stack_s, counts.run_s, counts.encode_s)
        series += [((*labels, stage), each) for stage, each in zip(STAGES, durations, strict=True)]
    return HistogramFamily(
        "inferd_stage_duration_seconds", "Duration of the stages of a request", (*_MODEL, "stage"), series
    )


def _ended_runs(models: Mapping[ModelLabels, ModelCounts]) -> Metric:
    family = CounterMetricFamily("inferd_runs_terminated", "Runs terminated early", labels=(*_MODEL, "reason"))
    for labels, counts in models.items():
        for reason, number in counts.ended_runs.items():
            family.add_metric((*labels, reason), number)
    return family


def _reopened(models: Mapping[ModelLabels, ModelCounts]) -> Metric:
    family = CounterMetricFamily(
        "inferd_session_reopens", "Attempts to open sessions again that ran nothing", labels=(*_MODEL, "outcome")
    )
    for labels, counts in models.items():
        for worked, number in counts.reopened.items():
            family.add_metric((*labels, "ok" if worked else "failed"), number)
    return family


def _rejected(models: Mapping[ModelLabels, ModelCounts]) -> Metric:
    family = CounterMetricFamily("inferd_rejected", "Requests rejected or shed", labels=(*_MODEL, "reason"))
    for labels, counts in models.items():
        for reason, number in counts.rejected.items():
            family.add_metric((*labels, reason), number)
    return family


def state_families(models: Iterable[ModelSample]) -> Iterator[Metric]:
    """Yield state, queue and capacity of the model versions."""
    samples = {(sample.model, sample.version): sample for sample in models}
    loaded = {labels: sample for labels, sample in samples.items() if sample.state != "unavailable"}
    # The queue of a language model is in tokens.
    in_rows = {labels: sample for labels, sample in loaded.items() if sample.generation is None}
    row_gauges: tuple[tuple[str, str, Callable[[ModelSample], float]], ...] = (
        ("inferd_queue_rows", "Rows waiting in the queue", lambda m: m.queue_rows),
        ("inferd_queue_limit_rows", "Present limit of waiting rows", lambda m: m.queue_limit_rows),
        (
            "inferd_model_capacity_rows_per_second",
            "Peak measured throughput, rows/s",
            lambda m: m.capacity_rows_per_s,
        ),
        ("inferd_model_max_rows", "Rows that may run at once at present", lambda m: m.max_rows),
    )
    for gauge in row_gauges:
        yield gauge_family(*gauge, _MODEL, in_rows)
    one_core = CounterMetricFamily("inferd_one_core_batches", "Batches run on one core beside others", labels=_MODEL)
    for labels, sample in in_rows.items():
        one_core.add_metric(labels, sample.one_core_batches)
    yield one_core
    gauges: tuple[tuple[str, str, Callable[[ModelSample], float]], ...] = (
        ("inferd_queue_bytes", "Inputs waiting in the queue", lambda m: m.queue_bytes),
        ("inferd_model_instances", "Batches that can run in parallel", lambda m: m.instances),
        ("inferd_model_instances_under_load", "What that is likely to become", lambda m: m.instances_under_load),
        ("inferd_stuck_threads", "Threads stuck in abandoned runs", lambda m: m.stuck_threads),
        ("inferd_model_broken", "1 while the session runs nothing and is opened again", lambda m: m.is_broken),
        ("inferd_model_memory_bytes", "Memory of the loaded version", lambda m: m.memory_bytes),
        ("inferd_model_device_memory_bytes", "The same on devices", lambda m: m.device_memory_bytes),
    )
    for gauge in gauges:
        yield gauge_family(*gauge, _MODEL, loaded)
    changes = CounterMetricFamily("inferd_instance_changes", "Changes of their number", labels=(*_MODEL, "reason"))
    for labels, sample in loaded.items():
        for reason, number in sample.instance_changes.items():
            changes.add_metric((*labels, reason), number)
    yield changes
    states = GaugeMetricFamily("inferd_model_state", "1 for the present state", labels=(*_MODEL, "state"))
    for labels, sample in samples.items():
        for state in MODEL_STATES:
            states.add_metric((*labels, state), float(state == sample.state))
    yield states


def load_families(loads: Mapping[str, LoadCounts]) -> Iterator[Metric]:
    """Yield loads by outcome, their durations, and unloads."""
    ended = CounterMetricFamily("inferd_model_loads", "Ended loads of versions", labels=("model", "outcome"))
    unloads = CounterMetricFamily("inferd_model_unloads", "Versions unloaded", labels=("model",))
    for model, counts in loads.items():
        unloads.add_metric((model,), counts.unloads)
        for outcome, number in counts.outcomes.items():
            ended.add_metric((model, outcome), number)
    yield ended
    yield unloads
    yield HistogramFamily(
        "inferd_model_load_duration_seconds",
        "Time from the request for a version to its readiness",
        ("model",),
        [((model,), counts.duration_s) for model, counts in loads.items() if counts.duration_s.count],
    )


def run_cost_families(costs: Mapping[ModelLabels, RunCost]) -> Iterator[Metric]:
    """Yield predicted durations of runs with one row and with the most rows, and the error of the predictions."""
    gauges: tuple[tuple[str, str, Callable[[PredictedRun], float]], ...] = (
        ("inferd_predicted_run_seconds", "Predicted duration of a run of the model", lambda run: run.seconds),
        ("inferd_predicted_run_p95_seconds", "Predicted 95th percentile of that duration", lambda run: run.p95_s),
    )
    for name, text, read in gauges:
        family = GaugeMetricFamily(name, text, labels=(*_MODEL, "rows"))
        for labels, cost in costs.items():
            # Both ends are the same without batching.
            for run in dict.fromkeys((cost.sizes[0], cost.sizes[-1])):
                family.add_metric((*labels, str(run.rows)), read(run))
        yield family
    errors = {labels: cost.error for labels, cost in costs.items() if cost.error is not None}
    yield gauge_family("inferd_run_prediction_error_ratio", "Typical error of the predictions", float, _MODEL, errors)


def gpu_families(gpus: Iterable[GpuSample]) -> Iterator[Metric]:
    """Yield utilization and memory of the GPUs; a device that does not report its utilization has no sample of it."""
    samples = {(sample.index, sample.uuid): sample for sample in gpus}
    if not samples:
        return
    busy = {labels: sample.utilization for labels, sample in samples.items() if sample.utilization is not None}
    yield gauge_family("inferd_gpu_utilization_ratio", "Fraction of time busy", float, _GPU, busy)
    yield gauge_family("inferd_gpu_memory_used_bytes", "Used memory", lambda gpu: gpu.used_bytes, _GPU, samples)
    yield gauge_family("inferd_gpu_memory_total_bytes", "Total memory", lambda gpu: gpu.total_bytes, _GPU, samples)


def gauge_family(
    name: str,
    text: str,
    read: Callable[[_Sample], float],
    label_names: tuple[str, ...],
    samples: Mapping[_Labels, _Sample],
) -> Metric:
    """Return a gauge that is read from each of ``samples``, which are by the values of their labels."""
    family = GaugeMetricFamily(name, text, labels=label_names)
    for labels, sample in samples.items():
        family.add_metric(labels, read(sample))
    return family
