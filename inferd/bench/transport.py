"""Send serialized requests over `grpc.aio`, spread over several connections."""

import asyncio
import time
from collections.abc import Awaitable, Iterable, Sequence
from itertools import cycle
from typing import cast

import grpc
import grpc.aio

from inferd.arguments import Metadata
from inferd.bench.attempt import Answer, Attempt, Failure
from inferd.bench.retries import Refusal
from inferd.bench.server import MODEL_INFER, channel_options
from inferd.client.errors import from_rpc_error
from inferd.endpoint import Endpoint
from inferd.plain_text import clipped

_PUSHBACK_KEY = "grpc-retry-pushback-ms"


class Transport:
    """Channels to one server, of the event loop that opens them. ``metadata`` is by traffic class."""

    def __init__(self, endpoint: Endpoint, metadata: Sequence[Metadata], connections: int) -> None:
        self._endpoint = endpoint
        self._metadata = metadata
        self._connections = connections

    async def open(self, timeout_s: float) -> None:
        """Connect. Raises `TimeoutError` if the server does not answer in time."""
        self._channels = [self._channel() for _ in range(self._connections)]
        ready = asyncio.gather(*(channel.channel_ready() for channel in self._channels))
        await asyncio.wait_for(ready, timeout_s)
        self._methods = cycle([channel.unary_unary(MODEL_INFER, _handed_over, _arrived) for channel in self._channels])

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close(None)

    def send(self, attempt: Attempt, timeout_s: float) -> Awaitable[Answer | Failure]:
        """Send a request in the next iteration of the event loop; return an awaitable of its end."""
        method = next(self._methods)
        return _end(method(attempt, timeout=timeout_s, metadata=self._metadata[attempt.prepared.class_index]))

    def _channel(self) -> grpc.aio.Channel:
        endpoint, options = self._endpoint, channel_options(self._endpoint)
        if endpoint.tls is None:
            return grpc.aio.insecure_channel(endpoint.address, options)
        return grpc.aio.secure_channel(endpoint.address, endpoint.tls.credentials(), options)


def _handed_over(attempt: Attempt) -> bytes:
    """Record the time of sending, as the serializer, which runs just before gRPC's core gets the message."""
    return attempt.sent(time.monotonic())


def _arrived(message: bytes) -> Answer:
    """Record the time of arrival, as the deserializer: it runs before the event loop gets to the caller."""
    return Answer(message, time.monotonic())


async def _end(call: Awaitable[Answer]) -> Answer | Failure:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return failure(error)


def failure(error: grpc.aio.AioRpcError) -> Failure:
    """Convert a failed call to its status, reason and retry hint."""
    known = from_rpc_error(error)
    # A negative pushback forbids retries.
    may_retry = not any(key == _PUSHBACK_KEY and str(value).startswith("-") for key, value in _pairs(error))
    refusal = Refusal(known.status.name, known.retry_after_s, may_retry)
    return Failure(refusal, clipped(known.reason), clipped(known.message))


def _pairs(error: grpc.aio.AioRpcError) -> Iterable[tuple[str, str | bytes]]:
    """Return the trailing metadata as pairs; the stubs know it as a mapping, which it is not."""
    return cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
