"""The table from `ServingError` to gRPC status, and how a status is encoded."""

import math
from dataclasses import dataclass
from functools import lru_cache

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus

from inferd.batching.request import FailedRunError
from inferd.errors import (
    ColdModelError,
    DeadlineExceededError,
    InferenceFailedError,
    InvalidInputError,
    ModelControlError,
    ModelLoadFailedError,
    ModelNotFoundError,
    ModelUnavailableError,
    NotAllowedError,
    NotAuthenticatedError,
    OutOfMemoryError,
    OverloadedError,
    QuotaExceededError,
    Retry,
    RunTooLongError,
    ServingError,
)
from inferd.plain_text import escaped
from inferd.rpc import EncodedMetadata, Metadata, Rejection, RejectionCause, StreamCall, UnaryCall, encoded_metadata

_CODES: dict[type[ServingError], grpc.StatusCode] = {
    InvalidInputError: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    ModelUnavailableError: grpc.StatusCode.UNAVAILABLE,
    ColdModelError: grpc.StatusCode.UNAVAILABLE,
    ModelControlError: grpc.StatusCode.UNAVAILABLE,
    ModelLoadFailedError: grpc.StatusCode.INTERNAL,
    NotAuthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    NotAllowedError: grpc.StatusCode.PERMISSION_DENIED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    QuotaExceededError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    RunTooLongError: grpc.StatusCode.DEADLINE_EXCEEDED,
    OutOfMemoryError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    InferenceFailedError: grpc.StatusCode.INTERNAL,
    FailedRunError: grpc.StatusCode.INTERNAL,
}

#: Errors that say nothing of the server's state. A flood of them is paced.
_FAULTS_OF_CALLERS = (
    InvalidInputError,
    ModelNotFoundError,
    NotAllowedError,
    NotAuthenticatedError,
    QuotaExceededError,
)

_ERROR_DOMAIN = "inferd"


@dataclass(slots=True)
class Status:
    """How a call ends without a response; not to be changed."""

    code: grpc.StatusCode
    message: str
    reason: str
    retry_after_ms: int | None
    #: The path to the field of the request that the status is about, empty if there is none.
    field: str = ""
    retry: Retry = Retry.AFTER_DELAY
    _trailers: EncodedMetadata | None = None

    def to_bytes(self) -> bytes:
        """Return the encoded `google.rpc.Status`, as sent in trailing metadata and within a stream."""
        # Encoded messages are merged by joining them.
        status: bytes = RpcStatus(code=self.code.value[0], message=self.message).SerializeToString()
        status += _details(self.reason, self.retry_after_ms)
        return status + _field_violation(self.field, self.message) if self.field else status

    def trailing_metadata(self) -> Metadata:
        """Return the trailing metadata of a call that ends with the status."""
        metadata: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", self.to_bytes())]
        if self.retry is Retry.NEVER:
            metadata.append(("grpc-retry-pushback-ms", "-1"))
        elif self.retry is Retry.AFTER_DELAY and self.retry_after_ms is not None:
            metadata.append(("grpc-retry-pushback-ms", str(self.retry_after_ms)))
        return metadata

    def trailers(self) -> EncodedMetadata:
        """Return the trailing metadata as it is sent with each call that ends with the status."""
        if self._trailers is None:
            self._trailers = encoded_metadata(self.trailing_metadata())
        return self._trailers


class StatusTable:
    """Maps errors to statuses. Requests rejected or shed for overload get ``overload_code``."""

    def __init__(self, overload_code: grpc.StatusCode = grpc.StatusCode.RESOURCE_EXHAUSTED) -> None:
        self._codes = {**_CODES, OverloadedError: overload_code}
        #: The last error that was an overload, and its status: many requests are rejected with the same one.
        self._last: tuple[ServingError | None, Status | None] = (None, None)

    def status_of(self, error: ServingError) -> Status:
        """Return the status of ``error``; any thread."""
        last, status = self._last
        if status is not None and last is error:
            return status
        status = self._new_status(error)
        # One that was raised refers to frames and thereby to the message of a request.
        if isinstance(error, OverloadedError) and error.__traceback__ is None:
            self._last = error, status
        return status

    def _new_status(self, error: ServingError) -> Status:
        retry_after_ms = None
        if (
            isinstance(error, OverloadedError | QuotaExceededError | ModelUnavailableError)
            and error.retry_after_s is not None
        ):
            retry_after_ms = max(1, math.ceil(error.retry_after_s * 1000))
        return Status(self._codes[type(error)], error.message, error.reason, retry_after_ms, error.field, error.retry)

    def rejection(self, cause: RejectionCause) -> Rejection:
        """Return the rejection of a call that the server turned away before a handler saw it, in the same form."""
        code, retry_after_ms = cause.code, None
        if cause.retry_after_s is not None:
            code, retry_after_ms = self._codes[OverloadedError], math.ceil(cause.retry_after_s * 1000)
        status = Status(code, cause.details, cause.reason, retry_after_ms)
        return Rejection(code, cause.details, status.trailing_metadata())


def abort(call: UnaryCall, statuses: StatusTable, error: ServingError) -> None:
    """End a unary ``call`` with the status of ``error``; later, if its caller causes many errors."""
    status = statuses.status_of(error)
    end = call.abort_paced if isinstance(error, _FAULTS_OF_CALLERS) else call.abort
    end(status.code, status.message, status.trailers())


def finish(call: StreamCall, statuses: StatusTable, error: ServingError) -> None:
    """End the stream of ``call`` with the status of ``error``."""
    status = statuses.status_of(error)
    call.finish(status.code, status.message, status.trailing_metadata())


#: Limits within a field violation.
_MAX_FIELD_BYTES = 80
_MAX_DESCRIPTION_BYTES = 160


@lru_cache(maxsize=1024)
def _details(reason: str, retry_after_ms: int | None) -> bytes:
    """Encode the machine-readable details; cached, because few differ and building them is slow."""
    status = RpcStatus()
    status.details.add().Pack(ErrorInfo(reason=reason, domain=_ERROR_DOMAIN))
    if retry_after_ms is not None:
        delay = Duration()
        delay.FromMilliseconds(retry_after_ms)
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    encoded: bytes = status.SerializeToString()
    return encoded


def _field_violation(field: str, message: str) -> bytes:
    """Encode the detail that names the invalid field.

    Proxies limit the size of a status, and ``message`` is in it twice already, so only a short one is repeated.
    """
    path = escaped(field)
    if len(path.encode()) > _MAX_FIELD_BYTES:
        path = path.encode()[: _MAX_FIELD_BYTES - 3].decode(errors="ignore") + "…"
    description = message if len(message.encode()) <= _MAX_DESCRIPTION_BYTES else ""
    status = RpcStatus()
    violation = BadRequest.FieldViolation(field=path, description=description)
    status.details.add().Pack(BadRequest(field_violations=[violation]))
    encoded: bytes = status.SerializeToString()
    return encoded
