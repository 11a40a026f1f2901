"""A gRPC server on grpcio's C core, driven by one thread.

The core hands each call to the poll thread (`poll_loop`), which runs the interceptors and finds the handler (`accept`).
Callback handlers run right there when the request is in; any thread may answer at any later time with
`UnaryCall.reply` or `StreamCall.send`. Ordinary handlers, among them gRPC's own health, reflection and channelz
services, run in a few threads that may block (`blocking`). A call never waits for a thread that is occupied by another,
unless both have ordinary handlers of the same service.

`live_calls` has the state that all calls share and the limits on their messages; `upkeep` enforces their time limits,
`memory_guard` the memory budget. `core` is the only module that touches the private surface of grpcio; `self_test`
checks the installed release.

Set ``GRPC_ENABLE_FORK_SUPPORT=0`` in the environment before grpc is imported. A process must not fork after that: the
child cannot use gRPC.
"""

from inferd.rpc.call_ends import RejectionCause
from inferd.rpc.core import EncodedMetadata, IncompatibleGrpcioError, Metadata, encoded_metadata
from inferd.rpc.interfaces import (
    Call,
    CallInterceptor,
    Rejection,
    StreamCall,
    StreamListener,
    UnaryCall,
    callback_answer_stream,
    callback_stream,
    callback_unary,
)
from inferd.rpc.memory_guard import MemoryMeter
from inferd.rpc.server import Server

__all__ = [
    "Call",
    "CallInterceptor",
    "EncodedMetadata",
    "IncompatibleGrpcioError",
    "MemoryMeter",
    "Metadata",
    "Rejection",
    "RejectionCause",
    "Server",
    "StreamCall",
    "StreamListener",
    "UnaryCall",
    "callback_answer_stream",
    "callback_stream",
    "callback_unary",
    "encoded_metadata",
]
