"""The interfaces of calls, interceptors and handlers. `call` and `stream_call` implement those of calls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from inferd.call_context import CallContext
from inferd.rpc.core import Metadata, SentMetadata

#: Called with the status and details of a call that ends, before the status is sent, in the thread that ends the call.
Finisher = Callable[["Call", grpc.StatusCode, str], None]


class Call(Protocol):
    """One RPC. Usable in any thread unless stated otherwise, also after the RPC has ended."""

    @property
    def method(self) -> str:
        """``/package.Service/Name``."""
        ...

    @property
    def peer(self) -> str:
        """The caller's address as gRPC writes it, for example ``ipv4:10.0.0.7:53124``."""
        ...

    @property
    def raw_peer(self) -> bytes:
        """The caller's address as gRPC's core writes it; cheaper than ``peer``."""
        ...

    @property
    def metadata(self) -> Metadata:
        """The metadata of the request; values are bytes for keys that end in ``-bin``."""
        ...

    @property
    def deadline(self) -> float:
        """The deadline in seconds on the monotonic clock; ``math.inf`` if there is none."""
        ...

    @property
    def started_at(self) -> float:
        """Time of acceptance, in seconds on the monotonic clock."""
        ...

    @property
    def ended_at(self) -> float:
        """Time of the answer or termination, in seconds on the monotonic clock; ``math.inf`` before that."""
        ...

    @property
    def context(self) -> CallContext:
        """Context that nearly every call has."""
        ...

    @property
    def annotations(self) -> dict[str, object]:
        """Context that only some calls have, shared by interceptors and handlers."""
        ...

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return the properties of the authenticated peer, for example ``peer_spiffe_id``."""
        ...

    def add_trailing_metadata(self, pairs: SentMetadata) -> None:
        """Append ``pairs`` to the handler's trailing metadata, whatever the status.

        For interceptors, at the latest in their ``finished``. By one thread at a time. Raises ValueError for illegal
        metadata, and then adds nothing.
        """
        ...

    def on_finished(self, finisher: Finisher) -> None:
        """Call ``finisher`` when the call ends, ahead of the interceptors; at once if it has ended.

        It must not block or raise. On the poll thread only, and for a unary call before another thread may answer it.
        For what only some calls need: an interceptor's ``finished`` costs every call.
        """
        ...

    def expect_small_message(self) -> None:
        """End the call if its first message is not complete within 5 s or is larger than 4 KiB; on the poll thread.

        For ``started`` of interceptors, for unauthenticated callers: receiving a message takes memory and CPU time.
        """
        ...

    def on_terminated(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once if the call ends without our answer: cancelled, expired, connection lost.

        On the poll thread, where it must not block; at once if that has happened.
        """
        ...


class UnaryCall(Call, Protocol):
    """One request, one answer. Of all ``reply`` and ``abort``, from any threads, only the first has an effect."""

    def reply(self, message: bytes, trailing_metadata: Metadata = ()) -> bool:
        """Answer with ``message`` and OK. Returns False if the call had ended.

        Raises ValueError for illegal metadata; the caller then gets INTERNAL.
        """
        ...

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: SentMetadata = ()) -> bool:
        """Answer with a status only. Returns False if the call had ended. Raises as ``reply`` does."""
        ...

    def abort_paced(self, code: grpc.StatusCode, details: str, trailing_metadata: SentMetadata = ()) -> None:
        """Abort for a fault of the caller: up to a second later if it causes many refusals. See `Refusals`."""
        ...


class StreamCall(Call, Protocol):
    """Messages in streams. Any thread may call any of the methods; none of them blocks."""

    #: Called on the poll thread after each message has been sent, or could not be.
    on_sent: Callable[[], None] | None

    @property
    def waiting_messages(self) -> int:
        """The number of messages that wait behind the one that is being sent: many if the caller does not read."""
        ...

    def read(self) -> None:
        """Request one more message for the listener. Repeating this before it came has no effect.

        While too many answers wait to be sent, because the caller does not read them, the message is not received, so
        that flow control slows the caller down.
        """
        ...

    def send(self, message: bytes) -> bool:
        """Send ``message`` after those before it. Returns False if the call has ended or was finished."""
        ...

    def finish(
        self,
        code: grpc.StatusCode = grpc.StatusCode.OK,
        details: str = "",
        trailing_metadata: Metadata = (),
    ) -> bool:
        """End the call after all that was sent. Returns False if it had ended. Raises as ``UnaryCall.reply`` does."""
        ...


class StreamListener(Protocol):
    """Receives the events of a stream, on the poll thread, so no method may block."""

    def on_message(self, message: bytes, /) -> None:
        """Handle a message that ``read`` requested."""
        ...

    def on_half_close(self) -> None:
        """Handle the end of the requests; comes after a ``read``, at most once."""
        ...

    def on_terminated(self) -> None:
        """Handle an end of the call without our ``finish``; at most once."""
        ...


@dataclass(frozen=True, slots=True)
class Rejection:
    """The status of a rejected call."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: Metadata = ()


class CallInterceptor(Protocol):
    """Sees every call, whatever its handler: when it starts, which it may reject, and when it ends."""

    def started(self, call: Call, /) -> Rejection | None:
        """Handle a new call whose message was not read yet; return a rejection to reject it.

        On the poll thread: must not block. Inner interceptors do not see a rejected call. An exception rejects it with
        INTERNAL.
        """
        ...

    @property
    def finished(self) -> Finisher | None:
        """Called exactly once for each call passed to ``started``, rejected ones included.

        Must not block or raise. None for interceptors that need the end of some calls only; they use
        `Call.on_finished`.
        """
        ...


UnaryHandler = Callable[[UnaryCall, bytes], None]
StreamHandler = Callable[[StreamCall], StreamListener]
#: Called with a stream, and with its only message.
AnswerStreamHandler = Callable[[StreamCall, bytes], None]


class _CallbackHandler(grpc.RpcMethodHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """The attributes that grpcio expects of a handler. The behaviors are None, as they would run in a thread."""

    request_deserializer = None
    response_serializer = None
    unary_unary = None
    unary_stream = None
    stream_unary = None
    stream_stream = None


class CallbackUnaryHandler(_CallbackHandler):
    """A unary method whose handler is called with the request and answers through the call, at any later time."""

    request_streaming = False
    response_streaming = False

    def __init__(self, callback: UnaryHandler) -> None:
        self.callback = callback


class CallbackStreamHandler(_CallbackHandler):
    """A streaming method whose handler takes the call and returns the listener for its messages."""

    request_streaming = True
    response_streaming = True

    def __init__(self, callback: StreamHandler) -> None:
        self.callback = callback


class CallbackAnswerStreamHandler(_CallbackHandler):
    """A method of one request and a stream of answers, whose handler is called with the request."""

    request_streaming = False
    response_streaming = True

    def __init__(self, callback: AnswerStreamHandler) -> None:
        self.callback = callback


def callback_unary(handler: UnaryHandler) -> "grpc.RpcMethodHandler[Any, Any]":
    """Make a method of one request and one answer; ``handler`` is called on the poll thread and must not block."""
    return CallbackUnaryHandler(handler)


def callback_stream(handler: StreamHandler) -> "grpc.RpcMethodHandler[Any, Any]":
    """Make a method of any streaming shape; ``handler`` is called on the poll thread and must not block.

    It is called before the first message is received, which ``call.read()`` asks for.
    """
    return CallbackStreamHandler(handler)


def callback_answer_stream(handler: AnswerStreamHandler) -> "grpc.RpcMethodHandler[Any, Any]":
    """Make a method of one request and a stream of answers; ``handler`` is as that of `callback_unary`."""
    return CallbackAnswerStreamHandler(handler)
