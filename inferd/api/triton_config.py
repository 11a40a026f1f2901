"""How a model is served, in the terms of Triton's model configuration."""

from typing import cast

from inferd._generated.inference import model_config_pb2 as pb
from inferd.models.version import ModelVersion
from inferd.runtime.signature import ModelSignature, TensorSpec

#: Triton's name for ONNX models, which its clients show.
PLATFORM = "onnxruntime_onnx"


def model_config(version: ModelVersion, signature: ModelSignature) -> pb.ModelConfig:
    """Return the configuration of ``version``.

    ``max_batch_size`` is 0 unless every tensor has its rows first: with it above 0, readers take the batch dimension
    of each tensor as given and leave it out of the dimensions.
    """
    rows_first = signature.batchable and all(spec.batch_axis == 0 for spec in (*signature.inputs, *signature.outputs))
    batched = rows_first and version.max_batch_size > 1
    config = pb.ModelConfig(
        name=version.name,
        platform=PLATFORM,
        backend="onnxruntime",
        max_batch_size=version.max_batch_size if batched else 0,
        input=[
            pb.ModelInput(
                name=spec.name, data_type=_data_type(spec), dims=_dims(spec, batched=batched), optional=spec.optional
            )
            for spec in signature.inputs
        ],
        output=[
            pb.ModelOutput(name=spec.name, data_type=_data_type(spec), dims=_dims(spec, batched=batched))
            for spec in signature.outputs
        ],
        instance_group=[_instance_group(version)],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=False),
    )
    if version.max_batch_size > 1:
        config.dynamic_batching.CopyFrom(_dynamic_batching(version))
    return config


def _dynamic_batching(version: ModelVersion) -> pb.ModelDynamicBatching:
    batching, queue = version.settings.batching, version.settings.queue
    return pb.ModelDynamicBatching(
        max_queue_delay_microseconds=round(batching.max_wait_ms * 1000),
        priority_levels=queue.priority_levels,
        default_priority_level=queue.default_priority,
        default_queue_policy=pb.ModelQueuePolicy(
            timeout_action=pb.ModelQueuePolicy.REJECT,
            default_timeout_microseconds=round(queue.default_timeout_ms * 1000),
            allow_timeout_override=True,
            max_queue_size=queue.max_rows,
        ),
    )


def _instance_group(version: ModelVersion) -> pb.ModelInstanceGroup:
    on_gpu = any(name.startswith(("CUDA", "Tensorrt", "NvTensorRtRtx", "ROCM")) for name in version.providers)
    return pb.ModelInstanceGroup(
        name=version.name,
        count=version.settings.batching.instances,
        kind=pb.ModelInstanceGroup.KIND_GPU if on_gpu else pb.ModelInstanceGroup.KIND_CPU,
    )


def _data_type(spec: TensorSpec) -> "pb.DataType.ValueType":
    return cast("pb.DataType.ValueType", spec.datatype.triton_config)


def _dims(spec: TensorSpec, *, batched: bool) -> list[int]:
    shape = spec.shape[1:] if batched else spec.shape
    return [dimension if isinstance(dimension, int) else -1 for dimension in shape]
