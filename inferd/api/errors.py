"""The one table from `ServingError` to gRPC status, and the forms in which a status travels."""

import math
from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus

from inferd.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    InvalidInputError,
    ModelNotFoundError,
    ModelUnavailableError,
    OverloadedError,
    ServingError,
)
from inferd.rpc import Metadata

_CODES: dict[type[ServingError], grpc.StatusCode] = {
    InvalidInputError: grpc.StatusCode.INVALID_ARGUMENT,
    ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    ModelUnavailableError: grpc.StatusCode.UNAVAILABLE,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    InferenceFailedError: grpc.StatusCode.INTERNAL,
}

_ERROR_DOMAIN = "inferd"


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ends that has no answer."""

    code: grpc.StatusCode
    message: str
    details: tuple[Any, ...]
    retry_after_ms: int | None

    def to_proto(self) -> RpcStatus:
        """Return the status as it travels within a stream."""
        return RpcStatus(code=self.code.value[0], message=self.message, details=self.details)

    def trailing_metadata(self) -> Metadata:
        """Return what goes with the status when it ends a call."""
        metadata: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", self.to_proto().SerializeToString())]
        if self.retry_after_ms is not None:
            metadata.append(("grpc-retry-pushback-ms", str(self.retry_after_ms)))
        return metadata


class StatusTable:
    """Maps errors to statuses. ``overload_code`` is what refused and shed requests get."""

    def __init__(self, overload_code: grpc.StatusCode = grpc.StatusCode.RESOURCE_EXHAUSTED) -> None:
        self._codes = {**_CODES, OverloadedError: overload_code}

    def status_of(self, error: ServingError) -> Status:
        """Return the status of ``error``."""
        details = [_packed(ErrorInfo(reason=error.reason, domain=_ERROR_DOMAIN))]
        retry_after_ms = None
        if isinstance(error, OverloadedError):
            retry_after_ms = max(1, math.ceil(error.retry_after_s * 1000))
            delay = Duration()
            delay.FromMilliseconds(retry_after_ms)
            details.append(_packed(RetryInfo(retry_delay=delay)))
        return Status(self._codes[type(error)], error.message, tuple(details), retry_after_ms)


def _packed(detail: ErrorInfo | RetryInfo) -> Any:
    packed = Any()
    packed.Pack(detail)
    return packed
