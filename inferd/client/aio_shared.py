"""Calls of many tasks over one stream, so that those that come together travel together."""

import asyncio
from collections.abc import Callable, Sequence

import grpc

from inferd.client.aio_feed import AsyncOutbox, StreamCall
from inferd.client.errors import out_of_time
from inferd.client.messages import RequestWriter
from inferd.client.results import Result
from inferd.client.waiting import Outcome, Waiting, answer, broken

_Reply = asyncio.Future[Outcome]


class AsyncSharedStream:
    """As `inferd.client.shared.SharedStream`, on an event loop."""

    def __init__(self, open_stream: Callable[[], StreamCall]) -> None:
        self._open_stream = open_stream
        self._line: _Line | None = None

    async def infer(
        self, writer: RequestWriter, fields: Sequence[bytes], request_id: str, timeout_s: float | None
    ) -> Result:
        """Send a request and wait for its answer, for ``timeout_s`` at most."""
        if self._line is None or self._line.ended:
            self._line = _Line(self._open_stream())
        reply = self._line.send(writer, fields, request_id)
        try:
            async with asyncio.timeout(timeout_s):
                outcome = await reply
        except TimeoutError:
            raise out_of_time(timeout_s) from None
        return answer(outcome, request_id)

    async def close(self) -> None:
        """End the stream, and wait until nothing is under way any more."""
        if self._line is not None:
            await self._line.close()


class _Line:
    """One stream, from its opening to its end. Invariant: a request that was sent gets one outcome."""

    def __init__(self, call: StreamCall) -> None:
        self.ended = False
        self._waiting: Waiting[_Reply] = Waiting()
        self._outbox = AsyncOutbox()
        self._call = call
        # Kept here, because the event loop itself does not hold on to tasks.
        self._writer = asyncio.create_task(self._outbox.write_to(call))
        self._reader = asyncio.create_task(self._read(call))

    def send(self, writer: RequestWriter, fields: Sequence[bytes], request_id: str) -> _Reply:
        """Send a request and return where its outcome will be. Not for a stream that has ended."""
        reply: _Reply = asyncio.get_running_loop().create_future()
        self._outbox.put(writer.write(self._waiting.enter(request_id, reply), fields))
        return reply

    async def close(self) -> None:
        """Cancel the call, and wait until gRPC has let go of it: a loop must not be closed before."""
        # Older grpcio does not find it among the calls that closing the channel cancels.
        self._call.cancel()
        await asyncio.wait([self._writer, self._reader])

    async def _read(self, call: StreamCall) -> None:
        failure: grpc.RpcError | asyncio.CancelledError | None = None
        try:
            async for message in call:
                for result in message.results:
                    _settle(self._waiting.leave(result.request_id), result)
        except (grpc.RpcError, asyncio.CancelledError) as error:
            failure = error  # Closing the channel cancels who reads from it; this task ends here in either case.
        self.ended = True
        # A call that was cancelled before it was started leaves who writes to it waiting for ever.
        self._writer.cancel()
        for reply in self._waiting.leave_all():
            _settle(reply, broken(failure))


def _settle(reply: _Reply | None, outcome: Outcome) -> None:
    """Tell a call, unless nobody asked or it has been cancelled or has given up."""
    if reply is not None and not reply.done():
        reply.set_result(outcome)
