"""The client for asyncio code."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from inferd._generated.inferd.v1 import generation_pb2, generation_pb2_grpc, inference_pb2_grpc
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.arguments import Metadata, MetadataLike
from inferd.client import messages, repository
from inferd.client.base import (
    TRANSIENT_ERRORS,
    BaseClient,
    CallParams,
    ReadinessWait,
    why_model_not_ready,
    why_server_not_ready,
)
from inferd.client.channel import INFER, STREAM_INFER
from inferd.client.coalescing import AsyncSharedStream
from inferd.client.codec import Inputs
from inferd.client.errors import NOT_READY, Cancelled, InferdError, from_rpc_error, out_of_time, own_metadata
from inferd.client.generation_messages import Collected
from inferd.client.generation_streams import AsyncGeneration
from inferd.client.repository import CONTROL_TIMEOUT_S, ModelConfig
from inferd.client.results import IndexEntry, ModelInfo, Result, Routing, StreamItem
from inferd.client.stream import AsyncFeed, StreamCall, StreamInput, StreamLedger
from inferd.health_check import METHOD as HEALTH_METHOD
from inferd.health_check import encode_check

_Response = TypeVar("_Response")


class AsyncClient(BaseClient[grpc.aio.ClientInterceptor, AsyncGeneration]):
    """As `inferd.client.Client`, with coroutines; parameters, results and errors are the same.

    ``interceptors`` are those of `grpc.aio`. Belongs to the event loop of its first call, and raises RuntimeError in
    another. Cancelling a task cancels its call.
    """

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
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> Result:
        """Run ``model`` once; see `inferd.client.Client.infer`."""
        self._lifetime.check_loop()
        params = self._params(timeout_s, metadata, wait_for_ready)
        if request_id != "":
            messages.checked_request_id(request_id)
        try:
            fields = messages.input_fields(inputs)
            if self._shared is not None and not self._needs_own_call(fields, params):
                writer = messages.request_writer(model, version, outputs, priority, params[0])
                return await self._shared.infer(writer, fields, request_id, params[0])
            request = messages.request_writer(model, version, outputs, priority, None).write(request_id, fields)
            if metadata is None:
                return messages.result(await self._call(self._infer, request, params))
            response, trailing = await self._call(self._infer_with_trailing, request, params)
            return messages.result(response, trailing)
        except InferdError as error:
            error.request_id = request_id or error.request_id
            raise

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
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> AsyncGenerator[StreamItem, None]:
        """Run ``model`` on every element of ``inputs`` over one stream; see `inferd.client.Client.stream`.

        ``inputs`` may be asynchronous; an ordinary iterable is read on the event loop and should not block.
        """
        self._lifetime.check()
        params = self._params(None, metadata, wait_for_ready)
        ledger = self._ledger(model, outputs, version, priority, timeout_s, ordered=ordered)
        return self._run_stream(AsyncFeed(inputs, ledger, max_in_flight), ledger, params)

    async def models(
        self,
        *,
        timeout_s: float | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> list[ModelInfo]:
        """Describe every model version that the server knows, by name, then by version, the highest first."""
        self._lifetime.check_loop()
        params = self._params(timeout_s, metadata, wait_for_ready)
        response = await self._call(self._stub.ListModels, pb.ListModelsRequest(), params)
        return [messages.model_info(model) for model in response.models]

    async def model(
        self,
        name: str,
        *,
        version: str = "",
        load: bool = False,
        timeout_s: float | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> ModelInfo:
        """Describe one model version, by default the highest."""
        params = self._params(timeout_s, metadata, wait_for_ready)
        return await self._model(messages.model_request(name, version, load=load), params)

    async def load_model(
        self,
        name: str,
        *,
        version: str = "",
        config: ModelConfig | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout_s: float | None = CONTROL_TIMEOUT_S,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> list[ModelInfo]:
        """Load a model; see `inferd.client.Client.load_model`."""
        self._lifetime.check_loop()
        request = repository.load_request(name, version, config, files)
        response = await self._call(self._stub.LoadModel, request, self._params(timeout_s, metadata, wait_for_ready))
        return [messages.model_info(model) for model in response.models]

    async def unload_model(
        self,
        name: str,
        *,
        version: str = "",
        timeout_s: float | None = CONTROL_TIMEOUT_S,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> None:
        """Unload a model, or one ``version`` of it; return when its admitted requests have been answered."""
        self._lifetime.check_loop()
        request = repository.unload_request(name, version)
        await self._call(self._stub.UnloadModel, request, self._params(timeout_s, metadata, wait_for_ready))

    async def repository_index(
        self,
        *,
        ready: bool = False,
        timeout_s: float | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> list[IndexEntry]:
        """List the models of the server's repositories, loaded or not, or with ``ready`` those that serve."""
        self._lifetime.check_loop()
        request = repository.index_request(ready)
        response = await self._call(self._stub.IndexModels, request, self._params(timeout_s, metadata, wait_for_ready))
        return repository.index_entries(response)

    async def routing(
        self,
        name: str,
        *,
        timeout_s: float | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> Routing:
        """Return how requests are routed to the versions of a model."""
        self._lifetime.check_loop()
        request = repository.routing_request(name)
        response = await self._call(self._stub.GetRouting, request, self._params(timeout_s, metadata, wait_for_ready))
        return repository.routing_of(response.routing)

    async def set_routing(
        self,
        name: str,
        routing: Routing,
        *,
        timeout_s: float | None = None,
        metadata: MetadataLike | None = None,
        wait_for_ready: bool | None = None,
    ) -> Routing:
        """Route requests to the versions of a model in another way, and return how it is now.

        It holds until the model is loaded with other routing in its settings, or the server restarts. Raises
        `InvalidInput` if it leads to a version that is not ready.
        """
        self._lifetime.check_loop()
        request = repository.set_routing_request(name, routing)
        response = await self._call(self._stub.SetRouting, request, self._params(timeout_s, metadata, wait_for_ready))
        return repository.routing_of(response.routing)

    async def is_ready(
        self,
        model: str = "",
        *,
        version: str = "",
        timeout_s: float | None = None,
        metadata: MetadataLike | None = None,
    ) -> bool:
        """Whether the server, or one of its models, accepts requests. False also if there is no server."""
        try:
            return not await self._why_not_ready(
                model, version, self._params(timeout_s, metadata, wait_for_ready=False)
            )
        except NOT_READY:
            return False

    async def wait_until_ready(
        self,
        model: str = "",
        *,
        version: str = "",
        timeout_s: float | None = None,
        metadata: MetadataLike | None = None,
    ) -> None:
        """Wait until the server, or a model, accepts requests; see `inferd.client.Client.wait_until_ready`."""
        limit_s, sent, waits = self._params(timeout_s, metadata, wait_for_ready=True)
        wait = ReadinessWait(limit_s)
        while True:
            try:
                reason: str | InferdError = await self._why_not_ready(model, version, (wait.left_s(), sent, waits))
            except TRANSIENT_ERRORS as error:
                reason = error
            if not reason:
                return
            wait.not_ready(reason)
            await asyncio.sleep(wait.pause_s())

    async def close(self) -> None:
        """Cancel all calls in progress and close the connection. May be called again."""
        if self._lifetime.closed or self._lifetime.forked or "_channel" not in vars(self):
            self._lifetime.closed = True
            return
        self._lifetime.check_loop()
        self._lifetime.closed = True
        if self._shared is not None:
            await self._shared.close()
        await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _start(self, *, coalesce: bool) -> None:
        self._shared = AsyncSharedStream(lambda: self._open_stream(self._metadata, self._waits)) if coalesce else None

    @classmethod
    def _interceptor_kinds(cls) -> tuple[type, ...]:
        return (grpc.aio.ClientInterceptor,)

    # Created by the first call, because the channel belongs to the running event loop.
    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        config = self._config
        if config.credentials is None:
            return grpc.aio.insecure_channel(config.address, config.options, config.compression, self._interceptors)
        return grpc.aio.secure_channel(
            config.address, config.credentials, config.options, config.compression, self._interceptors
        )

    @cached_property
    def _stub(self) -> "inference_pb2_grpc.InferenceServiceAsyncStub":
        return inference_pb2_grpc.InferenceServiceStub(self._channel)

    @cached_property
    def _generation_stub(self) -> "generation_pb2_grpc.GenerationServiceAsyncStub":
        return generation_pb2_grpc.GenerationServiceStub(self._channel)

    @cached_property
    def _infer(self) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, pb.InferResponse]":
        return self._channel.unary_unary(INFER, None, pb.InferResponse.FromString)

    @cached_property
    def _stream_infer(self) -> "grpc.aio.StreamStreamMultiCallable[bytes, pb.StreamInferResponse]":
        return self._channel.stream_stream(STREAM_INFER, None, pb.StreamInferResponse.FromString)

    @cached_property
    def _health(self) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
        return self._channel.unary_unary(HEALTH_METHOD, None, None)

    async def _model(self, request: pb.GetModelRequest, params: CallParams) -> ModelInfo:
        self._lifetime.check_loop()
        response = await self._call(self._stub.GetModel, request, params)
        return messages.model_info(response.model)

    async def _why_not_ready(self, model: str, version: str, params: CallParams) -> str:
        """Return why the server or a model is not ready; empty if it is."""
        if model != "":
            return why_model_not_ready(await self._model(messages.model_request(model, version), params))
        self._lifetime.check_loop()
        return why_server_not_ready(await self._call(self._health, encode_check(), params))

    async def _infer_with_trailing(
        self, request: bytes, *, timeout: float | None, metadata: Metadata, wait_for_ready: bool | None
    ) -> tuple[pb.InferResponse, Mapping[str, str | bytes]]:
        call = self._infer(request, timeout=timeout, metadata=metadata, wait_for_ready=wait_for_ready)
        response = await call
        return response, own_metadata(await call.trailing_metadata())

    async def _call(
        self, method: Callable[..., Awaitable[_Response]], request: object, params: CallParams
    ) -> _Response:
        """Start a call and wait for its end."""
        timeout_s, metadata, waits = params
        if timeout_s == 0:  # gRPC may still answer such a call.
            raise out_of_time(timeout_s)
        with self._translated_errors():
            return await method(request, timeout=timeout_s, metadata=metadata, wait_for_ready=waits)

    def _open_stream(self, metadata: Metadata, waits: bool | None) -> StreamCall:
        return self._stream_infer(None, metadata=metadata, wait_for_ready=waits)

    def _generation(self, request: generation_pb2.GenerateRequest, params: CallParams) -> AsyncGeneration:
        self._lifetime.check()
        answer = Collected(request.request_id)
        return AsyncGeneration(self._responses(request, params, answer), answer)

    async def _responses(
        self, request: generation_pb2.GenerateRequest, params: CallParams, answer: Collected
    ) -> AsyncGenerator[generation_pb2.GenerateResponse, None]:
        self._lifetime.check_loop()
        timeout_s, metadata, waits = params
        if timeout_s == 0:
            raise out_of_time(timeout_s)
        call = self._generation_stub.Generate(request, timeout=timeout_s, metadata=metadata, wait_for_ready=waits)
        try:
            with self._translated_errors():
                async for response in call:
                    yield response
                answer.metadata = own_metadata(await call.trailing_metadata())
        finally:
            call.cancel()

    async def _run_stream(
        self, feed: AsyncFeed, ledger: StreamLedger, params: CallParams
    ) -> AsyncGenerator[StreamItem, None]:
        self._lifetime.check_loop()
        _, metadata, waits = params
        call = self._open_stream(metadata, waits)
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
