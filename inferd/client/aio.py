"""The client for asyncio code."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd._generated.inferd.v1 import inference_pb2_grpc
from inferd.client import health, messages
from inferd.client.channel import MAX_MESSAGE_BYTES, TLS, RetryPolicy, channel_config
from inferd.client.codec import Inputs
from inferd.client.errors import Cancelled, from_rpc_error
from inferd.client.ledger import StreamInput, StreamLedger, check_window
from inferd.client.lifetime import Lifetime
from inferd.client.results import ModelInfo, ModelState, Result, StreamItem

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
        metadata: Mapping[str, str | bytes] | None = None,
        max_receive_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._config = channel_config(
            address,
            token=token,
            allow_insecure_token=allow_insecure_token,
            tls=tls,
            retry=retry,
            metadata=metadata,
            max_receive_bytes=max_receive_bytes,
        )
        self._timeout_s = timeout_s
        self._metadata = self._config.metadata
        self._lifetime = Lifetime()

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
        request = messages.infer_request(
            model=model,
            version=version,
            inputs=inputs,
            outputs=outputs,
            priority=priority,
            request_id=request_id,
        )
        return messages.result(await self._call(self._stub.Infer, request, timeout_s))

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
        build = partial(
            messages.infer_request,
            model=model,
            version=version,
            outputs=outputs,
            priority=priority,
            timeout_s=timeout_s,
        )
        ledger = StreamLedger(build, ordered=ordered)
        return self._run_stream(_Feed(inputs, ledger, max_in_flight), ledger)

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
            return health.is_serving(await self._call(self._health, health.REQUEST, timeout_s))
        except health.NOT_READY:
            return False

    async def close(self) -> None:
        """Cancel what is under way and let go of the connection. May be called again."""
        self._lifetime.closed = True
        await self._channel.close(None)

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
    def _health(self) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
        return self._channel.unary_unary(health.METHOD, None, None)

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

    async def _run_stream(self, feed: "_Feed", ledger: StreamLedger) -> AsyncGenerator[StreamItem, None]:
        call = self._stub.StreamInfer(None, metadata=self._metadata)
        writer = asyncio.create_task(feed.write_to(call))
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


class _Feed:
    """The requests of a stream, on their way from the caller's iterable to gRPC.

    Lives on one event loop: a task of its own runs `write_to`, and the reader of the results calls the rest.
    Invariant: a slot is taken before an element is read and freed when its item is handed over, so that no more than
    ``max_in_flight`` elements are between the two.
    """

    def __init__(
        self,
        inputs: Iterable[StreamInput] | AsyncIterable[StreamInput],
        ledger: StreamLedger,
        max_in_flight: int,
    ) -> None:
        check_window(max_in_flight)
        self._elements = _elements(inputs)
        self._ledger = ledger
        self._slots = asyncio.Semaphore(max_in_flight)
        self.failure: Exception | None = None

    async def write_to(self, call: "grpc.aio.StreamStreamCall[pb.StreamInferRequest, pb.StreamInferResponse]") -> None:
        """Send requests as slots come free, until the inputs end or raise, then half-close."""
        try:
            while await self._slots.acquire():
                try:
                    message = self._ledger.open(await anext(self._elements))
                except StopAsyncIteration:
                    break
                except Exception as error:  # noqa: BLE001 - what the caller's code raises goes back to the caller
                    self.failure = error
                    break
                await call.write(message)
            await call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # The call has ended, and whoever reads its results is told why.

    def free_slot(self) -> None:
        """Let one more element be read."""
        self._slots.release()


async def _elements(inputs: Iterable[StreamInput] | AsyncIterable[StreamInput]) -> AsyncIterator[StreamInput]:
    if isinstance(inputs, AsyncIterable):
        async for element in inputs:
            yield element
    else:
        for element in inputs:
            yield element
