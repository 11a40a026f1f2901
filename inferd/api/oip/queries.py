"""Answers to the queries of the Open Inference Protocol, from messages to messages, for all its transports."""

from collections.abc import Callable, Mapping

import inferd
from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.admission import ModelView
from inferd.api.generation.triton import SIGNATURE as GENERATION_SIGNATURE
from inferd.api.oip.model_config import PLATFORM
from inferd.api.oip.model_config import model_config as config_of
from inferd.api.oip.statistics import model_statistics as statistics_of
from inferd.errors import ModelNotFoundError, ModelUnavailableError
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.observability.metrics.residency import ResidencyCounts
from inferd.runtime.signature import ModelSignature, TensorSpec

#: Triton's names of the extensions that are implemented.
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "statistics",
)


class OpenInferenceQueries:
    """Answers queries; on the poll thread. Methods get the models that the caller sees; they raise `ServingError`."""

    def __init__(
        self,
        is_ready: Callable[[], bool],
        counts: Callable[[str], ResidencyCounts],
        cold_requests: Mapping[str, int],
    ) -> None:
        self._is_ready = is_ready
        self._counts = counts
        self._cold_requests = cold_requests

    def server_ready(self, _: pb.ServerReadyRequest, _models: ModelView) -> pb.ServerReadyResponse:
        """Return whether the server is ready."""
        return pb.ServerReadyResponse(ready=self._is_ready())

    def model_statistics(self, query: pb.ModelStatisticsRequest, models: ModelView) -> pb.ModelStatisticsResponse:
        """Return what versions have done: one, all of a model that answer requests, or all that are loaded."""
        if query.name:
            versions = _answering(models, query)
        else:
            versions = [version for version in models.all() if version.state is ModelState.READY]
        statistics = [
            statistics_of(version, self._counts(version.name), self._cold_requests.get(version.name, 0))
            for version in versions
        ]
        return pb.ModelStatisticsResponse(model_stats=statistics)


def _answering(models: ModelView, query: pb.ModelStatisticsRequest) -> list[ModelVersion]:
    """Return the versions that ``query`` names and that answer requests, at least one."""
    found = models.find(query.name, query.version)
    # What a session that runs nothing has done counts until it is opened again.
    if not (found.accepts_requests or found.state is ModelState.READY):
        raise found.unavailable()
    if query.version:
        return [found]
    return [each for each in models.all() if each is found or (each.name == found.name and each.accepts_requests)]


def server_live(_: pb.ServerLiveRequest, _models: ModelView) -> pb.ServerLiveResponse:
    """Return that the server is alive."""
    return pb.ServerLiveResponse(live=True)


def server_metadata(_: pb.ServerMetadataRequest, _models: ModelView) -> pb.ServerMetadataResponse:
    """Return what the server is."""
    return pb.ServerMetadataResponse(name="inferd", version=inferd.__version__, extensions=EXTENSIONS)


def model_ready(query: pb.ModelReadyRequest, models: ModelView) -> pb.ModelReadyResponse:
    """Return whether a version accepts requests; one that does not exist does not."""
    if not query.name:
        # As Triton, although inference requests may leave out the name of the only model.
        return pb.ModelReadyResponse(ready=False)
    try:
        ready = models.find(query.name, query.version).accepts_requests
    except (ModelNotFoundError, ModelUnavailableError):
        ready = False
    return pb.ModelReadyResponse(ready=ready)


def model_metadata(query: pb.ModelMetadataRequest, models: ModelView) -> pb.ModelMetadataResponse:
    """Return the inputs and outputs of a version."""
    version = models.find(query.name, query.version)
    signature = _signature(version)
    return pb.ModelMetadataResponse(
        name=version.name,
        # In ascending order, as Triton's: clients take the last one for the latest.
        versions=sorted((each.version for each in models.all() if _serves(each, version.name)), key=int),
        platform=PLATFORM,
        inputs=[_tensor_metadata(spec) for spec in signature.inputs],
        outputs=[_tensor_metadata(spec) for spec in signature.outputs],
    )


def _signature(version: ModelVersion) -> ModelSignature:
    """Return what clients may send and get; of a language model that is what Triton's vLLM backend has."""
    return version.require_signature() if version.language is None else GENERATION_SIGNATURE


def _serves(version: ModelVersion, name: str) -> bool:
    return version.name == name and version.state is ModelState.READY


def model_config(query: pb.ModelConfigRequest, models: ModelView) -> pb.ModelConfigResponse:
    """Return the configuration of a version."""
    version = models.find(query.name, query.version)
    config = config_of(version, _signature(version), decoupled=version.language is not None)
    return pb.ModelConfigResponse(config=config)


def _tensor_metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name,
        datatype=spec.datatype.name,
        shape=[dimension if isinstance(dimension, int) else -1 for dimension in spec.shape],
    )
