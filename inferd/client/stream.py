"""Streams of both clients: the ledger of requests, packing of requests into messages, and reading the inputs."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from time import monotonic

import grpc
import grpc.aio

from inferd import wire
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.arguments import checked_integer
from inferd.client import messages
from inferd.client.codec import Inputs
from inferd.client.errors import Internal, InvalidInput
from inferd.client.results import StreamItem

#: An element of a stream: inputs by name, or a pair of a request id and such inputs.
StreamInput = Inputs | tuple[str, Inputs]

StreamCall = grpc.aio.StreamStreamCall[bytes, pb.StreamInferResponse]

#: Time for which ready elements are read before gRPC gets the first of them.
_GATHER_S = 0.001

#: Requests share messages up to about this size, which every server accepts; a larger request is alone.
MESSAGE_BYTES = 1024 * 1024
#: Maximum number of requests in a message, which servers limit.
MESSAGE_REQUESTS = 256

_REQUESTS = wire.tag(pb.StreamInferRequest, "requests")


class StreamLedger:
    """Matches results to requests, and optionally restores their order.

    Invariant: each opened request is returned once, or is among the ``unanswered``. One thread opens and another
    settles; they share one dictionary with single-step operations, and a request is opened before it is sent, so before
    it can be settled.
    """

    def __init__(self, writer: messages.RequestWriter, *, ordered: bool) -> None:
        self._writer = writer
        self._ordered = ordered
        self._open: dict[str, int] = {}
        self._opened = 0
        self._early: dict[int, StreamItem] = {}
        self._due = 0

    def open(self, element: StreamInput) -> bytes:
        """Register the next request and encode it as an `InferRequest`. Raises as `infer` does."""
        request_id, inputs = self._split(element)
        if request_id in self._open:
            raise InvalidInput(f'request_id "{request_id}": expected one that is not in flight on this stream')
        try:
            fields = messages.input_fields(inputs)
        except InvalidInput as error:
            error.request_id = request_id
            raise
        request = self._writer.write(request_id, fields)
        self._open[request_id] = self._opened
        self._opened += 1
        return request

    def _split(self, element: object) -> tuple[str, Inputs]:
        if isinstance(element, Mapping):
            return str(self._opened), element
        if not isinstance(element, tuple) or len(element) != 2:
            raise TypeError(
                f"inputs: expected a mapping of arrays by name, or a pair of a request id and one, as element "
                f"{self._opened}, got {type(element).__name__}"
            )
        request_id, inputs = element
        messages.checked_request_id(request_id)
        return request_id, inputs

    def settle(self, result: pb.InferResult) -> Iterator[StreamItem]:
        """Take a result and yield the items that can be returned now: this one, or, in order, all that are due."""
        request_id = result.request_id
        index = self._open.pop(request_id, None)
        if index is None:
            raise Internal(f'the server answered request_id "{request_id}", which is not in flight')
        item = StreamItem(index=index, request_id=request_id, outcome=messages.stream_outcome(result, request_id))
        if not self._ordered:
            yield item
            return
        self._early[index] = item
        while (due := self._early.pop(self._due, None)) is not None:
            self._due += 1
            yield due

    def finish(self) -> None:
        """Raise `Internal` if the server ended the stream with OK but left requests unanswered."""
        if self._open:
            raise Internal(f"the server ended the stream with {len(self._open)} requests unanswered")


def check_elements(inputs: object, *, asynchronous: bool) -> None:
    """Reject objects that are not iterable, and the inputs of a single request."""
    kinds = (Iterable, AsyncIterable) if asynchronous else (Iterable,)
    if isinstance(inputs, Mapping | str | bytes) or not isinstance(inputs, kinds):
        raise TypeError(
            f"inputs: expected an iterable whose elements are mappings of arrays by name, got {type(inputs).__name__}"
        )


def check_window(max_in_flight: int) -> None:
    """Reject a window that is too small to send anything."""
    checked_integer("max_in_flight", max_in_flight, 1)


class MessagePacker:
    """Requests waiting for the next message, in order."""

    def __init__(self) -> None:
        self._requests: deque[bytes] = deque()
        self._nbytes = 0

    def __bool__(self) -> bool:
        """Whether any request waits."""
        return bool(self._requests)

    @property
    def full(self) -> bool:
        """Whether enough requests wait for a full message."""
        return self._nbytes >= MESSAGE_BYTES or len(self._requests) >= MESSAGE_REQUESTS

    def add(self, request: bytes) -> None:
        """Append a request, as bytes."""
        self._requests.append(request)
        self._nbytes += len(request)

    def take(self) -> bytes:
        """Remove as many requests as fit into a message, at least one, and encode the `StreamInferRequest`."""
        parts: list[bytes] = []
        room = MESSAGE_BYTES
        taken = 0
        while self._requests and taken < MESSAGE_REQUESTS and (not taken or len(self._requests[0]) <= room):
            taken += 1
            request = self._requests.popleft()
            room -= len(request)
            parts += wire.prefix(_REQUESTS, len(request)), request
        self._nbytes -= MESSAGE_BYTES - room
        return b"".join(parts)


class Outbox:
    """Requests that are collected while gRPC sends earlier ones.

    gRPC's sending thread runs `messages`, any other thread the rest. Nothing is delayed: a message has the requests
    that are there when gRPC asks for one.
    """

    def __init__(self) -> None:
        # Two kinds of threads wait here, but never at once: senders for room, gRPC for requests.
        self._changed = threading.Condition(threading.Lock())
        self._packer = MessagePacker()
        self._ended = False

    def put(self, request: bytes) -> None:
        """Add an encoded request. Never blocks."""
        with self._changed:
            self._packer.add(request)
            self._changed.notify()

    def wait_for_room(self) -> bool:
        """Wait until less than a full message waits; False if the stream has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or not self._packer.full)
            return not self._ended

    def end(self) -> None:
        """End the messages after the collected requests."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def messages(self) -> Iterator[bytes]:
        """Yield messages, each with all waiting requests that fit."""
        while (message := self._take()) is not None:
            yield message

    def _take(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._packer)
            if not self._packer:
                return None
            message = self._packer.take()
            self._changed.notify()
            return message


class Feed:
    """The requests of a stream.

    A thread reads the caller's iterable, so that a slow element does not delay earlier ones; the thread that reads the
    results calls `free_slot` and `stop`. Invariant: a slot is taken before an element is read and freed when its item
    is returned, so that at most ``max_in_flight`` elements are between the two. ``failure`` is set before the results
    end, and read after.
    """

    def __init__(self, inputs: Iterable[StreamInput], ledger: StreamLedger, max_in_flight: int) -> None:
        check_window(max_in_flight)
        check_elements(inputs, asynchronous=False)
        self._elements = iter(inputs)
        self._ledger = ledger
        self._slots = threading.Semaphore(max_in_flight)
        self._outbox = Outbox()
        self.failure: BaseException | None = None

    def messages(self) -> Iterator[bytes]:
        """Read the inputs and yield messages, until the inputs end or raise, or the stream ends."""
        threading.Thread(target=self._read, name="inferd-client-inputs", daemon=True).start()
        yield from self._outbox.messages()

    def free_slot(self) -> None:
        """Allow one more element to be read."""
        self._slots.release()

    def stop(self) -> None:
        """Stop reading."""
        self._outbox.end()
        self._slots.release()

    def _read(self) -> None:
        try:
            while self._slots.acquire() and self._outbox.wait_for_room():
                self._outbox.put(self._ledger.open(next(self._elements)))
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 - what the caller's code raises goes back to the caller
            self.failure = error
        finally:
            self._outbox.end()


class AsyncOutbox:
    """As `Outbox`, on an event loop."""

    def __init__(self) -> None:
        self._packer = MessagePacker()
        self._ended = False
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def empty(self) -> bool:
        """Whether everything was passed to gRPC."""
        return not self._packer

    def put(self, request: bytes) -> None:
        """Add an encoded request."""
        self._packer.add(request)
        self._filled.set()
        if self._packer.full:
            self._room.clear()

    async def wait_for_room(self) -> None:
        """Wait until less than a full message waits."""
        await self._room.wait()

    def end(self) -> None:
        """End the messages after the collected requests."""
        self._ended = True
        self._filled.set()

    async def write_to(self, call: StreamCall) -> None:
        """Send messages, each with all waiting requests that fit, then half-close."""
        try:
            while (message := await self._take()) is not None:
                await call.write(message)
            await call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # The call has ended, and its reader gets the reason.

    async def _take(self) -> bytes | None:
        await self._filled.wait()
        if not self._packer:
            return None
        message = self._packer.take()
        if not self._packer and not self._ended:
            self._filled.clear()
        if not self._packer.full:
            self._room.set()
        return message


class AsyncFeed:
    """As `Feed`, on an event loop: `run` is a task, and the reader of the results frees slots."""

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
        """Send requests as slots become free, until the inputs end or raise, then half-close."""
        reader = asyncio.create_task(self._read())
        try:
            await self._outbox.write_to(call)
        finally:
            reader.cancel()

    def free_slot(self) -> None:
        """Allow one more element to be read."""
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
