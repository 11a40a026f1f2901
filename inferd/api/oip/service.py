"""``inference.GRPCInferenceService``: inference, health, what is known of the models, and their loading."""

from typing import Any

import grpc

from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.handler_resources import HandlerResources
from inferd.api.oip import queries
from inferd.api.oip.codec import OpenInferenceCodec
from inferd.api.oip.generation import UnaryGenerations
from inferd.api.oip.queries import OpenInferenceQueries
from inferd.api.oip.repository import repository_handlers
from inferd.api.oip.stream import OpenInferenceStream
from inferd.api.repository import RepositoryControl
from inferd.api.request_decoder import RequestDecoder
from inferd.api.unary import UnaryInference, query_handler
from inferd.rpc import StreamCall, callback_stream, callback_unary


class OpenInferenceService:
    """Handlers of the service's methods, for clients of Triton and KServe."""

    def __init__(
        self,
        resources: HandlerResources,
        control: RepositoryControl,
        answers: OpenInferenceQueries,
    ) -> None:
        self._resources = resources
        self._control = control
        self._answers = answers
        self._decoder = RequestDecoder(OpenInferenceCodec(resources.limits))

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """Return the handler of each method, by name."""
        answers = self._answers
        registry, statuses, waits = self._resources.registry, self._resources.statuses, self._resources.waits
        return {
            "ServerLive": query_handler(pb.ServerLiveRequest, queries.server_live, registry, statuses),
            "ServerReady": query_handler(pb.ServerReadyRequest, answers.server_ready, registry, statuses),
            "ServerMetadata": query_handler(pb.ServerMetadataRequest, queries.server_metadata, registry, statuses),
            "ModelReady": query_handler(pb.ModelReadyRequest, queries.model_ready, registry, statuses),
            "ModelMetadata": query_handler(
                pb.ModelMetadataRequest, queries.model_metadata, registry, statuses, waits=waits
            ),
            "ModelConfig": query_handler(pb.ModelConfigRequest, queries.model_config, registry, statuses, waits=waits),
            "ModelStatistics": query_handler(pb.ModelStatisticsRequest, answers.model_statistics, registry, statuses),
            "ModelInfer": callback_unary(
                UnaryInference(
                    self._decoder,
                    registry,
                    statuses,
                    self._resources.large_messages,
                    waits,
                    UnaryGenerations(self._resources).begin,
                )
            ),
            "ModelStreamInfer": callback_stream(self._open_stream),
            **repository_handlers(self._control),
        }

    def _open_stream(self, call: StreamCall) -> OpenInferenceStream:
        return OpenInferenceStream(call, self._decoder, self._resources).open()
