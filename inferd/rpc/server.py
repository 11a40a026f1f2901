"""The server as its users see it."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc

from inferd.rpc.engine import Engine, Usage
from inferd.rpc.interceptors import CallInterceptor
from inferd.rpc.memory_guard import MemoryMeter
from inferd.rpc.refusals import StatusOf, bare_status
from inferd.rpc.self_test import check_core_once


class Server(grpc.Server):
    """A `grpc.Server` that handles calls on one poll thread and lets any thread answer them.

    Generated ``add_…_to_server`` functions and gRPC's own services work as with grpcio's server. Ordinary handlers of
    each service run in at most ``blocking_threads`` threads of its own; those made by `callback_unary` and
    `callback_stream` on the poll thread.

    ``options`` are gRPC's channel arguments. ``armed_calls`` is how many calls the core may hand over before the
    last one was looked at. Above ``max_inflight_unary`` open calls to callback unary handlers, further ones are
    refused with RESOURCE_EXHAUSTED before their message is read. ``interceptors`` see every call, the first one
    first; calls of ``express_methods`` (``/package.Service/Name``) do not wait behind others to be accepted.

    Calls with a single request must have brought it within ``message_timeout_s``. With ``inflate_up_to_bytes``,
    messages that are compressed with gzip are inflated, up to that size; the ``options`` must leave them to the server.
    ``status_of`` writes the status of what the server refuses by itself.

    It can be started and stopped once. One that still runs when the process exits is stopped then.
    """

    def __init__(
        self,
        *,
        interceptors: Sequence[CallInterceptor] = (),
        options: Sequence[tuple[str, Any]] = (),
        armed_calls: int = 128,
        blocking_threads: int = 4,
        max_inflight_unary: int | None = None,
        express_methods: Sequence[str] = (),
        message_timeout_s: float | None = None,
        inflate_up_to_bytes: int | None = None,
        status_of: StatusOf = bare_status,
    ) -> None:
        _check_at_least_1("armed_calls", armed_calls)
        _check_at_least_1("blocking_threads", blocking_threads)
        if max_inflight_unary is not None:
            _check_at_least_1("max_inflight_unary", max_inflight_unary)
        self._engine = Engine(
            interceptors=interceptors,
            options=options,
            armed_calls=armed_calls,
            blocking_threads=blocking_threads,
            max_inflight_unary=max_inflight_unary,
            express_methods=express_methods,
            message_timeout_s=message_timeout_s,
            inflate_up_to_bytes=inflate_up_to_bytes,
            status_of=status_of,
        )

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable["grpc.GenericRpcHandler[Any, Any]"]) -> None:
        """Serve what ``generic_rpc_handlers`` serve. Before ``start``."""
        self._engine.methods.add_generic(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]
    ) -> None:
        """Serve the methods of ``service_name``, rather than what generic handlers have for them. Before ``start``."""
        self._engine.methods.add_registered(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Listen on ``address`` without TLS; returns the port, for port 0 the one that was free.

        Raises RuntimeError naming the address if that is not possible. Before ``start``.
        """
        return self._engine.bind(address, None)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Listen on ``address`` with TLS, else as ``add_insecure_port``."""
        return self._engine.bind(address, server_credentials)

    def start(self) -> None:
        """Begin to serve.

        The first time in a process this also tries out the installed grpcio; raises `IncompatibleGrpcioError` if it
        does not do.
        """
        check_core_once()
        self._engine.start()

    def stop(self, grace: float | None = None) -> threading.Event:
        """Take no more calls, wait ``grace`` seconds for those there are, then cancel them.

        Returns an event that is set when the server has stopped; without a grace, only when it has. May be called
        again, with a shorter grace too, and in any thread.
        """
        self._engine.stop(grace)
        if grace is None:
            self._engine.wait(None)
        return self._engine.stopped

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped. Returns True if it has not after ``timeout`` seconds."""
        return not self._engine.wait(timeout)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` on the poll thread, after the event that it handles now; never after the end.

        Callable from any thread. The callback must not block.
        """
        self._engine.call_soon(callback)

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once no event is ready any more, within a millisecond or so; on the poll thread only."""
        self._engine.call_when_idle(callback)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` on the poll thread once the monotonic clock has reached ``when``; never after the end.

        Callable from any thread. The callback must not block.
        """
        self._engine.call_at(when, callback)

    def limit_memory(self, budget_bytes: int, meter: MemoryMeter) -> None:
        """Keep what calls take of the memory within ``budget_bytes``, counted from what the process holds now.

        Calls are refused, and the oldest of those ended whose message is not complete, rather than more taken. Calls of
        express methods are answered in any case. Any thread, once.
        """
        self._engine.limit_memory(budget_bytes, meter)

    @property
    def usage(self) -> Usage:
        """What calls take of the server at present, and how many it has refused."""
        return self._engine.usage

    @property
    def live_calls(self) -> int:
        """Calls that have not come to their end in the core."""
        return self._engine.live_calls

    @property
    def poll_lag_s(self) -> float:
        """How far the poll thread is behind: what an event lately waited before it was handled. Seconds."""
        return self._engine.poll_lag_s


def _check_at_least_1(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")
