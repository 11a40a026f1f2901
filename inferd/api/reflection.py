"""Server reflection for grpcurl and similar tools: v1, and v1alpha for older ones.

grpcio-reflection has v1alpha only. Both have the same messages on the wire, so its servicer answers both; the
descriptor of v1 is derived from that of v1alpha by renaming the package.
"""

from collections.abc import Callable, Iterable, Sequence

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2

from inferd.api.codec import parse_query
from inferd.errors import InvalidInputError
from inferd.rpc import StreamCall, StreamListener, callback_stream

_ALPHA = "grpc.reflection.v1alpha"
_V1 = "grpc.reflection.v1"

#: Answers queries one after the other; needs no context.
_Answer = Callable[
    [Iterable[reflection_pb2.ServerReflectionRequest], None], Iterable[reflection_pb2.ServerReflectionResponse]
]

SERVICE_NAMES = (f"{_V1}.ServerReflection", f"{_ALPHA}.ServerReflection")


def add_reflection(server: grpc.Server, service_names: Sequence[str]) -> None:
    """Add reflection of ``service_names`` to ``server``. The default descriptor pool must have their descriptors."""
    _add_v1_descriptor()
    servicer = reflection.ReflectionServicer((*service_names, *SERVICE_NAMES))
    answer: _Answer = servicer.ServerReflectionInfo  # type: ignore[assignment]  # a generator, unlike in the stubs

    def open_stream(call: StreamCall) -> StreamListener:
        call.read()
        return _ReflectionStream(call, answer)

    handler = callback_stream(open_stream)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}) for name in SERVICE_NAMES]
    )


class _ReflectionStream:
    """Answers the queries of one stream on the poll thread, so that an idle stream occupies no thread."""

    def __init__(self, call: StreamCall, answer: _Answer) -> None:
        self._call = call
        self._answer = answer

    def on_message(self, message: bytes, /) -> None:
        """See `StreamListener.on_message`."""
        try:
            query = parse_query(reflection_pb2.ServerReflectionRequest, message)
        except InvalidInputError as error:
            self._call.finish(grpc.StatusCode.INVALID_ARGUMENT, error.message)
            return
        for response in self._answer((query,), None):
            self._call.send(response.SerializeToString())
        self._call.read()

    def on_half_close(self) -> None:
        """See `StreamListener.on_half_close`."""
        self._call.finish()

    def on_terminated(self) -> None:
        """See `StreamListener.on_terminated`."""


def _add_v1_descriptor() -> None:
    """Add the descriptor of v1 to the default pool; repeating that has no effect."""
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name = "grpc/reflection/v1/reflection.proto"
    file.package = _V1
    for message in file.message_type:
        for field in message.field:
            # Setting even an empty name would turn a scalar field into a message field.
            if field.type_name:
                field.type_name = field.type_name.replace(_ALPHA, _V1)
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(_ALPHA, _V1)
            method.output_type = method.output_type.replace(_ALPHA, _V1)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
