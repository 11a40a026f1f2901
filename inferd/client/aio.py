"""The client for asyncio code."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd._generated.inferd.v1 import inference_pb2_grpc
from inferd.client import messages
from inferd.client.aio_feed import AsyncFeed, StreamCall
from inferd.client.aio_shared import AsyncSharedStream
from inferd.client.channel import INFER, MAX_MESSAGE_BYTES, STREAM_INFER, RetryPolicy, channel_config
from inferd.client.codec import Inputs
from inferd.client.errors import NOT_READY, Cancelled, from_rpc_error
from inferd.client.ledger import StreamInput, StreamLedger
from inferd.client.lifetime import Lifetime
from inferd.client.pack import MESSAGE_BYTES
from inferd.client.results import ModelInfo, ModelState, Result, StreamItem
from inferd.endpoint import TLS
from inferd.health_check import METHOD as HEALTH_METHOD
from inferd.health_check import HealthStatus, question, status_of

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class AsyncClient:
    """As `inferd.client.Client`, with coroutines; parameters, results and errors are the same.

    Belongs to the event loop of its first call. Cancelling a task cancels its call.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        allow_insecure_token: bool = False,
        tls: TLS | None = None,
        timeout_s: float | None = 30.0,
        retry: RetryPolicy | None = RetryPolicy(),  # noqa: B008 - frozen, so it can be shared
        round_robin: bool = False,
        metadata: Mapping[str, str | bytes] | None = None,
        max_receive_bytes: int = MAX_MESSAGE_BYTES,
        coalesce: bool = False,
    ) -> None:
        self._config = channel_config(
            address,
            token=token,
            allow_insecure_token=allow_insecure_token,
            tls=tls,
            retry=retry,
            round_robin=round_robin,
            metadata=metadata,
            max_receive_bytes=max_receive_bytes,
        )
        self._timeout_s = timeout_s
        self._metadata = self._config.metadata
        self._lifetime = Lifetime()
        self._shared = AsyncSharedStream(self._open_stream) if coalesce else None

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        outputs: Sequence[str] = (),
        version: str = "",
        priority: int = 0,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> Result:
        """Run ``model`` once; see `inferd.client.Client.infer`."""
        fields, limit_s = messages.input_fields(inputs), self._timeout_s if timeout_s is None else timeout_s
        if self._shared is None or sum(map(len, fields)) > MESSAGE_BYTES:
            writer = messages.request_writer(model, version, tuple(outputs), priority, None)
            return messages.result(await self._call(self._infer, writer.write(request_id, fields), limit_s))
        self._lifetime.check()
        writer = messages.request_writer(model, version, tuple(outputs), priority, limit_s)
        return await self._shared.infer(writer, fields, request_id, limit_s)

    def stream(
        self,
        model: str,
        inputs: Iterable[StreamInput] | AsyncIterable[StreamInput],
        *,
        outputs: Sequence[str] = (),
        version: str = "",
        priority: int = 0,
        timeout_s: float | None = None,
        max_in_flight: int = 64,
        ordered: bool = False,
    ) -> AsyncGenerator[StreamItem, None]:
        """Run ``model`` on every element of ``inputs`` over one stream; see `inferd.client.Client.stream`.

        ``inputs`` may be asynchronous; an ordinary iterable is read on the event loop and should not block.
        """
        self._lifetime.check()
        writer = messages.request_writer(model, version, tuple(outputs), priority, timeout_s)
        ledger = StreamLedger(writer, ordered=ordered)
        return self._run_stream(AsyncFeed(inputs, ledger, max_in_flight), ledger)

    async def models(self, *, timeout_s: float | None = None) -> list[ModelInfo]:
        """Describe every model version that the server knows, by name, then by version, the highest first."""
        response = await self._call(self._stub.ListModels, pb.ListModelsRequest(), timeout_s)
        return [messages.model_info(model) for model in response.models]

    async def model(self, name: str, *, version: str = "", timeout_s: float | None = None) -> ModelInfo:
        """Describe one model version, by default the highest."""
        response = await self._call(self._stub.GetModel, pb.GetModelRequest(model=name, version=version), timeout_s)
        return messages.model_info(response.model)

    async def is_ready(self, model: str = "", *, version: str = "", timeout_s: float | None = None) -> bool:
        """Whether the server takes requests, or this model of it. False also if nobody answers."""
        try:
            if model:
                return (await self.model(model, version=version, timeout_s=timeout_s)).state is ModelState.READY
            answer = await self._call(self._health, question(), timeout_s)
            return status_of(answer) is HealthStatus.SERVING
        except NOT_READY:
            return False

    async def close(self) -> None:
        """Cancel what is under way and let go of the connection. May be called again."""
        self._lifetime.closed = True
        await self._channel.close(None)
        if self._shared is not None:
            await self._shared.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # Made at the first call, because the channel belongs to the event loop that runs then.
    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        config = self._config
        if config.credentials is None:
            return grpc.aio.insecure_channel(config.address, config.options)
        return grpc.aio.secure_channel(config.address, config.credentials, config.options)

    @cached_property
    def _stub(self) -> "inference_pb2_grpc.InferenceServiceAsyncStub":
        return inference_pb2_grpc.InferenceServiceStub(self._channel)

    @cached_property
    def _infer(self) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, pb.InferResponse]":
        return self._channel.unary_unary(INFER, None, pb.InferResponse.FromString)

    @cached_property
    def _stream_infer(self) -> "grpc.aio.StreamStreamMultiCallable[bytes, pb.StreamInferResponse]":
        return self._channel.stream_stream(STREAM_INFER, None, pb.StreamInferResponse.FromString)

    @cached_property
    def _health(self) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
        return self._channel.unary_unary(HEALTH_METHOD, None, None)

    async def _call(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]",
        request: _Request,
        timeout_s: float | None,
    ) -> _Response:
        self._lifetime.check()
        with self._translated_errors():
            return await method(
                request, timeout=self._timeout_s if timeout_s is None else timeout_s, metadata=self._metadata
            )

    def _open_stream(self) -> StreamCall:
        return self._stream_infer(None, metadata=self._metadata)

    async def _run_stream(self, feed: AsyncFeed, ledger: StreamLedger) -> AsyncGenerator[StreamItem, None]:
        call = self._open_stream()
        writer = asyncio.create_task(feed.run(call))
        try:
            with self._translated_errors():
                async for message in call:
                    for result in message.results:
                        for item in ledger.settle(result):
                            feed.free_slot()
                            yield item
        finally:
            writer.cancel()
            call.cancel()
        if feed.failure is not None:
            raise feed.failure
        ledger.finish()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
        except asyncio.CancelledError:
            # Closing the channel cancels calls in the same way as cancelling their task does.
            task = asyncio.current_task()
            if self._lifetime.closed and task is not None and not task.cancelling():
                msg = "the client was closed"
                raise Cancelled(msg) from None
            raise
