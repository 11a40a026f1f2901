"""``inferd.v1.InferenceService``: our own contract."""

from typing import Any

import grpc

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.api.access import ModelView
from inferd.api.inference_messages import InferenceCodec
from inferd.api.inference_stream import InferenceStream
from inferd.api.model_description import model_description
from inferd.api.queries import query_handler
from inferd.api.reader import RequestReader
from inferd.api.streaming import StreamParts, open_stream
from inferd.api.unary import UnaryInference
from inferd.rpc import StreamCall, callback_stream, callback_unary


class InferenceService:
    """Runs models and tells what they are."""

    def __init__(self, parts: StreamParts) -> None:
        self._parts = parts
        self._reader = RequestReader(InferenceCodec(parts.limits))

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """Return the handler of each method, by its name."""
        registry, statuses = self._parts.registry, self._parts.statuses
        return {
            "Infer": callback_unary(UnaryInference(self._reader, registry, statuses, self._parts.large_messages)),
            "StreamInfer": callback_stream(self._open_stream),
            "ListModels": query_handler(pb.ListModelsRequest, _list_models, registry, statuses),
            "GetModel": query_handler(pb.GetModelRequest, _get_model, registry, statuses),
        }

    def _open_stream(self, call: StreamCall) -> InferenceStream:
        return open_stream(InferenceStream(call, self._reader, self._parts), self._parts)


def _list_models(_: pb.ListModelsRequest, models: ModelView) -> pb.ListModelsResponse:
    return pb.ListModelsResponse(models=[model_description(version) for version in models.all()])


def _get_model(query: pb.GetModelRequest, models: ModelView) -> pb.GetModelResponse:
    return pb.GetModelResponse(model=model_description(models.find(query.model, query.version)))
