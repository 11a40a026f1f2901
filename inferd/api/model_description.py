"""What a model is, in the terms of our own contract."""

from google.protobuf.duration_pb2 import Duration

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.models.version import ModelVersion
from inferd.runtime.signature import TensorSpec


def model_description(version: ModelVersion) -> pb.Model:
    """Return what there is to say of ``version``, whatever its state."""
    description = pb.Model(
        name=version.name,
        version=version.version,
        state=pb.Model.State.Value(f"STATE_{version.state.name}"),
        reason=version.reason,
        batching=_batching(version),
        providers=version.providers,
    )
    if version.signature is not None:
        description.inputs.extend(_tensor_info(spec) for spec in version.signature.inputs)
        description.outputs.extend(_tensor_info(spec) for spec in version.signature.outputs)
    return description


def _batching(version: ModelVersion) -> pb.Batching:
    batching, queue = version.settings.batching, version.settings.queue
    max_wait = Duration()
    max_wait.FromMicroseconds(round(batching.max_wait_ms * 1000))
    message = pb.Batching(
        enabled=version.max_batch_size > 1,
        max_batch_size=version.max_batch_size,
        max_wait=max_wait,
        instances=batching.instances,
        max_queue_rows=queue.max_rows,
        backpressure=queue.policy,
        priority_levels=queue.priority_levels,
    )
    verdict = version.verdict
    if verdict is not None:
        message.verdict = pb.Batching.Verdict.Value(f"VERDICT_{verdict.standing.name}")
        message.verdict_reason = verdict.reason
    if version.batcher is not None:
        counted = version.batcher.statistics()
        message.checks, message.mismatches = counted.checks, counted.mismatches
    return message


def _tensor_info(spec: TensorSpec) -> pb.TensorInfo:
    return pb.TensorInfo(
        name=spec.name,
        datatype=spec.datatype.proto,  # type: ignore[arg-type]  # enums are ints on the wire
        shape=[dimension if isinstance(dimension, int) else -1 for dimension in spec.shape],
        dimension_names=[dimension if isinstance(dimension, str) else "" for dimension in spec.shape],
        batch_axis=spec.batch_axis,
        optional=spec.optional,
    )
