"""inferd's handlers and batching on stock ``grpc.aio``: ``python -m benchmarks.baselines.aio FOLDER PORT``."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import grpc

from benchmarks.baselines import common
from inferd.call_context import CallContext
from inferd.rpc.core import Metadata
from inferd.rpc.interfaces import UnaryCall, UnaryHandler

Answer = tuple[grpc.StatusCode, str, Metadata, bytes]


class LoopThread:
    """The thread of the event loop, as batching's `PollThread`."""

    #: See `PollThread`: not known.
    late_at = -math.inf

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def call_soon(self, callback: Callable[[], None]) -> None:
        """See `PollThread`."""
        self._loop.call_soon_threadsafe(callback)

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """See `PollThread`: after the callbacks that are ready."""
        self._loop.call_soon(callback)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """See `PollThread`."""
        self._loop.call_soon_threadsafe(self._loop.call_at, when, callback)


class AioCall:
    """A `UnaryCall` over a future, with only what the handlers use."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        self.context = CallContext()
        self.annotations: dict[str, object] = {}
        self.answer: asyncio.Future[Answer] = loop.create_future()
        self.deadline = deadline
        self.terminated: Callable[[], None] | None = None
        self._loop = loop
        self._thread = threading.get_ident()

    def on_terminated(self, callback: Callable[[], None]) -> None:
        """See `Call`."""
        self.terminated = callback

    def reply(self, message: bytes, trailing_metadata: Metadata = ()) -> bool:
        """See `UnaryCall`."""
        return self._settle((grpc.StatusCode.OK, "", trailing_metadata, message))

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata = ()) -> bool:
        """See `UnaryCall`."""
        return self._settle((code, details, trailing_metadata, b""))

    def _settle(self, answer: Answer) -> bool:
        if threading.get_ident() == self._thread:
            self._set(answer)
        else:
            self._loop.call_soon_threadsafe(self._set, answer)
        return True

    def _set(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


def adapt(handler: UnaryHandler) -> "grpc.RpcMethodHandler[Any, Any]":
    """Return ``handler`` as one of ``grpc.aio``."""

    async def unary(request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        remaining_s = context.time_remaining()
        # Without a deadline it is None, whatever the stubs say.
        deadline = math.inf if remaining_s is None else time.monotonic() + remaining_s  # type: ignore[redundant-expr]
        call = AioCall(asyncio.get_running_loop(), deadline)
        handler(cast("UnaryCall", call), request)
        try:
            code, details, trailing_metadata, message = await call.answer
        except asyncio.CancelledError:
            if call.terminated:
                call.terminated()
            raise
        if code is not grpc.StatusCode.OK:
            await context.abort(code, details, trailing_metadata)
        return message

    return grpc.unary_unary_rpc_method_handler(unary)


async def main() -> None:
    """Serve until a signal ends the process."""
    arguments = common.Arguments.read()
    loop, loaded = asyncio.get_running_loop(), asyncio.Event()
    thread = LoopThread(loop)
    handlers = common.load(arguments.folder, thread, adapt, lambda: thread.call_soon(loaded.set))
    await loaded.wait()
    server = grpc.aio.server(options=common.CHANNEL_OPTIONS)
    server.add_generic_rpc_handlers([handlers])
    server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
