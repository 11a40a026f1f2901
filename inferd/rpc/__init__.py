"""A gRPC server on grpcio's own C core, driven by one thread.

How a call goes: the core hands it to the poll thread (`poll_loop`), which shows it to the interceptors and finds its
handler (`acceptor`, `methods`). A callback handler is called right there once the request is in, and any thread may
answer at any later time by `UnaryCall.reply` or `StreamCall.send`. Ordinary handlers, gRPC's own health, reflection
and channelz services among them, run in a few threads that may block (`blocking`). No call waits for a thread that
another one occupies, unless both are of that second kind and of the same service.

`upkeep` ends calls whose message does not come, and `memory_guard` keeps what all of them take within a budget.

`core` is the only module that touches what is private to grpcio, and `self_test` tries it out at the first start.

Set ``GRPC_ENABLE_FORK_SUPPORT=0`` in the environment before grpc is imported, and fork, if at all, before that: a
forked child cannot use what its parent has made of gRPC.
"""

from inferd.rpc.accept import callback_stream, callback_unary
from inferd.rpc.core import IncompatibleGrpcioError
from inferd.rpc.interceptors import CallInterceptor, CallRefusal
from inferd.rpc.interfaces import Call, StreamCall, StreamListener, UnaryCall
from inferd.rpc.memory_guard import MemoryMeter
from inferd.rpc.metadata import Metadata
from inferd.rpc.refusals import Refused
from inferd.rpc.server import Server

__all__ = [
    "Call",
    "CallInterceptor",
    "CallRefusal",
    "IncompatibleGrpcioError",
    "MemoryMeter",
    "Metadata",
    "Refused",
    "Server",
    "StreamCall",
    "StreamListener",
    "UnaryCall",
    "callback_stream",
    "callback_unary",
]
