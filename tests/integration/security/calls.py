"""Calls of every method over a real socket, with their statuses."""

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc

from inferd._generated.inferd.v1 import generation_pb2 as generation
from inferd._generated.inferd.v1 import generation_pb2_grpc as generation_grpc
from inferd._generated.inferd.v1 import inference_pb2 as own
from inferd._generated.inferd.v1 import inference_pb2_grpc as own_grpc
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference import grpc_service_pb2_grpc as oip_grpc
from tests.patience import PATIENCE_S

TIMEOUT_S = PATIENCE_S
Metadata = tuple[tuple[str, str], ...]
Status = tuple[grpc.StatusCode, str]


@dataclass(frozen=True)
class Method:
    """One method; ``call`` calls it for a model and returns the status."""

    name: str
    kind: str
    call: Callable[[grpc.Channel, str, Metadata], Status]


def status_of(call: Callable[[], object]) -> Status:
    """Return the status of ``call``."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def own_request(model: str) -> own.InferRequest:
    return own.InferRequest(model=model, inputs=[own.Tensor(name="X", shape=[1, 64], floats=[0.0] * 64)])


def oip_request(model: str) -> oip.ModelInferRequest:
    tensor = oip.ModelInferRequest.InferInputTensor(
        name="X", datatype="FP32", shape=[1, 64], contents=oip.InferTensorContents(fp32_contents=[0.0] * 64)
    )
    return oip.ModelInferRequest(model_name=model, inputs=[tensor])


def _infer(channel: grpc.Channel, model: str, metadata: Metadata) -> Status:
    stub = own_grpc.InferenceServiceStub(channel)
    return status_of(lambda: stub.Infer(own_request(model), metadata=metadata, timeout=TIMEOUT_S))


def _stream_infer(channel: grpc.Channel, model: str, metadata: Metadata) -> Status:
    stub = own_grpc.InferenceServiceStub(channel)
    messages = iter([own.StreamInferRequest(requests=[own_request(model)])])
    found: list[Status] = []

    def call() -> None:
        for response in stub.StreamInfer(messages, metadata=metadata, timeout=TIMEOUT_S):
            found.extend((_code(result.error.code), result.error.message) for result in response.results)

    ended = status_of(call)
    return found[0] if ended[0] is grpc.StatusCode.OK else ended


def _model_infer(channel: grpc.Channel, model: str, metadata: Metadata) -> Status:
    stub = oip_grpc.GRPCInferenceServiceStub(channel)
    return status_of(lambda: stub.ModelInfer(oip_request(model), metadata=metadata, timeout=TIMEOUT_S))


def _model_stream_infer(channel: grpc.Channel, model: str, metadata: Metadata) -> Status:
    stub = oip_grpc.GRPCInferenceServiceStub(channel)
    metadata = (*metadata, ("triton_grpc_error", "true"))
    return status_of(
        lambda: list(stub.ModelStreamInfer(iter([oip_request(model)]), metadata=metadata, timeout=TIMEOUT_S))
    )


def _generate(channel: grpc.Channel, model: str, metadata: Metadata) -> Status:
    stub = generation_grpc.GenerationServiceStub(channel)
    request = generation.GenerateRequest(model=model, prompt=generation.Prompt(text="x"))
    return _no_language_model(lambda: list(stub.Generate(request, metadata=metadata, timeout=TIMEOUT_S)))


def _tokenize(channel: grpc.Channel, model: str, metadata: Metadata) -> Status:
    stub = generation_grpc.GenerationServiceStub(channel)
    request = generation.TokenizeRequest(model=model, prompt=generation.Prompt(text="x"))
    return _no_language_model(lambda: stub.Tokenize(request, metadata=metadata, timeout=TIMEOUT_S))


def _no_language_model(call: Callable[[], object]) -> Status:
    """Call for an ordinary model: that it is one is the status OK."""
    code, text = status_of(call)
    is_one = code is grpc.StatusCode.INVALID_ARGUMENT and "is no language model" in text
    return (grpc.StatusCode.OK, "") if is_one else (code, text)


def _own_query(name: str, request: Callable[[str], object], kind: str = "metadata") -> Method:
    def call(channel: grpc.Channel, model: str, metadata: Metadata) -> Status:
        method = getattr(own_grpc.InferenceServiceStub(channel), name)
        return status_of(lambda: method(request(model), metadata=metadata, timeout=TIMEOUT_S))

    return Method(name, kind, call)


def _oip_query(name: str, request: Callable[[str], object], kind: str = "metadata") -> Method:
    def call(channel: grpc.Channel, model: str, metadata: Metadata) -> Status:
        method = getattr(oip_grpc.GRPCInferenceServiceStub(channel), name)
        return status_of(lambda: method(request(model), metadata=metadata, timeout=TIMEOUT_S))

    return Method(name, kind, call)


def _unload(channel: grpc.Channel, model: str, metadata: Metadata) -> Status:
    """Unload an unknown version, so that the others stay; that is the status OK."""
    stub = own_grpc.InferenceServiceStub(channel)
    request = own.UnloadModelRequest(model=model, version="9")
    code, text = status_of(lambda: stub.UnloadModel(request, metadata=metadata, timeout=TIMEOUT_S))
    is_absent = code is grpc.StatusCode.NOT_FOUND and "version" in text
    return (grpc.StatusCode.OK, "") if is_absent else (code, text)


def _channelz(channel: grpc.Channel, _model: str, metadata: Metadata) -> Status:
    stub = channelz_pb2_grpc.ChannelzStub(channel)
    return status_of(lambda: stub.GetServers(channelz_pb2.GetServersRequest(), metadata=metadata, timeout=TIMEOUT_S))


def _code(number: int) -> grpc.StatusCode:
    return next(code for code in grpc.StatusCode if code.value[0] == number)


#: Methods whose request names a model.
ABOUT_A_MODEL = [
    Method("Infer", "infer", _infer),
    Method("StreamInfer", "infer", _stream_infer),
    Method("ModelInfer", "infer", _model_infer),
    Method("ModelStreamInfer", "infer", _model_stream_infer),
    Method("Generate", "infer", _generate),
    Method("Tokenize", "infer", _tokenize),
    _own_query("GetModel", lambda model: own.GetModelRequest(model=model)),
    _oip_query("ModelMetadata", lambda model: oip.ModelMetadataRequest(name=model)),
    _oip_query("ModelConfig", lambda model: oip.ModelConfigRequest(name=model)),
    _oip_query("ModelStatistics", lambda model: oip.ModelStatisticsRequest(name=model)),
]

#: Methods about the server or all models; ModelReady succeeds for any name.
ABOUT_THE_SERVER = [
    _own_query("ListModels", lambda _: own.ListModelsRequest()),
    _oip_query("ServerMetadata", lambda _: oip.ServerMetadataRequest()),
    _oip_query("ModelReady", lambda model: oip.ModelReadyRequest(name=model)),
    Method("Channelz", "admin", _channelz),
]

#: Methods that load and unload a model, which stays as it is.
CONTROL = [
    _own_query("LoadModel", lambda model: own.LoadModelRequest(model=model), "admin"),
    _oip_query("RepositoryModelLoad", lambda model: oip.RepositoryModelLoadRequest(model_name=model), "admin"),
    Method("UnloadModel", "admin", _unload),
]

#: Methods that list the models of the repositories.
INDEX = [
    _own_query("IndexModels", lambda _: own.IndexModelsRequest(), "admin"),
    _oip_query("RepositoryIndex", lambda _: oip.RepositoryIndexRequest(), "admin"),
    # Having nothing to unload is no error here.
    _oip_query("RepositoryModelUnload", lambda _: oip.RepositoryModelUnloadRequest(model_name="absent"), "admin"),
]

ALL = [*ABOUT_A_MODEL, *ABOUT_THE_SERVER, *CONTROL, *INDEX]


class OpenStream:
    """One ``StreamInfer`` call that stays open."""

    def __init__(self, channel: grpc.Channel, metadata: Metadata) -> None:
        self._more = queue.SimpleQueue[own.StreamInferRequest | None]()
        stub = own_grpc.InferenceServiceStub(channel)
        self._call = stub.StreamInfer(self._requests(), metadata=metadata, timeout=PATIENCE_S)

    def send(self, model: str) -> Status:
        """Send one request and return its status, or that of the stream."""
        self._more.put(own.StreamInferRequest(requests=[own_request(model)]))
        found: list[Status] = []

        def read() -> None:
            result = next(self._call).results[0]
            found.append((_code(result.error.code), result.error.message))

        ended = status_of(read)
        return found[0] if found else ended

    def wait_for_end(self) -> Status:
        """Wait until the server ends the stream, and return its status."""
        return status_of(lambda: next(self._call))

    def close(self) -> None:
        self._more.put(None)
        self._call.cancel()

    def _requests(self) -> Iterator[own.StreamInferRequest]:
        yield from iter(self._more.get, None)
