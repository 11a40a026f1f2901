"""Triton's metrics, from the same counts as inferd's own, for dashboards and autoscalers that were made for Triton."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.metrics_core import Metric

from inferd.observability.metrics.exposition import BareCounterFamily
from inferd.observability.metrics.families import ModelLabels, ModelSample, gauge_family
from inferd.observability.metrics.gpu import GpuSample
from inferd.observability.metrics.models import ModelCounts

_MODEL = ("model", "version")
_NS_PER_US = 1000

#: Name, help text and value of each counter of a model version.
_COUNTERS: tuple[tuple[str, str, Callable[[ModelCounts], int]], ...] = (
    ("nv_inference_request_success", "Answered requests", lambda m: m.success.count),
    ("nv_inference_count", "Rows of completed runs", lambda m: m.inference_count),
    ("nv_inference_exec_count", "Completed runs of the model", lambda m: m.execution_count),
    ("nv_inference_request_duration_us", "Time of answered requests", lambda m: m.success.ns // _NS_PER_US),
    ("nv_inference_queue_duration_us", "Their time in the queue", lambda m: m.queue.ns // _NS_PER_US),
    ("nv_inference_compute_input_duration_us", "Time to stack rows", lambda m: m.compute_input.ns // _NS_PER_US),
    ("nv_inference_compute_infer_duration_us", "Time of runs", lambda m: m.compute_infer.ns // _NS_PER_US),
    ("nv_inference_compute_output_duration_us", "Time to split rows", lambda m: m.compute_output.ns // _NS_PER_US),
)


def triton_families(
    models: Mapping[ModelLabels, ModelCounts], samples: Iterable[ModelSample], gpus: Iterable[GpuSample]
) -> Iterator[Metric]:
    """Return the metrics of models and GPUs by Triton's names, with its labels."""
    for name, text, read in _COUNTERS:
        family = BareCounterFamily(name, text, _MODEL)
        for labels, counts in models.items():
            family.add(labels, read(counts))
        yield family
    yield _failures(models)
    waiting = {(sample.model, sample.version): sample.queue_requests for sample in samples if sample.instances}
    yield gauge_family("nv_inference_pending_request_count", "Waiting requests", float, _MODEL, waiting)
    yield from _gpu_families(gpus)


def _failures(models: Mapping[ModelLabels, ModelCounts]) -> Metric:
    family = BareCounterFamily("nv_inference_request_failure", "Failed requests", (*_MODEL, "reason"))
    for labels, counts in models.items():
        family.add((*labels, "REJECTED"), counts.fail.count - counts.model_failures)
        family.add((*labels, "BACKEND"), counts.model_failures)
    return family


def _gpu_families(gpus: Iterable[GpuSample]) -> Iterator[Metric]:
    by_uuid = {(gpu.uuid,): gpu for gpu in gpus}
    if not by_uuid:
        return
    label = ("gpu_uuid",)
    busy = {labels: gpu.utilization for labels, gpu in by_uuid.items() if gpu.utilization is not None}
    yield gauge_family("nv_gpu_utilization", "Fraction of time busy", float, label, busy)
    yield gauge_family("nv_gpu_memory_total_bytes", "Total memory", lambda gpu: gpu.total_bytes, label, by_uuid)
    yield gauge_family("nv_gpu_memory_used_bytes", "Used memory", lambda gpu: gpu.used_bytes, label, by_uuid)
