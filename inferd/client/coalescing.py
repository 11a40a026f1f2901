"""Coalesced calls: many callers share one stream, for the blocking client and for asyncio."""

import asyncio
import threading
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

import grpc

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import messages
from inferd.client.errors import Cancelled, InferdError, Unavailable, from_rpc_error, out_of_time
from inferd.client.messages import RequestWriter
from inferd.client.results import Result
from inferd.client.stream import AsyncOutbox, Outbox, StreamCall

#: Outcome that a call waits for: the end of its request, or of the stream.
Outcome = pb.InferResult | InferdError

Reply = TypeVar("Reply")


_Reply = SimpleQueue[Outcome]
_AsyncReply = asyncio.Future[Outcome]


class PendingCalls(Generic[Reply]):
    """The receivers of outcomes by the request id on the wire.

    A call that has timed out stays until the server has answered it, so that no other call gets that answer.
    """

    def __init__(self) -> None:
        self._replies: dict[str, Reply] = {}
        self._numbers = count()

    def add(self, request_id: str, reply: Reply) -> str:
        """Register a call and return the id to send: the caller's, made unique among those in flight."""
        wire_id = request_id
        while not wire_id or wire_id in self._replies:
            wire_id = f"{request_id}#{next(self._numbers)}"
        self._replies[wire_id] = reply
        return wire_id

    def take(self, wire_id: str) -> Reply | None:
        """Remove a call and return its receiver; None for an unknown id, which must not fail the others."""
        return self._replies.pop(wire_id, None)

    def take_all(self) -> list[Reply]:
        """Remove all calls and return their receivers."""
        replies, self._replies = list(self._replies.values()), {}
        return replies


def stream_error(error: grpc.RpcError | CancelledError | None) -> InferdError:
    """Return how the stream ended, as a new exception each time, because every call raises its own."""
    if error is None:
        return Unavailable("the server ended the stream")
    if isinstance(error, CancelledError):
        return Cancelled("the client was closed")
    translated = from_rpc_error(error)
    translated.__context__ = error
    return translated


def result_of(outcome: Outcome, request_id: str) -> Result:
    """Return the result of a call, or raise its error."""
    if isinstance(outcome, pb.InferResult):
        end = messages.stream_outcome(outcome, request_id)
        if isinstance(end, Result):
            return end
        raise end
    raise outcome from None


#: Opens a stream that sends the iterator's messages, and iterates over the responses.
OpenStream = Callable[[Iterator[bytes]], Iterable[pb.StreamInferResponse]]


class SharedStream:
    """A shared stream, opened by the first call and reopened by the next one after it has failed. Thread-safe."""

    def __init__(self, open_stream: OpenStream) -> None:
        self._open_stream = open_stream
        self._lock = threading.Lock()
        self._session: _StreamSession | None = None

    def infer(self, writer: RequestWriter, fields: Sequence[bytes], request_id: str, timeout_s: float | None) -> Result:
        """Send a request and wait for its answer, for ``timeout_s`` at most."""
        reply = self._send(writer, fields, request_id)
        try:
            outcome = reply.get(timeout=timeout_s)
        except Empty:
            raise out_of_time(timeout_s) from None
        return result_of(outcome, request_id)

    def _send(self, writer: RequestWriter, fields: Sequence[bytes], request_id: str) -> _Reply:
        with self._lock:
            while self._session is None or (reply := self._session.send(writer, fields, request_id)) is None:
                self._session = _StreamSession(self._open_stream)
            return reply


class _StreamSession:
    """One stream, from its opening to its end.

    A thread reads the responses and wakes the calls; any thread sends. The lock is held for bookkeeping only.
    Invariant: a request that `send` accepted gets one outcome, at the latest when the stream ends.
    """

    def __init__(self, open_stream: OpenStream) -> None:
        self._lock = threading.Lock()
        self._pending: PendingCalls[_Reply] = PendingCalls()
        self._outbox = Outbox()
        self._ended = False
        responses = open_stream(self._outbox.messages())
        threading.Thread(target=self._read, args=[responses], name="inferd-client-answers", daemon=True).start()

    def send(self, writer: RequestWriter, fields: Sequence[bytes], request_id: str) -> _Reply | None:
        """Send a request and return the receiver of its outcome; None if the stream has ended."""
        reply: _Reply = SimpleQueue()
        with self._lock:
            if self._ended:
                return None
            wire_id = self._pending.add(request_id, reply)
        self._outbox.put(writer.write(wire_id, fields))
        return reply

    def _read(self, responses: Iterable[pb.StreamInferResponse]) -> None:
        failure: grpc.RpcError | None = None
        try:
            for message in responses:
                for result in message.results:
                    with self._lock:
                        reply = self._pending.take(result.request_id)
                    if reply is not None:
                        reply.put(result)
        except grpc.RpcError as error:
            failure = error
        self._outbox.end()
        with self._lock:
            self._ended = True
            replies = self._pending.take_all()
        for reply in replies:
            reply.put(stream_error(failure))


class AsyncSharedStream:
    """As `SharedStream`, on an event loop."""

    def __init__(self, open_stream: Callable[[], StreamCall]) -> None:
        self._open_stream = open_stream
        self._session: _AsyncStreamSession | None = None

    async def infer(
        self, writer: RequestWriter, fields: Sequence[bytes], request_id: str, timeout_s: float | None
    ) -> Result:
        """Send a request and wait for its answer, for ``timeout_s`` at most."""
        if self._session is None or self._session.ended:
            self._session = _AsyncStreamSession(self._open_stream())
        reply = self._session.send(writer, fields, request_id)
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await reply
        except TimeoutError:
            raise out_of_time(timeout_s) from None
        return result_of(outcome, request_id)

    async def close(self) -> None:
        """End the stream and wait until all of its calls have ended."""
        if self._session is not None:
            await self._session.close()


class _AsyncStreamSession:
    """One stream, from its opening to its end. Invariant: a request that was sent gets one outcome."""

    def __init__(self, call: StreamCall) -> None:
        self.ended = False
        self._pending: PendingCalls[_AsyncReply] = PendingCalls()
        self._outbox = AsyncOutbox()
        self._call = call
        # Referenced here, because the event loop keeps no reference to tasks.
        self._writer = asyncio.create_task(self._outbox.write_to(call))
        self._reader = asyncio.create_task(self._read(call))

    def send(self, writer: RequestWriter, fields: Sequence[bytes], request_id: str) -> _AsyncReply:
        """Send a request and return the receiver of its outcome. Must not be called after the end."""
        reply: _AsyncReply = asyncio.get_running_loop().create_future()
        self._outbox.put(writer.write(self._pending.add(request_id, reply), fields))
        return reply

    async def close(self) -> None:
        """Cancel the call and wait until gRPC has released it, because the event loop may be closed next."""
        # Older grpcio does not find it among the calls that closing the channel cancels.
        self._call.cancel()
        await asyncio.wait([self._writer, self._reader])

    async def _read(self, call: StreamCall) -> None:
        failure: grpc.RpcError | asyncio.CancelledError | None = None
        try:
            async for message in call:
                for result in message.results:
                    _settle(self._pending.take(result.request_id), result)
        except (grpc.RpcError, asyncio.CancelledError) as error:
            failure = error  # Closing the channel cancels its readers; this task ends here in either case.
        self.ended = True
        # A call that was cancelled before it started would leave its writer waiting forever.
        self._writer.cancel()
        for reply in self._pending.take_all():
            _settle(reply, stream_error(failure))


def _settle(reply: _AsyncReply | None, outcome: Outcome) -> None:
    """Deliver an outcome, unless the id is unknown or the caller has cancelled or timed out."""
    if reply is not None and not reply.done():
        reply.set_result(outcome)
