"""Server reflection, which grpcurl and the like ask for the contract: v1, and v1alpha for older tools.

The package grpcio-reflection has v1alpha only. The messages of v1 are the same on the wire, so that its servicer
answers both; the descriptor of v1 is made from that of v1alpha by renaming its package.
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

#: Answers one question after the other; it needs no context.
_Answers = Callable[
    [Iterable[reflection_pb2.ServerReflectionRequest], None], Iterable[reflection_pb2.ServerReflectionResponse]
]

SERVICE_NAMES = (f"{_V1}.ServerReflection", f"{_ALPHA}.ServerReflection")


def add_reflection(server: grpc.Server, service_names: Sequence[str]) -> None:
    """Let ``server`` tell the contract of ``service_names``, which must be known to the default descriptor pool."""
    _know_v1()
    servicer = reflection.ReflectionServicer((*service_names, *SERVICE_NAMES))
    answers: _Answers = servicer.ServerReflectionInfo  # type: ignore[assignment]  # a generator, unlike in the stubs

    def open_stream(call: StreamCall) -> StreamListener:
        call.read()
        return _Questions(call, answers)

    handler = callback_stream(open_stream)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}) for name in SERVICE_NAMES]
    )


class _Questions:
    """Answers one question after the other, on the poll thread: a stream that asks nothing occupies no thread."""

    def __init__(self, call: StreamCall, answers: _Answers) -> None:
        self._call = call
        self._answers = answers

    def on_message(self, message: bytes, /) -> None:
        """See `StreamListener.on_message`."""
        try:
            question = parse_query(reflection_pb2.ServerReflectionRequest, message)
        except InvalidInputError as error:
            self._call.finish(grpc.StatusCode.INVALID_ARGUMENT, error.message)
            return
        for answer in self._answers((question,), None):
            self._call.send(answer.SerializeToString())
        self._call.read()

    def on_half_close(self) -> None:
        """See `StreamListener.on_half_close`."""
        self._call.finish()

    def on_terminated(self) -> None:
        """See `StreamListener.on_terminated`."""


def _know_v1() -> None:
    """Add the descriptor of v1 to the default pool; adding the same again changes nothing."""
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name = "grpc/reflection/v1/reflection.proto"
    file.package = _V1
    for message in file.message_type:
        for field in message.field:
            # Writing even an empty name would make a message type of a plain field.
            if field.type_name:
                field.type_name = field.type_name.replace(_ALPHA, _V1)
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(_ALPHA, _V1)
            method.output_type = method.output_type.replace(_ALPHA, _V1)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
