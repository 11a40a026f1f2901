"""The part of grpcio's private surface in use. If grpcio changes, only this module needs review.

``grpc._cython.cygrpc`` is a thin layer over gRPC's C core. A *completion queue* is polled for events; each event
carries the *tag* that was given when its work was started. Every tag here is a callable that takes the event.
Work on a call is started as a *batch* of operations; the event comes when all of them are done.

Hazards, which the modules that use this one must avoid:

- An operation object in two batches is freed twice: the functions below make a new one each time.
- A second batch of a kind that is in flight on the call is refused with an error code, and its tag never arrives.
- A batch that is started after the queue was shut down aborts the process.
- A queue that is freed with tags pending waits for them forever.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
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
    """The installed grpcio lacks or changes something this package relies on."""

    def __init__(self, what: str) -> None:
        super().__init__(f"grpcio {grpc.__version__} {what}; this package works with grpcio {TESTED_GRPCIO}")


def missing_names(module: object) -> list[str]:
    """Return the names used here that ``module`` lacks."""
    return [name for name in _NAMES if not hasattr(module, name)]


if _missing := missing_names(cygrpc):
    raise IncompatibleGrpcioError(f"lacks {', '.join(_missing)}")

Metadata = Sequence[tuple[str, str | bytes]]


class EncodedMetadata(tuple[tuple[bytes, bytes], ...]):
    """Checked metadata in bytes, so that it is neither checked nor encoded for each call that it is sent with."""

    __slots__ = ()


#: What may be sent: metadata to be checked, or metadata that was.
SentMetadata = Metadata | EncodedMetadata
#: Checked metadata in the core's form; None if there is none.
CheckedMetadata = tuple[tuple[str | bytes, str | bytes], ...] | None


_KEY = re.compile(r"[0-9a-z_.-]+")
_BINARY_SUFFIX = "-bin"

#: Keys that gRPC writes itself.
_RESERVED = frozenset(
    {
        "content-type",
        "grpc-accept-encoding",
        "grpc-encoding",
        "grpc-internal-encoding-request",
        "grpc-message",
        "grpc-status",
        "grpc-timeout",
        "te",
    }
)

#: One piece of work on a call; not to be used twice.
Operation = Any
Batch = tuple[Operation, ...]


class Event(Protocol):
    """The result of a poll. ``tag`` is None if no event came before the deadline, or the queue has ended."""

    tag: Callable[[Any], None] | None
    completion_type: int
    success: bool


class BatchEvent(Event, Protocol):
    """A batch is done; ``success`` is False if any of its operations failed."""

    batch_operations: Batch


class Call(Protocol):
    """The core's call. It stays valid as long as it is referenced, also after the RPC has ended."""

    def start_server_batch(self, operations: Batch, tag: Callable[[BatchEvent], None]) -> int:
        """Start ``operations``; returns 0, or an error code if the tag will not arrive."""
        ...

    def cancel(self) -> int:
        """End the call with CANCELLED."""
        ...

    def peer(self) -> bytes:
        """The caller's address, percent-encoded."""
        ...


class RefusedBatch:
    """Replaces the event of a batch that was not started."""

    completion_type: int = cygrpc.CompletionType.operation_complete
    success = False

    def __init__(self, batch: Batch) -> None:
        self.tag: Callable[[Any], None] | None = None
        self.batch_operations = batch


class CallDetails(Protocol):
    """A call before its first message; ``deadline`` is in seconds since the epoch."""

    method: bytes
    deadline: float


class RequestEvent(Event, Protocol):
    """A new call; without ``success``, none will come because the server is stopping."""

    call: Call
    call_details: CallDetails
    invocation_metadata: tuple[tuple[str, str | bytes], ...]


class Queue(Protocol):
    """A completion queue."""

    def poll(self, deadline: float | None) -> Event:
        """Wait for an event until ``deadline``, in seconds since the epoch."""
        ...

    def shutdown(self) -> None:
        """Start nothing more; the last event comes when all is done."""
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
        """Request one call; its event comes with the call."""
        ...

    def register_method(self, method: str) -> None:
        """Queue calls of ``method`` apart from the others; before ``start``."""
        ...

    def request_registered_call(
        self, call_queue: Queue, server_queue: Queue, method: str, tag: Callable[[RequestEvent], None]
    ) -> int:
        """Request one call of a registered method; its event does not name the method."""
        ...

    def shutdown(self, queue: Queue, tag: Callable[[Event], None]) -> None:
        """Send GOAWAY and accept no further calls; the tag comes when all calls have ended."""
        ...

    def cancel_all_calls(self) -> None:
        """End all calls with CANCELLED; only after ``shutdown``."""
        ...

    def destroy(self) -> None:
        """Free the server; only after the tag of ``shutdown`` has come."""
        ...


#: The most that parsers of protobuf take. The core would send the length of a larger message modulo 2**32.
MOST_MESSAGE_BYTES = 2**31 - 1

_NO_FLAGS = 0
_QUEUE_ENDED = cygrpc.CompletionType.queue_shutdown

#: By identity, because enumerations hash in Python.
_CODE_NUMBERS = {id(code): code.value[0] for code in grpc.StatusCode}
_OK_CODE = grpc.StatusCode.OK
_OK: int = _OK_CODE.value[0]
#: Ordinary handlers may set a code that is no `grpc.StatusCode`.
_UNKNOWN: int = grpc.StatusCode.UNKNOWN.value[0]


def make_server(options: tuple[tuple[str, Any], ...]) -> tuple[CoreServer, Queue]:
    """Return a server that is not started, and the queue of all its events."""
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
    """Return the full method names of a handler made by `grpc.method_handlers_generic_handler`, else none."""
    return list(getattr(handler, "_method_handlers", ()))


#: Completes when the call has ended: its status was delivered, or never will be.
receive_close: Callable[[], Operation] = partial(cygrpc.ReceiveCloseOnServerOperation, _NO_FLAGS)

#: Receives the next message: ``event.batch_operations[0].message()``, None if there are no more or it failed.
receive_message: Callable[[], Operation] = partial(cygrpc.ReceiveMessageOperation, _NO_FLAGS)


def initial_metadata(metadata: CheckedMetadata) -> Operation:
    """Send the headers; they precede everything else."""
    return cygrpc.SendInitialMetadataOperation(metadata, _NO_FLAGS)


def message(payload: bytes) -> Operation:
    """Send one message."""
    return cygrpc.SendMessageOperation(payload, _NO_FLAGS)


def first_message(payload: bytes) -> Batch:
    """Send empty headers and one message."""
    return cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS), cygrpc.SendMessageOperation(payload, _NO_FLAGS)


def status(code: grpc.StatusCode, details: bytes, trailing: CheckedMetadata, added: CheckedMetadata) -> Operation:
    """Send the status with the metadata ``trailing`` and then ``added``; it ends the call."""
    if added is not None:
        trailing = added if trailing is None else (*trailing, *added)
    number = _OK if code is _OK_CODE else _CODE_NUMBERS.get(id(code), _UNKNOWN)
    return cygrpc.SendStatusFromServerOperation(trailing, number, details, _NO_FLAGS)


def auth_context(call: Call) -> dict[str, list[bytes]]:
    """Return the properties of the authenticated peer, for example ``peer_spiffe_id`` of a client certificate."""
    context: dict[bytes, list[bytes]] | None = cygrpc.auth_context(call)
    return {key.decode(): list(values) for key, values in (context or {}).items()}


def peer_identities(call: Call) -> list[bytes] | None:
    """Return the authenticated names of the peer, or None."""
    identities: list[bytes] | None = cygrpc.peer_identities(call)
    return identities


def peer_identity_key(call: Call) -> str | None:
    """Return the key of the identities in the auth context, or None."""
    key: bytes | None = cygrpc.peer_identity_key(call)
    return None if key is None else key.decode()


def encoded_metadata(metadata: Metadata) -> EncodedMetadata:
    """Return ``metadata`` as it is sent with many calls. Raises as `checked_metadata`."""
    checked = (_checked_pair(key, value) for key, value in metadata)
    return EncodedMetadata(
        [(key.encode(), value if isinstance(value, bytes) else value.encode()) for key, value in checked]
    )


def checked_metadata(metadata: Metadata | None) -> tuple[tuple[str, str | bytes], ...] | None:
    """Return ``metadata`` in the core's form, as the core's handling of illegal metadata differs by version.

    Raises ValueError naming the key that is illegal or has such a value.
    """
    if not metadata:
        return None
    return tuple([_checked_pair(key, value) for key, value in metadata])


def _checked_pair(key: object, value: object) -> tuple[str, str | bytes]:
    key = _checked_key(key)
    if key.endswith(_BINARY_SUFFIX):
        if not isinstance(value, bytes):
            raise ValueError(f"metadata {key!r}: expected bytes, got {type(value).__name__}")
        return key, value
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not (text.isascii() and text.isprintable()):
        raise ValueError(f"metadata {key!r}: expected printable ASCII, got {value!r}")
    return key, text


@lru_cache(maxsize=256)
def _checked_key(key: object) -> str:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ValueError(f"metadata key {key!r}: expected lower-case letters, digits, '_', '-' and '.'")
    if key in _RESERVED:
        raise ValueError(f"metadata key {key!r} is reserved for gRPC itself")
    return key
