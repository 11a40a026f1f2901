"""All other methods of a server, which get megabytes that they do not need."""

from collections.abc import Iterator

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from benchmarks.hostile import inferd_v1, open_inference
from benchmarks.hostile.kind import Build, Kind, filled, length_field, wrapped
from benchmarks.hostile.malformed_fields import broken, unknown_fields
from benchmarks.hostile.raw_strings import NOT_UTF8
from inferd import wire
from inferd._generated.inferd.v1 import inference_pb2
from inferd._generated.inference import grpc_service_pb2

_INFERENCE = {
    inferd_v1.INFER, inferd_v1.STREAM_INFER, open_inference.MODEL_INFER, open_inference.MODEL_STREAM_INFER,
}  # fmt: skip
#: The first field of every query is a text: a name, a service, a host.
_FIRST = wire.length_tag(1)
_REFLECTION_NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def kinds() -> Iterator[Kind]:
    """Yield bytes that fit no method for the inference methods, and a few of all kinds for the others."""
    for path, streams in _methods():
        named = path.rpartition("/")[2] if "reflection" not in path else path[1:].replace("grpc.reflection.", "")
        chosen = {**broken(), **unknown_fields()} if path in _INFERENCE else _questions()
        for name, build in chosen.items():
            yield Kind(name=f"{named}: {name}", method=path, build=build, streams=streams)


def _questions() -> dict[str, Build]:
    anywhere = {**broken(), **unknown_fields()}
    some = ("zeros", "garbage", "unknown varints", "unknown empty fields", "unknown one field", "groups in each other")
    return {name: anywhere[name] for name in some} | {
        "empty text again and again": filled(b"", length_field(_FIRST, b"")),
        "text again and again": filled(b"", length_field(_FIRST, b"numbers")),
        "long text": wrapped(_FIRST, filled(b"", b"a")),
        "long text that is not UTF-8": wrapped(_FIRST, filled(b"", NOT_UTF8)),
        "fields of every number": filled(b"", b"".join(length_field(number << 3 | 2, b"") for number in range(1, 16))),
    }


def _methods() -> Iterator[tuple[str, bool]]:
    """Yield the path of each method, and whether it takes a stream."""
    files = (inference_pb2, grpc_service_pb2, health_pb2, channelz_pb2)
    for file in files:
        for service in file.DESCRIPTOR.services_by_name.values():
            yield from _paths(service, service.full_name)
    for name in _REFLECTION_NAMES:
        yield from _paths(reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"], name)


def _paths(service: ServiceDescriptor, name: str) -> Iterator[tuple[str, bool]]:
    method: MethodDescriptor
    for method in service.methods:
        yield f"/{name}/{method.name}", method.client_streaming
