"""All that is used of grpcio's private surface, and nothing else: the one module to look at when grpcio changes.

``grpc._cython.cygrpc`` is a thin layer over gRPC's C core. A *completion queue* is polled for events; each event
carries the *tag* that was given when its work was started. Every tag here is a callable that takes the event.
Work on a call is started as a *batch* of operations; the event comes when all of them are done.

What breaks the process or hangs it, and is therefore kept from happening by the modules that use this one:

- An operation object in two batches is freed twice: the functions below make new ones each time.
- Two batches of the same kind in flight on one call are refused with a code, and their tag never arrives.
- A batch that is started after the queue was shut down aborts the process.
- A queue that is freed with tags pending waits for them for ever.
"""

from collections.abc import Callable
from typing import Any, Protocol

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # compiled, and no part of the stubs

TESTED_GRPCIO = "1.76 to 1.85"

_NAMES = (
    "CompletionQueue",
    "CompletionType",
    "ReceiveCloseOnServerOperation",
    "ReceiveMessageOperation",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
    "SendStatusFromServerOperation",
    "Server",
    "auth_context",
    "peer_identities",
    "peer_identity_key",
)


class IncompatibleGrpcioError(RuntimeError):
    """The installed grpcio does not behave as this package needs it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"grpcio {grpc.__version__} {what}; this package works with grpcio {TESTED_GRPCIO}")


def missing_names(module: object) -> list[str]:
    """Return what ``module`` lacks of the names used here."""
    return [name for name in _NAMES if not hasattr(module, name)]


if _missing := missing_names(cygrpc):
    raise IncompatibleGrpcioError(f"lacks {', '.join(_missing)}")

#: One piece of work on a call; not to be used twice.
Operation = Any
Batch = tuple[Operation, ...]


class Event(Protocol):
    """What a poll returns. ``tag`` is None for a poll that ended for want of events, and when the queue has ended."""

    tag: Callable[[Any], None] | None
    completion_type: int
    success: bool


class BatchEvent(Event, Protocol):
    """A batch is done; ``success`` is False if any of its operations failed."""

    batch_operations: Batch


class Call(Protocol):
    """The core's call. It stays valid for as long as it is referred to, also after the RPC has ended."""

    def start_server_batch(self, operations: Batch, tag: Callable[[BatchEvent], None]) -> int:
        """Start ``operations``; returns 0, or an error code, and then the tag will not arrive."""
        ...

    def cancel(self) -> int:
        """End the call with CANCELLED."""
        ...

    def peer(self) -> bytes:
        """The caller's address, percent-encoded."""
        ...


class RefusedBatch:
    """Stands in for the event of a batch that was not even started."""

    completion_type: int = cygrpc.CompletionType.operation_complete
    success = False

    def __init__(self, batch: Batch) -> None:
        self.tag: Callable[[Any], None] | None = None
        self.batch_operations = batch


class CallDetails(Protocol):
    """What is known of a call before its first message; ``deadline`` is in seconds since the epoch."""

    method: bytes
    deadline: float


class RequestEvent(Event, Protocol):
    """A call came in, or, without ``success``, none will because the server is stopping."""

    call: Call
    call_details: CallDetails
    invocation_metadata: tuple[tuple[str, str | bytes], ...]


class Queue(Protocol):
    """A completion queue."""

    def poll(self, deadline: float | None) -> Event:
        """Wait for an event until ``deadline``, in seconds since the epoch."""
        ...

    def shutdown(self) -> None:
        """Let nothing more be started; the last event says that all is done."""
        ...


class CoreServer(Protocol):
    """The core's server."""

    def add_http2_port(self, address: bytes, credentials: object) -> int:
        """Bind ``address``; returns the port, or 0 if that failed."""
        ...

    def start(self) -> None:
        """Begin to accept connections."""
        ...

    def request_call(self, call_queue: Queue, server_queue: Queue, tag: Callable[[RequestEvent], None]) -> int:
        """Ask for one call; its event comes when there is one."""
        ...

    def register_method(self, method: str) -> None:
        """Keep calls of ``method`` apart from the others; before ``start``."""
        ...

    def request_registered_call(
        self, call_queue: Queue, server_queue: Queue, method: str, tag: Callable[[RequestEvent], None]
    ) -> int:
        """Ask for one call of a registered method; its event does not name the method."""
        ...

    def shutdown(self, queue: Queue, tag: Callable[[Event], None]) -> None:
        """Send GOAWAY and take no further calls; the tag comes when all calls have ended."""
        ...

    def cancel_all_calls(self) -> None:
        """End all calls with CANCELLED; only after ``shutdown``."""
        ...

    def destroy(self) -> None:
        """Free it; only after the tag of ``shutdown`` has come."""
        ...


_NO_FLAGS = 0
_QUEUE_ENDED = cygrpc.CompletionType.queue_shutdown

_CODE_NUMBERS = {code: code.value[0] for code in grpc.StatusCode}
_OK = _CODE_NUMBERS[grpc.StatusCode.OK]
#: For what ordinary handlers may set that is no code.
_UNKNOWN = _CODE_NUMBERS[grpc.StatusCode.UNKNOWN]


def make_server(options: tuple[tuple[str, Any], ...]) -> tuple[CoreServer, Queue]:
    """Return a server that is not started, and the queue that all its events come through."""
    queue = cygrpc.CompletionQueue()
    server = cygrpc.Server(options, False)
    server.register_completion_queue(queue)
    return server, queue


def bind(server: CoreServer, address: str, credentials: grpc.ServerCredentials | None) -> int:
    """Bind ``address``; returns the port, or 0 if that failed."""
    return server.add_http2_port(address.encode(), getattr(credentials, "_credentials", None))


def end_queue(queue: Queue) -> None:
    """Shut ``queue`` down and wait for its end; nothing may be pending."""
    queue.shutdown()
    while queue.poll(None).completion_type != _QUEUE_ENDED:
        pass


def methods_of(handler: object) -> list[str]:
    """Return the full names of the methods of a handler that `grpc.method_handlers_generic_handler` made, else none."""
    return list(getattr(handler, "_method_handlers", ()))


def receive_close() -> Batch:
    """Tell when the call has ended: its status was delivered, or never will be."""
    return (cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),)


def receive_message() -> Batch:
    """Get the next message."""
    return (cygrpc.ReceiveMessageOperation(_NO_FLAGS),)


def received(event: BatchEvent) -> bytes | None:
    """Return the message of a `receive_message`, or None if there are no more, or it failed."""
    message: bytes | None = event.batch_operations[0].message()
    return message


def initial_metadata(metadata: tuple[tuple[str, str | bytes], ...] | None) -> Operation:
    """Send the headers; they come before anything else."""
    return cygrpc.SendInitialMetadataOperation(metadata, _NO_FLAGS)


def message(payload: bytes) -> Operation:
    """Send one message."""
    return cygrpc.SendMessageOperation(payload, _NO_FLAGS)


def status(code: grpc.StatusCode, details: bytes, trailing: tuple[tuple[str, str | bytes], ...] | None) -> Operation:
    """Send the status; it comes after anything else."""
    return cygrpc.SendStatusFromServerOperation(trailing, _CODE_NUMBERS.get(code, _UNKNOWN), details, _NO_FLAGS)


def whole_answer(payload: bytes, trailing: tuple[tuple[str, str | bytes], ...] | None) -> Batch:
    """Send headers, one message and OK at once, so that they leave in one write."""
    return (
        cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),
        cygrpc.SendMessageOperation(payload, _NO_FLAGS),
        cygrpc.SendStatusFromServerOperation(trailing, _OK, b"", _NO_FLAGS),
    )


def whole_refusal(code: grpc.StatusCode, details: bytes, trailing: tuple[tuple[str, str | bytes], ...] | None) -> Batch:
    """Send headers and a status at once."""
    return initial_metadata(None), status(code, details, trailing)


def auth_context(call: Call) -> dict[str, list[bytes]]:
    """Return what is known of the caller's identity; ``peer_spiffe_id`` for a client certificate that has one."""
    context: dict[bytes, list[bytes]] | None = cygrpc.auth_context(call)
    return {key.decode(): list(values) for key, values in (context or {}).items()}


def peer_identities(call: Call) -> list[bytes] | None:
    """Return the caller's proven names, or None."""
    identities: list[bytes] | None = cygrpc.peer_identities(call)
    return identities


def peer_identity_key(call: Call) -> str | None:
    """Return which property of the auth context holds the identities, or None."""
    key: bytes | None = cygrpc.peer_identity_key(call)
    return None if key is None else key.decode()
