"""inferd's handlers and batching on stock ``grpc.server``: ``python -m benchmarks.baselines.sync FOLDER PORT``."""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import grpc

from benchmarks.baselines import common
from inferd.call_context import CallContext
from inferd.rpc.core import Metadata
from inferd.rpc.interfaces import UnaryCall, UnaryHandler

#: Each thread waits for the answer to one call, so their number limits the calls in the queue.
_THREADS = 128


class PoolThreads:
    """The threads of the pool, one at a time, as batching's `PollThread`."""

    #: See `PollThread`: not known.
    late_at = -math.inf

    def __init__(self) -> None:
        self.turn = threading.RLock()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """See `PollThread`."""
        with self.turn:
            callback()

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """See `PollThread`; at once, because it is not known whether another call follows."""
        callback()

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """See `PollThread`."""
        timer = threading.Timer(max(when - time.monotonic(), 0), self.call_soon, [callback])
        timer.daemon = True
        timer.start()


class SyncCall:
    """A `UnaryCall` that a thread waits for, with only what the handlers use."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        remaining_s = context.time_remaining()
        self.context = CallContext()
        self.annotations: dict[str, object] = {}
        self.answered = threading.Event()
        self.code, self.details, self.message = grpc.StatusCode.OK, "", b""
        self.trailing_metadata: Metadata = ()
        # Without a deadline it is None, whatever the stubs say.
        self.deadline = math.inf if remaining_s is None else time.monotonic() + remaining_s  # type: ignore[redundant-expr]
        self._context = context

    def on_terminated(self, callback: Callable[[], None]) -> None:
        """See `Call`."""

        def ended() -> None:
            if not self.answered.is_set():
                callback()
                self.answered.set()

        self._context.add_callback(ended)

    def reply(self, message: bytes, trailing_metadata: Metadata = ()) -> bool:
        """See `UnaryCall`."""
        self.message = message
        return self.abort(grpc.StatusCode.OK, "", trailing_metadata)

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata = ()) -> bool:
        """See `UnaryCall`."""
        self.code, self.details, self.trailing_metadata = code, details, trailing_metadata
        self.answered.set()
        return True


def main() -> None:
    """Serve until a signal ends the process."""
    arguments, threads, loaded = common.Arguments.read(), PoolThreads(), threading.Event()

    def adapt(handler: UnaryHandler) -> "grpc.RpcMethodHandler[Any, Any]":
        def unary(request: bytes, context: grpc.ServicerContext) -> bytes:
            call = SyncCall(context)
            with threads.turn:
                handler(cast("UnaryCall", call), request)
            call.answered.wait()
            if call.trailing_metadata:
                context.set_trailing_metadata(tuple(call.trailing_metadata))
            if call.code is not grpc.StatusCode.OK:
                context.abort(call.code, call.details)
            return call.message

        return grpc.unary_unary_rpc_method_handler(unary)

    handlers = common.load(arguments.folder, threads, adapt, loaded.set)
    loaded.wait()
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=common.CHANNEL_OPTIONS)
    server.add_generic_rpc_handlers([handlers])
    server.add_insecure_port(f"127.0.0.1:{arguments.port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
