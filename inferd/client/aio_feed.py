"""Requests on their way from the caller to gRPC, for asyncio."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from time import monotonic

import grpc
import grpc.aio

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client.ledger import StreamInput, StreamLedger, check_elements, check_window
from inferd.client.pack import Pack

StreamCall = grpc.aio.StreamStreamCall[bytes, pb.StreamInferResponse]

#: How long elements that are at hand are read without a pause before gRPC gets to see the first of them.
_GATHER_S = 0.001


class AsyncOutbox:
    """As `inferd.client.feed.Outbox`, on an event loop."""

    def __init__(self) -> None:
        self._pack = Pack()
        self._ended = False
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def empty(self) -> bool:
        """Whether gRPC has been given everything."""
        return not self._pack

    def put(self, request: bytes) -> None:
        """Add a request, written as bytes."""
        self._pack.add(request)
        self._filled.set()
        if self._pack.full:
            self._room.clear()

    async def wait_for_room(self) -> None:
        """Wait until less than a message has gathered."""
        await self._room.wait()

    def end(self) -> None:
        """Let the messages end after what has gathered."""
        self._ended = True
        self._filled.set()

    async def write_to(self, call: StreamCall) -> None:
        """Send messages, each with all that has gathered and fits, then half-close."""
        try:
            while (message := await self._take()) is not None:
                await call.write(message)
            await call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # The call has ended, and its reader gets the reason.

    async def _take(self) -> bytes | None:
        await self._filled.wait()
        if not self._pack:
            return None
        message = self._pack.take()
        if not self._pack and not self._ended:
            self._filled.clear()
        if not self._pack.full:
            self._room.set()
        return message


class AsyncFeed:
    """As `inferd.client.feed.Feed`, on an event loop: `run` is a task, and the reader of the results frees slots."""

    def __init__(
        self, inputs: Iterable[StreamInput] | AsyncIterable[StreamInput], ledger: StreamLedger, max_in_flight: int
    ) -> None:
        check_window(max_in_flight)
        check_elements(inputs, asynchronous=True)
        self._elements = _elements(inputs)
        self._ledger = ledger
        self._slots = asyncio.Semaphore(max_in_flight)
        self._outbox = AsyncOutbox()
        self.failure: Exception | None = None

    async def run(self, call: StreamCall) -> None:
        """Send requests as slots come free, until the inputs end or raise, then half-close."""
        reader = asyncio.create_task(self._read())
        try:
            await self._outbox.write_to(call)
        finally:
            reader.cancel()

    def free_slot(self) -> None:
        """Let one more element be read."""
        self._slots.release()

    async def _read(self) -> None:
        gathering_since = monotonic()
        try:
            while await self._slots.acquire():
                await self._outbox.wait_for_room()
                request = self._ledger.open(await anext(self._elements))
                now = monotonic()
                if self._outbox.empty:
                    gathering_since = now
                self._outbox.put(request)
                if now - gathering_since > _GATHER_S:
                    await asyncio.sleep(0)
        except StopAsyncIteration:
            pass
        except Exception as error:  # noqa: BLE001 - what the caller's code raises goes back to the caller
            self.failure = error
        finally:
            self._outbox.end()


async def _elements(inputs: Iterable[StreamInput] | AsyncIterable[StreamInput]) -> AsyncIterator[StreamInput]:
    if isinstance(inputs, AsyncIterable):
        async for element in inputs:
            yield element
    else:
        for element in inputs:
            yield element
