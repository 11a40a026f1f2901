"""Errors of calls: one class for each gRPC status that callers distinguish."""

# ruff: noqa: N818 - users catch `client.NotFound`; a suffix "Error" would add nothing.

from collections.abc import Iterable, Mapping
from typing import TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_PUSHBACK_KEY = "grpc-retry-pushback-ms"
_ID_KEY = "x-request-id"

#: How gRPC's core refuses a message, for the server: it does not know the name of the setting.
_TOO_LARGE = "SERVER: Received message larger than max"


class InferdError(Exception):
    """A call, or one request of a stream, that ended without a result.

    ``status`` is the gRPC status, ``message`` its text. ``reason`` is the server's constant for programs, such as
    ``QUEUE_FULL``, or empty. ``retry_after_s`` is the server's retry delay, or None. Statuses without a class raise
    this class.

    ``request_id`` is the id to quote to the server's operator: the caller's, or else the one that the server assigned
    to the call; empty if there is neither. ``metadata`` is the metadata that came with the status.

    The gRPC error is kept as ``__context__``, which tracebacks leave out.
    """

    status = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        status: grpc.StatusCode | None = None,
        reason: str = "",
        retry_after_s: float | None = None,
        request_id: str = "",
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        self.metadata: Mapping[str, str | bytes] = metadata or {}
        if status is not None:
            self.status = status


class InvalidInput(InferdError, ValueError):
    """The request does not match the model, or cannot be sent; the message has the field, what was expected and got."""

    status = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(InferdError):
    """No such model, or no such version of it."""

    status = grpc.StatusCode.NOT_FOUND


class Overloaded(InferdError):
    """The server rejected or shed the request because a limit was reached: a queue, a quota or the message size."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(InferdError):
    """No connection, or the model is loading or failed, or the server is stopping."""

    status = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(InferdError):
    """The timeout passed before there was a result."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED


class Unauthenticated(InferdError):
    """The server requires a credential, or does not accept this one."""

    status = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(InferdError):
    """The credential is valid but lacks the permission."""

    status = grpc.StatusCode.PERMISSION_DENIED


class Cancelled(InferdError):
    """The call was cancelled, for instance by closing the client."""

    status = grpc.StatusCode.CANCELLED


class Unimplemented(InferdError):
    """The server lacks the method: it is another kind of server, or an older one."""

    status = grpc.StatusCode.UNIMPLEMENTED


class Internal(InferdError):
    """The model failed to run the request, or the server's answer is invalid."""

    status = grpc.StatusCode.INTERNAL


#: Errors that mean "not ready" in a query of readiness, and not that the query is invalid.
NOT_READY = (Unavailable, NotFound, DeadlineExceeded)

_CLASSES: dict[grpc.StatusCode, type[InferdError]] = {cls.status: cls for cls in InferdError.__subclasses__()}
_STATUSES: dict[int, grpc.StatusCode] = {status.value[0]: status for status in grpc.StatusCode}


def from_rpc_error(error: grpc.RpcError) -> InferdError:
    """Convert an error of grpc or grpc.aio."""
    trailing = dict(iter(_pairs(error.trailing_metadata())))
    pushback = trailing.get(_PUSHBACK_KEY)
    packed = trailing.get(_DETAILS_KEY)
    details = _parse(status_pb2.Status, packed) if isinstance(packed, bytes) else None
    message = error.details() or ""
    translated = _error(
        error.code(),
        f"{message}, its server.max_message_bytes" if message.startswith(_TOO_LARGE) else message,
        details or status_pb2.Status(),
        None if pushback is None else _pushback_s(pushback),
    )
    translated.metadata = own_metadata(error.trailing_metadata())
    translated.request_id = str(translated.metadata.get(_ID_KEY, ""))
    return translated


def out_of_time(timeout_s: float | None) -> DeadlineExceeded:
    """Return the error of a call that timed out."""
    return DeadlineExceeded(f"no answer within {timeout_s:g} s")


def from_status(status: status_pb2.Status) -> InferdError:
    """Convert an error within a stream."""
    return _error(_STATUSES.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status, None)


def own_metadata(trailing: object) -> dict[str, str | bytes]:
    """Return the metadata of a status by key, without gRPC's own."""
    return {key: value for key, value in _pairs(trailing) if not key.startswith("grpc-")}


def _pairs(trailing: object) -> Iterable[tuple[str, str | bytes]]:
    """Return metadata as pairs; older `grpc.aio` has a class for it that resembles a mapping but is none."""
    return cast("Iterable[tuple[str, str | bytes]]", trailing or ())


def _error(code: grpc.StatusCode, message: str, details: status_pb2.Status, pushback_s: float | None) -> InferdError:
    info = _detail(error_details_pb2.ErrorInfo, details)
    retry = _detail(error_details_pb2.RetryInfo, details)
    return _CLASSES.get(code, InferdError)(
        message,
        status=code,
        reason="" if info is None else info.reason,
        retry_after_s=pushback_s if retry is None else retry.retry_delay.ToNanoseconds() / 1e9,
    )


def _pushback_s(value: str | bytes) -> float | None:
    """Return the seconds of a pushback; a negative or invalid one means "do not retry", without a delay."""
    try:
        milliseconds = int(value)
    except ValueError:
        return None
    return milliseconds / 1000 if milliseconds >= 0 else None


_M = TypeVar("_M", bound=Message)


def _detail(kind: type[_M], status: status_pb2.Status) -> _M | None:
    matching: Iterable[_M | None] = (_parse(kind, any_.value) for any_ in status.details if any_.Is(kind.DESCRIPTOR))
    return next(iter(matching), None)


def _parse(kind: type[_M], value: bytes) -> _M | None:
    """Parse a detail; an invalid one must not hide the error that it belongs to."""
    try:
        return kind.FromString(value)
    except DecodeError:
        return None
