"""The Python client: numpy in, numpy out, synchronous and asyncio. Needs nothing of the server's."""

from inferd.client.aio import AsyncClient
from inferd.client.channel import RetryPolicy
from inferd.client.codec import Inputs
from inferd.client.errors import (
    Cancelled,
    DeadlineExceeded,
    InferdError,
    Internal,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from inferd.client.ledger import StreamInput
from inferd.client.results import BatchingInfo, ModelInfo, ModelState, Result, StreamItem, TensorInfo, Timing
from inferd.client.sync import Client
from inferd.endpoint import TLS

__all__ = [
    "TLS",
    "AsyncClient",
    "BatchingInfo",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "InferdError",
    "Inputs",
    "Internal",
    "InvalidInput",
    "ModelInfo",
    "ModelState",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "Result",
    "RetryPolicy",
    "StreamInput",
    "StreamItem",
    "TensorInfo",
    "Timing",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
]
