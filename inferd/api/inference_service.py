"""``inferd.v1.InferenceService``: our own contract."""

from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.api.access import ModelView
from inferd.api.inference_messages import InferenceCodec
from inferd.api.inference_stream import InferenceStream
from inferd.api.queries import query_handler
from inferd.api.reader import RequestReader
from inferd.api.streaming import StreamParts, open_stream
from inferd.api.unary import UnaryInference
from inferd.models.version import ModelVersion
from inferd.rpc import StreamCall, callback_stream, callback_unary
from inferd.runtime.signature import TensorSpec


class InferenceService:
    """Runs models and tells what they are."""

    def __init__(self, parts: StreamParts) -> None:
        self._parts = parts
        self._reader = RequestReader(InferenceCodec())

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """Return the handler of each method, by its name."""
        registry, statuses = self._parts.registry, self._parts.statuses
        return {
            "Infer": callback_unary(UnaryInference(self._reader, registry, statuses)),
            "StreamInfer": callback_stream(self._open_stream),
            "ListModels": query_handler(pb.ListModelsRequest, _list_models, registry, statuses),
            "GetModel": query_handler(pb.GetModelRequest, _get_model, registry, statuses),
        }

    def _open_stream(self, call: StreamCall) -> InferenceStream:
        return open_stream(InferenceStream(call, self._reader, self._parts), self._parts)


def _list_models(_: pb.ListModelsRequest, models: ModelView) -> pb.ListModelsResponse:
    return pb.ListModelsResponse(models=[_model(version) for version in models.all()])


def _get_model(query: pb.GetModelRequest, models: ModelView) -> pb.GetModelResponse:
    return pb.GetModelResponse(model=_model(models.find(query.model, query.version)))


def _model(version: ModelVersion) -> pb.Model:
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
    return pb.Batching(
        enabled=version.max_batch_size > 1,
        max_batch_size=version.max_batch_size,
        max_wait=max_wait,
        instances=batching.instances,
        max_queue_rows=queue.max_rows,
        backpressure=queue.policy,
        priority_levels=queue.priority_levels,
    )


def _tensor_info(spec: TensorSpec) -> pb.TensorInfo:
    return pb.TensorInfo(
        name=spec.name,
        datatype=spec.datatype.proto,  # type: ignore[arg-type]  # enums are ints on the wire
        shape=[dimension if isinstance(dimension, int) else -1 for dimension in spec.shape],
        dimension_names=[dimension if isinstance(dimension, str) else "" for dimension in spec.shape],
        batch_axis=spec.batch_axis,
    )
