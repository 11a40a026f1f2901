"""What has been counted, in Prometheus' form. Pure; called when a scrape comes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from inferd.observability.metrics.exposition import HistogramFamily
from inferd.observability.metrics.gpu import GpuSample
from inferd.observability.metrics.histogram import Histogram
from inferd.observability.metrics.models import ModelCounts
from inferd.observability.metrics.requests import RequestLabels
from inferd.observability.timing import STAGES

#: Label values of ``inferd_model_state``.
MODEL_STATES = ("loading", "ready", "failed", "unloading")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSample:
    """How one model version stands; ``state`` is one of `MODEL_STATES`, and what is not known yet is 0.

    ``queue_limit_rows`` is how many rows may wait at present, ``instances`` how many batches may run at the same time,
    ``capacity_rows_per_s`` how many rows all of them would run in a second, ``memory_bytes`` by how much the process
    grew as the version was loaded and warmed up, ``stuck_threads`` how many threads hang in a run that was given up.
    """

    model: str
    version: str
    state: str
    queue_rows: int = 0
    queue_limit_rows: int = 0
    queue_bytes: int = 0
    instances: int = 0
    capacity_rows_per_s: float = 0.0
    memory_bytes: int = 0
    stuck_threads: int = 0


class ServerUsage(Protocol):
    """What calls take of the server at present, and how many it has refused by itself, by reason."""

    @property
    def held_bytes(self) -> int: ...  # noqa: D102  see the families

    @property
    def taken_bytes(self) -> int: ...  # noqa: D102

    @property
    def budget_bytes(self) -> int | None: ...  # noqa: D102

    @property
    def refused(self) -> Mapping[str, int]: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """What is read when a scrape comes, in its thread. None of these may block."""

    models: Callable[[], Iterable[ModelSample]]
    inflight_requests: Callable[[], int]
    server_usage: Callable[[], ServerUsage]
    poll_lag_s: Callable[[], float]
    log_lines_dropped: Callable[[], int]
    spans_dropped: Callable[[], int]
    gpus: Callable[[], Iterable[GpuSample]]
    certificate_expiry: Callable[[], Mapping[str, float]]
    """By what the certificate is for; seconds since the epoch."""
    certificate_lifetimes_s: Callable[[], Mapping[str, float]]
    """How long each is valid in all."""
    file_reload_failures: Callable[[], Mapping[str, int]]
    """By what the files are for."""
    quota_rejections: Callable[[], Mapping[str, int]]
    """By the limit that was reached."""
    jwks_age_s: Callable[[], float | None]
    """Since the keys of the issuer were fetched; None if they do not come from a URL."""


_MODEL = ("model", "version")
_GPU = ("gpu", "uuid")

#: Names of model and version.
ModelLabels = tuple[str, str]

_Sample = TypeVar("_Sample")


def request_families(series: Mapping[RequestLabels, Histogram]) -> Iterator[Metric]:
    """How RPCs ended."""
    requests = CounterMetricFamily("inferd_requests", "RPCs that ended", labels=RequestLabels._fields)
    for labels, durations in series.items():
        requests.add_metric(labels, durations.count)
    yield requests
    yield HistogramFamily(
        "inferd_request_duration_seconds", "From accepting an RPC to its status", RequestLabels._fields, series.items()
    )


def model_families(models: Mapping[ModelLabels, ModelCounts]) -> Iterator[Metric]:
    """What batching counted."""
    counters: tuple[tuple[str, str, Callable[[ModelCounts], float]], ...] = (
        ("inferd_offered_rows", "Rows that asked to be admitted, also those refused", lambda m: m.offered_rows),
        ("inferd_caller_runs", "Requests that ran outside the queue", lambda m: m.caller_runs),
        ("inferd_batch_failures", "Runs of the model that failed", lambda m: m.batch_failures),
        ("inferd_batch_checks", "Batches of which a member ran again alone", lambda m: m.checks),
        ("inferd_batch_check_seconds", "Runs of members of batches again alone", lambda m: m.check_s),
        ("inferd_batch_mismatches", "Batches of which a member got another answer alone", lambda m: m.mismatches),
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
        yield HistogramFamily(name, text, _MODEL, [(labels, histogram(counts)) for labels, counts in models.items()])
    yield _ended_runs(models)
    yield _stages(models)
    yield _rejected(models)


def certificate_families(expiry: Mapping[str, float], lifetimes_s: Mapping[str, float]) -> Iterator[Metric]:
    """How long the certificates in force will do."""
    for name, text, by_file in (
        ("inferd_certificate_expiry_timestamp_seconds", "When what is in force expires", expiry),
        ("inferd_certificate_lifetime_seconds", "How long what is in force is valid in all", lifetimes_s),
    ):
        family = GaugeMetricFamily(name, text, labels=("file",))
        for file, value in by_file.items():
            family.add_metric((file,), value)
        yield family


def file_families(reload_failures: Mapping[str, int]) -> Iterator[Metric]:
    """How the files stand that are read again when they change."""
    failures = CounterMetricFamily(
        "inferd_file_reload_failures", "Changed files that could not be used", labels=("file",)
    )
    for name, count in reload_failures.items():
        failures.add_metric((name,), count)
    yield failures


def caller_families(quota_rejections: Mapping[str, int], jwks_age_s: float | None) -> Iterator[Metric]:
    """What callers were refused for what they had asked for before, and how old what is known of them is."""
    rejected = CounterMetricFamily("inferd_quota_rejected", "Requests over their caller's quota", labels=("reason",))
    for reason, count in quota_rejections.items():
        rejected.add_metric((reason,), count)
    yield rejected
    if jwks_age_s is not None:
        yield GaugeMetricFamily("inferd_jwks_age_seconds", "Since the issuer's keys were fetched", value=jwks_age_s)


def usage_families(usage: ServerUsage) -> Iterator[Metric]:
    """What calls take of the server's memory, and what it refuses before a model is asked."""
    gauges = (
        ("inferd_message_bytes", "Bytes of request messages whose calls are open", usage.held_bytes),
        ("inferd_request_memory_bytes", "How much the process has grown by requests", usage.taken_bytes),
        ("inferd_request_memory_limit_bytes", "How much the process may grow by requests", usage.budget_bytes),
    )
    for name, text, value in gauges:
        if value is not None:
            yield GaugeMetricFamily(name, text, value=value)
    refused = CounterMetricFamily(
        "inferd_calls_refused", "RPCs that were refused by the limits of the server", labels=("reason",)
    )
    for reason, count in usage.refused.items():
        refused.add_metric((reason,), count)
    yield refused


def _stages(models: Mapping[ModelLabels, ModelCounts]) -> Metric:
    series = []
    for labels, counts in models.items():
        if not counts.run_s.count:
            # Half of what there is to tell of a version, and no rule asks for it: left out until it has run.
            continue
        durations = (counts.decode_s, counts.queue_s, counts.stack_s, counts.run_s, counts.encode_s)
        series += [((*labels, stage), each) for stage, each in zip(STAGES, durations, strict=True)]
    return HistogramFamily(
        "inferd_stage_duration_seconds", "Where the time of a request goes", (*_MODEL, "stage"), series
    )


def _ended_runs(models: Mapping[ModelLabels, ModelCounts]) -> Metric:
    family = CounterMetricFamily("inferd_runs_terminated", "Runs that were ended early", labels=(*_MODEL, "reason"))
    for labels, counts in models.items():
        for reason, number in counts.ended_runs.items():
            family.add_metric((*labels, reason), number)
    return family


def _rejected(models: Mapping[ModelLabels, ModelCounts]) -> Metric:
    family = CounterMetricFamily("inferd_rejected", "Requests refused or shed", labels=(*_MODEL, "reason"))
    for labels, counts in models.items():
        for reason, number in counts.rejected.items():
            family.add_metric((*labels, reason), number)
    return family


def state_families(models: Iterable[ModelSample]) -> Iterator[Metric]:
    """How the model versions stand."""
    samples = {(sample.model, sample.version): sample for sample in models}
    gauges: tuple[tuple[str, str, Callable[[ModelSample], float]], ...] = (
        ("inferd_queue_rows", "Rows that wait", lambda m: m.queue_rows),
        ("inferd_queue_limit_rows", "Rows that may wait at present", lambda m: m.queue_limit_rows),
        ("inferd_queue_bytes", "Bytes of inputs that wait", lambda m: m.queue_bytes),
        ("inferd_model_instances", "Batches that may run at the same time", lambda m: m.instances),
        (
            "inferd_model_capacity_rows_per_second",
            "Rows that runs at their best get done",
            lambda m: m.capacity_rows_per_s,
        ),
        ("inferd_stuck_threads", "Threads that hang in a run that was given up", lambda m: m.stuck_threads),
        ("inferd_model_memory_bytes", "How much the process grew as it was loaded", lambda m: m.memory_bytes),
    )
    for gauge in gauges:
        yield _gauge(*gauge, _MODEL, samples)
    states = GaugeMetricFamily("inferd_model_state", "1 for the state it is in", labels=(*_MODEL, "state"))
    for labels, sample in samples.items():
        for state in MODEL_STATES:
            states.add_metric((*labels, state), float(state == sample.state))
    yield states


def gpu_families(gpus: Iterable[GpuSample]) -> Iterator[Metric]:
    """How the GPUs stand; a device that does not tell its utilization has no sample of it."""
    samples = {(sample.index, sample.uuid): sample for sample in gpus}
    if not samples:
        return
    busy = {labels: sample.utilization for labels, sample in samples.items() if sample.utilization is not None}
    yield _gauge("inferd_gpu_utilization_ratio", "Part of the time it was busy", float, _GPU, busy)
    yield _gauge("inferd_gpu_memory_used_bytes", "Memory in use", lambda gpu: gpu.used_bytes, _GPU, samples)
    yield _gauge("inferd_gpu_memory_total_bytes", "Memory there is", lambda gpu: gpu.total_bytes, _GPU, samples)


def _gauge(
    name: str,
    text: str,
    read: Callable[[_Sample], float],
    label_names: tuple[str, ...],
    samples: Mapping[tuple[str, str], _Sample],
) -> Metric:
    family = GaugeMetricFamily(name, text, labels=label_names)
    for labels, sample in samples.items():
        family.add_metric(labels, read(sample))
    return family
