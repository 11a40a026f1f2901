"""Triton's statistics of a model version."""

from collections.abc import Iterator

from inferd._generated.inference import grpc_service_pb2
from inferd.models.version import ModelVersion
from inferd.observability.metrics.models import BatchSizeStatistics, Durations
from inferd.observability.metrics.residency import ResidencyCounts


def model_statistics(
    version: ModelVersion, residency: ResidencyCounts, cold_requests: int
) -> grpc_service_pb2.ModelStatistics:
    """Return the statistics of ``version``; all zero if it has never been ready.

    ``residency`` is that of its model, and ``cold_requests`` are those that have found the model not loaded.
    """
    message = grpc_service_pb2.ModelStatistics(
        name=version.name,
        version=version.version,
        model_loads=sum(residency.loads.values()),
        model_evictions=sum(residency.evictions.values()),
        cold_requests=cold_requests,
    )
    verdict = version.verdict
    if verdict is not None:
        message.batch_verdict, message.batch_verdict_reason = verdict.standing.value, verdict.reason
    engine = version.batcher or version.generator
    if engine is None:
        return message
    message.memory_usage.extend(_memory_usage(version))
    counted = engine.statistics()
    message.last_inference = counted.last_inference_ms
    message.inference_count = counted.inference_count
    message.execution_count = counted.execution_count
    message.batch_checks = counted.checks
    message.batch_mismatches = counted.mismatches
    message.inference_stats.CopyFrom(
        grpc_service_pb2.InferStatistics(
            success=_duration(counted.success),
            fail=_duration(counted.fail),
            queue=_duration(counted.queue),
            compute_input=_duration(counted.compute_input),
            compute_infer=_duration(counted.compute_infer),
            compute_output=_duration(counted.compute_output),
            cache_hit=grpc_service_pb2.StatisticDuration(),
            cache_miss=grpc_service_pb2.StatisticDuration(),
        )
    )
    message.batch_stats.extend(_batch_size(rows, of_size) for rows, of_size in counted.batch_sizes.items())
    return message


def _memory_usage(version: ModelVersion) -> Iterator[grpc_service_pb2.MemoryUsage]:
    for kind, size in (("CPU", version.memory_bytes), ("GPU", version.device_memory_bytes)):
        if size:
            yield grpc_service_pb2.MemoryUsage(type=kind, byte_size=size)


def _batch_size(rows: int, counted: BatchSizeStatistics) -> grpc_service_pb2.InferBatchStatistics:
    return grpc_service_pb2.InferBatchStatistics(
        batch_size=rows,
        compute_input=_duration(counted.compute_input),
        compute_infer=_duration(counted.compute_infer),
        compute_output=_duration(counted.compute_output),
    )


def _duration(durations: Durations) -> grpc_service_pb2.StatisticDuration:
    return grpc_service_pb2.StatisticDuration(count=durations.count, ns=durations.ns)
