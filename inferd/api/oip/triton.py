"""Triton's model configuration and statistics of a model version."""

from typing import cast

from inferd._generated.inference import grpc_service_pb2, model_config_pb2
from inferd.models.version import ModelVersion
from inferd.observability.metrics.models import BatchSizeStatistics, Durations
from inferd.runtime.signature import ModelSignature, TensorSpec

#: Triton's name for ONNX models, which clients display.
PLATFORM = "onnxruntime_onnx"


def model_config(version: ModelVersion, signature: ModelSignature) -> model_config_pb2.ModelConfig:
    """Return the configuration of ``version``.

    ``max_batch_size`` is 0 unless the batch axis of every tensor is the first: if it is above 0, clients assume that
    axis for each tensor, and ``dims`` leaves it out.
    """
    rows_first = signature.batchable and all(spec.batch_axis == 0 for spec in (*signature.inputs, *signature.outputs))
    batched = rows_first and version.max_batch_size > 1
    config = model_config_pb2.ModelConfig(
        name=version.name,
        platform=PLATFORM,
        backend="onnxruntime",
        max_batch_size=version.max_batch_size if batched else 0,
        input=[
            model_config_pb2.ModelInput(
                name=spec.name, data_type=_data_type(spec), dims=_dims(spec, batched=batched), optional=spec.optional
            )
            for spec in signature.inputs
        ],
        output=[
            model_config_pb2.ModelOutput(name=spec.name, data_type=_data_type(spec), dims=_dims(spec, batched=batched))
            for spec in signature.outputs
        ],
        instance_group=[_instance_group(version)],
        model_transaction_policy=model_config_pb2.ModelTransactionPolicy(decoupled=False),
    )
    if version.max_batch_size > 1:
        config.dynamic_batching.CopyFrom(_dynamic_batching(version))
    return config


def _dynamic_batching(version: ModelVersion) -> model_config_pb2.ModelDynamicBatching:
    batching, queue = version.settings.batching, version.settings.queue
    return model_config_pb2.ModelDynamicBatching(
        max_queue_delay_microseconds=round(batching.max_wait_ms * 1000),
        priority_levels=queue.priority_levels,
        default_priority_level=queue.default_priority,
        default_queue_policy=model_config_pb2.ModelQueuePolicy(
            timeout_action=model_config_pb2.ModelQueuePolicy.REJECT,
            default_timeout_microseconds=round(queue.default_timeout_ms * 1000),
            allow_timeout_override=True,
            max_queue_size=queue.max_rows,
        ),
    )


def _instance_group(version: ModelVersion) -> model_config_pb2.ModelInstanceGroup:
    on_gpu = any(name.startswith(("CUDA", "Tensorrt", "NvTensorRtRtx", "ROCM")) for name in version.providers)
    return model_config_pb2.ModelInstanceGroup(
        name=version.name,
        count=version.settings.batching.instances,
        kind=model_config_pb2.ModelInstanceGroup.KIND_GPU if on_gpu else model_config_pb2.ModelInstanceGroup.KIND_CPU,
    )


def _data_type(spec: TensorSpec) -> "model_config_pb2.DataType.ValueType":
    return cast("model_config_pb2.DataType.ValueType", spec.datatype.triton_config)


def _dims(spec: TensorSpec, *, batched: bool) -> list[int]:
    shape = spec.shape[1:] if batched else spec.shape
    return [dimension if isinstance(dimension, int) else -1 for dimension in shape]


def model_statistics(version: ModelVersion) -> grpc_service_pb2.ModelStatistics:
    """Return the statistics of ``version``; all zero if it has never been ready."""
    message = grpc_service_pb2.ModelStatistics(name=version.name, version=version.version)
    verdict = version.verdict
    if verdict is not None:
        message.batch_verdict, message.batch_verdict_reason = verdict.standing.value, verdict.reason
    if version.batcher is None:
        return message
    counted = version.batcher.statistics()
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


def _batch_size(rows: int, counted: BatchSizeStatistics) -> grpc_service_pb2.InferBatchStatistics:
    return grpc_service_pb2.InferBatchStatistics(
        batch_size=rows,
        compute_input=_duration(counted.compute_input),
        compute_infer=_duration(counted.compute_infer),
        compute_output=_duration(counted.compute_output),
    )


def _duration(durations: Durations) -> grpc_service_pb2.StatisticDuration:
    return grpc_service_pb2.StatisticDuration(count=durations.count, ns=durations.ns)
