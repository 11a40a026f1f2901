"""Calls to a server besides the load: metadata of models, single requests and statistics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

import inferd
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from inferd.arguments import Metadata
from inferd.client import DeadlineExceeded, InferdError, Unavailable, Unimplemented
from inferd.client.errors import from_rpc_error
from inferd.endpoint import Endpoint

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"

#: Long, as a server under load may answer late.
_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorForm:
    """An input as the server declares it; -1 is a dynamic dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelForm:
    """A model as the server describes it; ``is_decoupled`` if a request may have several answers."""

    name: str
    platform: str
    inputs: tuple[TensorForm, ...]
    is_decoupled: bool = False


def channel_options(endpoint: Endpoint) -> list[tuple[str, str | int]]:
    """Return the options of every channel: a connection of its own, and no retries, which would not be counted."""
    own: dict[str, str | int] = {
        "grpc.primary_user_agent": f"inferd-bench/{inferd.__version__}",
        "grpc.max_receive_message_length": -1,
        "grpc.max_send_message_length": -1,
        "grpc.use_local_subchannel_pool": 1,
        "grpc.enable_retries": 0,
        "grpc.service_config_disable_resolution": 1,
    }
    return list((own | endpoint.options()).items())


class Server:
    """A client of the Open Inference Protocol, which must be closed. Failed calls raise `InferdError`."""

    def __init__(self, endpoint: Endpoint) -> None:
        options = channel_options(endpoint)
        if endpoint.tls is None:
            self._channel = grpc.insecure_channel(endpoint.address, options)
        else:
            self._channel = grpc.secure_channel(endpoint.address, endpoint.tls.credentials(), options)
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._infer = self._channel.unary_unary(MODEL_INFER, None, None)
        self._metadata = endpoint.metadata()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def describe(self) -> Mapping[str, str]:
        """Return the server's name and version; empty if it does not report them."""
        try:
            answer = self._call(self._stub.ServerMetadata, oip.ServerMetadataRequest())
        except Unimplemented:
            return {"name": "", "version": ""}
        return {"name": answer.name, "version": answer.version}

    def away(self) -> str:
        """Return the error if the server answers no calls, or an empty text."""
        try:
            self.describe()
        except (Unavailable, DeadlineExceeded) as error:
            return f"{error.status.name}: {error.message}"
        except InferdError:
            pass
        return ""

    def model(self, name: str, version: str) -> ModelForm:
        """Return the inputs of a model, and whether it is decoupled."""
        answer = self._call(self._stub.ModelMetadata, oip.ModelMetadataRequest(name=name, version=version))
        inputs = tuple(
            TensorForm(name=each.name, datatype=each.datatype, shape=tuple(each.shape)) for each in answer.inputs
        )
        is_decoupled = self._is_decoupled(name, version)
        return ModelForm(name=name, platform=answer.platform, inputs=inputs, is_decoupled=is_decoupled)

    def _is_decoupled(self, name: str, version: str) -> bool:
        """Return whether the model's configuration says so; not all servers have one, or give it to all callers."""
        try:
            answer = self._call(self._stub.ModelConfig, oip.ModelConfigRequest(name=name, version=version))
        except InferdError:
            return False
        return bool(answer.config.model_transaction_policy.decoupled)

    def infer(self, message: bytes, metadata: Metadata) -> bytes:
        """Send one serialized request and return the serialized answer."""
        answer: bytes = self._call(self._infer, message, metadata)
        return answer

    def statistics(self, name: str, version: str) -> list[oip.ModelStatistics] | str:
        """Return the statistics of a model's versions, or the reason why there are none."""
        request = oip.ModelStatisticsRequest(name=name, version=version)
        try:
            answer = self._call(self._stub.ModelStatistics, request)
        except InferdError as error:
            return f"{error.status.name}: {error.message}"
        return list(answer.model_stats)

    def _call(self, method: Callable[..., Any], request: object, metadata: Metadata | None = None) -> Any:  # noqa: ANN401
        sent = self._metadata if metadata is None else metadata
        try:
            return method(request, timeout=_TIMEOUT_S, metadata=sent)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
