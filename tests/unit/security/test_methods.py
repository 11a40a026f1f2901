"""The kinds of methods, compared with the descriptors of the services that are served."""

import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from inferd._generated.inferd.v1 import generation_pb2, inference_pb2
from inferd._generated.inference import grpc_service_pb2
from inferd.api.openai import routes as openai_routes
from inferd.api.reflection import SERVICE_NAMES
from inferd.api.rest import routes
from inferd.api.rest.routes import PATHS
from inferd.page import routes as page_routes
from inferd.security.authorization.methods import KNOWN_METHODS, UNARY_METHODS, MethodKind, kind_of, methods_of

#: The files that define the services; reflection is also served under its v1 name.
FILES = (inference_pb2, generation_pb2, grpc_service_pb2, health_pb2, channelz_pb2, reflection_pb2)
SERVICES: list[ServiceDescriptor] = [service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()]


def _methods(service: ServiceDescriptor) -> dict[str, MethodDescriptor]:
    """Return the methods of ``service`` by full name, under each name that the service is served by."""
    names = SERVICE_NAMES if service.full_name in SERVICE_NAMES else (service.full_name,)
    return {f"/{name}/{method.name}": method for name in names for method in service.methods}


METHODS = {name: method for service in SERVICES for name, method in _methods(service).items()}


def test_every_served_method_is_listed() -> None:
    """An RPC that is added must be given a kind; until then only admins may call it."""
    assert METHODS.keys() == {method for method in KNOWN_METHODS if method.startswith("/")}


def test_every_operation_of_http_is_listed() -> None:
    """As for RPCs; their names begin with a verb. Requests that no operation serves have a name too."""
    operations = {*PATHS, *openai_routes.PATHS, *page_routes.OPERATIONS, "unknown"}
    assert operations == {method for method in KNOWN_METHODS if not method.startswith("/")}


@pytest.mark.parametrize(
    ("operation", "method"),
    [
        (routes.SERVER_METADATA, "ServerMetadata"),
        (routes.SERVER_LIVE, "ServerLive"),
        (routes.SERVER_READY, "ServerReady"),
        (routes.MODEL_METADATA, "ModelMetadata"),
        (routes.MODEL_READY, "ModelReady"),
        (routes.MODEL_CONFIG, "ModelConfig"),
        (routes.MODEL_STATISTICS, "ModelStatistics"),
        (routes.ALL_STATISTICS, "ModelStatistics"),
        (routes.INFER, "ModelInfer"),
        (routes.GENERATE, "ModelInfer"),
        (routes.GENERATE_STREAM, "ModelStreamInfer"),
        (openai_routes.COMPLETIONS, "ModelStreamInfer"),
        (openai_routes.CHAT_COMPLETIONS, "ModelStreamInfer"),
        (openai_routes.MODELS, "ModelMetadata"),
        (openai_routes.MODEL, "ModelMetadata"),
        (routes.INDEX, "RepositoryIndex"),
        (routes.LOAD, "RepositoryModelLoad"),
        (routes.UNLOAD, "RepositoryModelUnload"),
    ],
)
def test_operations_of_http_have_the_kinds_of_their_rpcs(operation: str, method: str) -> None:
    """So that a rule means the same over both."""
    assert kind_of(operation) is kind_of(f"/inference.GRPCInferenceService/{method}")


def test_streaming_methods_are_those_of_the_descriptors() -> None:
    """Calls of all others end by themselves, so their callers need not be checked again."""
    streaming = {name for name, method in METHODS.items() if method.client_streaming or method.server_streaming}
    assert METHODS.keys() - UNARY_METHODS == streaming
    over_http = {routes.GENERATE, routes.GENERATE_STREAM, openai_routes.COMPLETIONS, openai_routes.CHAT_COMPLETIONS}
    assert {*PATHS, *openai_routes.PATHS} - UNARY_METHODS == over_http


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("/inferd.v1.InferenceService/StreamInfer", MethodKind.INFER),
        ("/inference.GRPCInferenceService/ModelReady", MethodKind.METADATA),
        ("/inference.GRPCInferenceService/ServerLive", MethodKind.HEALTH),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", MethodKind.REFLECTION),
        ("/grpc.channelz.v1.Channelz/GetServers", MethodKind.ADMIN),
        ("/other.Service/Method", MethodKind.ADMIN),
        ("unknown", MethodKind.NOTHING),
    ],
)
def test_kinds(method: str, kind: MethodKind) -> None:
    """A method that is not listed is for admins only."""
    assert kind_of(method) is kind
    assert (method in methods_of(kind)) is (method in KNOWN_METHODS)
