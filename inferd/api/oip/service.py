"""``inference.GRPCInferenceService``: inference, health, what is known of the models, and their loading."""

from collections.abc import Callable, Mapping
from typing import Any

import grpc

import inferd
from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.admission import ModelView
from inferd.api.handler_resources import HandlerResources
from inferd.api.oip.codec import OpenInferenceCodec
from inferd.api.oip.model_config import PLATFORM, model_config
from inferd.api.oip.repository import repository_handlers
from inferd.api.oip.statistics import model_statistics
from inferd.api.oip.stream import OpenInferenceStream
from inferd.api.repository import RepositoryControl
from inferd.api.request_decoder import RequestDecoder
from inferd.api.stream import open_stream
from inferd.api.unary import UnaryInference, query_handler
from inferd.errors import ModelNotFoundError
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.observability.metrics.residency import ResidencyCounts
from inferd.rpc import StreamCall, callback_stream, callback_unary
from inferd.runtime.signature import TensorSpec

#: Triton's names of the extensions that are implemented.
EXTENSIONS = (
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "statistics",
)


class OpenInferenceService:
    """Handlers of the service's methods, for clients of Triton and KServe."""

    def __init__(
        self,
        resources: HandlerResources,
        control: RepositoryControl,
        is_ready: Callable[[], bool],
        *,
        counts: Callable[[str], ResidencyCounts],
        cold_requests: Mapping[str, int],
    ) -> None:
        self._counts = counts
        self._cold_requests = cold_requests
        self._resources = resources
        self._control = control
        self._is_ready = is_ready
        self._decoder = RequestDecoder(OpenInferenceCodec(resources.limits))

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """Return the handler of each method, by name."""
        registry, statuses, waits = self._resources.registry, self._resources.statuses, self._resources.waits
        return {
            "ServerLive": query_handler(pb.ServerLiveRequest, _server_live, registry, statuses),
            "ServerReady": query_handler(pb.ServerReadyRequest, self._server_ready, registry, statuses),
            "ServerMetadata": query_handler(pb.ServerMetadataRequest, _server_metadata, registry, statuses),
            "ModelReady": query_handler(pb.ModelReadyRequest, _model_ready, registry, statuses),
            "ModelMetadata": query_handler(pb.ModelMetadataRequest, _model_metadata, registry, statuses, waits=waits),
            "ModelConfig": query_handler(pb.ModelConfigRequest, _model_config, registry, statuses, waits=waits),
            "ModelStatistics": query_handler(pb.ModelStatisticsRequest, self._model_statistics, registry, statuses),
            "ModelInfer": callback_unary(
                UnaryInference(self._decoder, registry, statuses, self._resources.large_messages, waits)
            ),
            "ModelStreamInfer": callback_stream(self._open_stream),
            **repository_handlers(self._control),
        }

    def _open_stream(self, call: StreamCall) -> OpenInferenceStream:
        return open_stream(OpenInferenceStream(call, self._decoder, self._resources), self._resources)

    def _server_ready(self, _: pb.ServerReadyRequest, _models: ModelView) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._is_ready())

    def _model_statistics(self, query: pb.ModelStatisticsRequest, models: ModelView) -> pb.ModelStatisticsResponse:
        if query.name:
            versions = [models.find(query.name, query.version)]
        else:
            versions = [version for version in models.all() if version.signature is not None]
        statistics = [
            model_statistics(version, self._counts(version.name), self._cold_requests.get(version.name, 0))
            for version in versions
        ]
        return pb.ModelStatisticsResponse(model_stats=statistics)


def _server_live(_: pb.ServerLiveRequest, _models: ModelView) -> pb.ServerLiveResponse:
    return pb.ServerLiveResponse(live=True)


def _server_metadata(_: pb.ServerMetadataRequest, _models: ModelView) -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(name="inferd", version=inferd.__version__, extensions=EXTENSIONS)


def _model_ready(query: pb.ModelReadyRequest, models: ModelView) -> pb.ModelReadyResponse:
    if not query.name:
        # As Triton, although inference requests may leave out the name of the only model.
        return pb.ModelReadyResponse(ready=False)
    try:
        ready = models.find(query.name, query.version).accepts_requests
    except ModelNotFoundError:
        ready = False
    return pb.ModelReadyResponse(ready=ready)


def _model_metadata(query: pb.ModelMetadataRequest, models: ModelView) -> pb.ModelMetadataResponse:
    version = models.find(query.name, query.version)
    signature = version.require_signature()
    return pb.ModelMetadataResponse(
        name=version.name,
        # In ascending order, as Triton's: clients take the last one for the latest.
        versions=sorted((each.version for each in models.all() if _serves(each, version.name)), key=int),
        platform=PLATFORM,
        inputs=[_tensor_metadata(spec) for spec in signature.inputs],
        outputs=[_tensor_metadata(spec) for spec in signature.outputs],
    )


def _serves(version: ModelVersion, name: str) -> bool:
    return version.name == name and version.state is ModelState.READY


def _model_config(query: pb.ModelConfigRequest, models: ModelView) -> pb.ModelConfigResponse:
    version = models.find(query.name, query.version)
    return pb.ModelConfigResponse(config=model_config(version, version.require_signature()))


def _tensor_metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name,
        datatype=spec.datatype.name,
        shape=[dimension if isinstance(dimension, int) else -1 for dimension in spec.shape],
    )
