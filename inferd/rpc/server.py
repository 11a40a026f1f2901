"""The gRPC server: ports, start and stop."""

import atexit
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from inferd.rpc import core, unix_sockets
from inferd.rpc.accept import Acceptor, CallSource, Entrance, InterceptorChain, Methods
from inferd.rpc.bind_errors import why_not_bound
from inferd.rpc.blocking import BlockingHandlers
from inferd.rpc.call_ends import ConnectionAges, Ends, StatusOf, bare_status
from inferd.rpc.corks import Corks
from inferd.rpc.inflating import Inflater
from inferd.rpc.interfaces import CallInterceptor
from inferd.rpc.live_calls import LiveCalls
from inferd.rpc.memory_guard import MemoryMeter
from inferd.rpc.poll_lag import PollLag
from inferd.rpc.poll_loop import PollLoop
from inferd.rpc.turns import Turns
from inferd.rpc.upkeep import Upkeep
from inferd.rpc.waking import SelfCall

_log = logging.getLogger("inferd.rpc")

#: With port reuse, two servers on one port would bind without an error and share its connections.
_DEFAULT_OPTIONS: dict[str, Any] = {"grpc.so_reuseport": 0}

#: How long a stop waits until the poll thread accepts no more calls.
_BEGIN_STOP_S = 1.0

#: How long the server waits for blocking handlers whose calls have ended.
_HANDLERS_END_S = 1.0

#: How long the exit of the process waits for each server that is still running.
_EXIT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Memory held by calls, and the calls rejected so far.

    ``held_bytes`` is the size of received messages whose calls have not ended; ``taken_bytes`` is the growth of the
    process, of at most ``budget_bytes``. ``rejected`` counts by reason.
    """

    held_bytes: int
    taken_bytes: int
    budget_bytes: int | None
    rejected: Mapping[str, int]


class Server(grpc.Server):
    """A `grpc.Server` that handles calls on one poll thread and lets any thread answer them.

    Generated ``add_…_to_server`` functions and gRPC's own services work as with grpcio's server. Ordinary handlers of
    each service run in at most ``blocking_threads`` threads of its own; handlers made by `callback_unary` and
    `callback_stream` run on the poll thread.

    ``options`` are gRPC's channel arguments. The core may hand over up to ``armed_calls`` calls ahead of the poll
    thread. Above ``max_inflight_unary`` open calls to callback unary handlers, further ones are rejected with
    RESOURCE_EXHAUSTED before their message is read. ``interceptors`` see every call, the first one first. Calls of
    ``express_methods`` (``/package.Service/Name``) are accepted from a queue of their own.

    While calls are rejected for overload, and more come than can be read, one that has waited for ``max_unread_s`` is
    rejected too, and the latest are read first; None reads all in order of arrival.

    The message of a unary call must be complete within ``message_timeout_s``. With ``inflate_up_to_bytes``, gzip
    messages are inflated, up to that size; the ``options`` must leave this to the server. ``status_of`` maps the
    server's own rejections to statuses.

    A server starts and stops once. It is stopped at exit if it still runs then.

    Invariant: the core's queue is shut down only when nothing is pending on it. Threads: any; ``_lock`` orders starts
    and stops.
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
        max_unread_s: float | None = None,
        inflate_up_to_bytes: int | None = None,
        status_of: StatusOf = bare_status,
    ) -> None:
        _check_at_least_1("armed_calls", armed_calls)
        _check_at_least_1("blocking_threads", blocking_threads)
        _check_at_least_1("max_inflight_unary", max_inflight_unary)
        core_options = _DEFAULT_OPTIONS | dict(options)
        self._core, queue = core.make_server(tuple(core_options.items()))
        turns = Turns()
        #: Runs callbacks of other parts of the process on the poll thread; never after the server has stopped.
        self.poll_loop = PollLoop(queue, corks=Corks() if Corks.are_supported() else None, turns=turns)
        self._lag = PollLag(self.poll_loop)
        inflater = None if inflate_up_to_bytes is None else Inflater(inflate_up_to_bytes, self.poll_loop.call_soon)
        chain = InterceptorChain(interceptors)
        self._live = LiveCalls(
            self.poll_loop,
            chain.all_finishers,
            status_of=status_of,
            inflater=inflater,
            ends=Ends(ConnectionAges.of(core_options)),
        )
        self._upkeep = Upkeep(self._live, message_timeout_s=message_timeout_s)
        blocking = BlockingHandlers(blocking_threads, self._live)
        self._acceptor = Acceptor(
            self._core,
            queue,
            self._live,
            Methods(),
            blocking,
            chain,
            armed_calls=armed_calls,
            max_inflight_unary=max_inflight_unary,
            express_methods=express_methods,
            max_unread_s=max_unread_s,
        )
        #: Takes calls of other protocols.
        self.entrance = Entrance(self._live, chain, max_inflight_unary, turns)
        self._shutdown = Shutdown(self._core, queue, self._acceptor, self._live)
        #: Ends the threads of a part within some seconds, when the poll thread has ended.
        self._end_threads: list[Callable[[float], object]] = [blocking.stop, self._upkeep.stop]
        if inflater is not None:
            self._end_threads.append(inflater.stop)
        self._thread = threading.Thread(target=self._run, name="inferd-rpc-poll", daemon=True)
        self._lock = threading.Lock()
        self._is_launched = False
        self._stopped = threading.Event()

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable["grpc.GenericRpcHandler[Any, Any]"]) -> None:
        """Serve the methods of ``generic_rpc_handlers``. Before ``start``."""
        self._acceptor.methods.add_generic(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]
    ) -> None:
        """Serve the methods of ``service_name``; they precede generic handlers. Before ``start``."""
        self._acceptor.methods.add_registered(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Listen on ``address`` without TLS; returns the port that was bound, 1 for a Unix socket.

        Raises RuntimeError naming the address if it cannot be bound. Before ``start``.
        """
        return self._bind(address, None)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Listen on ``address`` with TLS, else as ``add_insecure_port``."""
        return self._bind(address, server_credentials)

    def start(self) -> None:
        """Begin to serve. Raises ValueError if the server was started or stopped before."""
        with self._lock:
            if self._is_launched:
                raise ValueError("a server can be started once only")
            self._launch(accept=True)

    def stop(self, grace: float | None = None) -> threading.Event:
        """Accept no more calls, wait ``grace`` seconds for the open ones, then cancel them.

        Returns an event that is set when the server has stopped; without a grace, returns after that. May be called
        again, with a shorter grace too, and in any thread.
        """
        with self._lock:
            if not self._is_launched:
                # The core releases bound ports only if it was started and shut down.
                self._launch(accept=False)
        cancel_at = -math.inf if grace is None else time.monotonic() + grace
        self.poll_loop.call_soon(partial(self._shutdown.begin, cancel_at))
        if not self.poll_loop.in_poll_thread:
            # So that no call is accepted after this returns. Bounded, because a poll thread that hangs must not hang
            # others.
            self._shutdown.begun.wait(_BEGIN_STOP_S)
            if grace is None:
                self.wait_for_termination()
        return self._stopped

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped. Returns True if it has not after ``timeout`` seconds.

        Does not wait on the poll thread.
        """
        if self.poll_loop.in_poll_thread:
            return not self._stopped.is_set()
        if not self._stopped.wait(timeout):
            return True
        self._thread.join()
        return False

    def add_source(self, source: CallSource) -> None:
        """Take calls from ``source`` as well, through `entrance`; before the start."""
        self._shutdown.sources.append(source)

    def limit_memory(self, budget_bytes: int, meter: MemoryMeter) -> None:
        """Keep the memory that calls take within ``budget_bytes``, counted from what the process holds now.

        When it runs short, calls are rejected and the oldest calls with an incomplete message are ended. Calls of
        express methods are answered in any case. Any thread, once.
        """
        self._upkeep.limit_memory(budget_bytes, meter)

    @property
    def usage(self) -> Usage:
        """Memory held by calls, and the calls rejected so far; any thread."""
        memory = self._upkeep.memory
        return Usage(
            held_bytes=self._live.held_bytes,
            taken_bytes=0 if memory is None else memory.use.taken_bytes,
            budget_bytes=None if memory is None else memory.use.budget_bytes,
            rejected=dict(self._live.refusals.counts),
        )

    @property
    def live_calls(self) -> int:
        """The number of calls with events still to come from the core."""
        return self._live.count

    @property
    def poll_lag_s(self) -> float:
        """How late the poll thread handles events, in seconds; 0 once the server has stopped."""
        return 0.0 if self._stopped.is_set() else self._lag.lag_s

    def _bind(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        if self._is_launched:
            raise RuntimeError(f"cannot listen on {address}: the server was started before")
        path = unix_sockets.path_of(address)
        reason = None if path is None else unix_sockets.unavailable_reason(path)
        if reason is not None:
            raise RuntimeError(f"cannot listen on {address}: {reason}")
        port = core.bind(self._core, address, credentials)
        if port == 0:
            raise RuntimeError(f"cannot listen on {address}: {why_not_bound(address)}")
        return port

    def _launch(self, *, accept: bool) -> None:
        self._is_launched = True
        _running.add(self)
        self._acceptor.register()
        self_call = self._shutdown.prepare_self_call() if accept else None
        self._core.start()
        if accept:
            self._acceptor.start()
        self._lag.start()
        self._thread.start()
        if self_call is not None:
            self_call.make()

    def _run(self) -> None:
        self.poll_loop.run()
        self._shutdown.free()
        for end in self._end_threads:
            end(_HANDLERS_END_S)
        _running.discard(self)
        self._stopped.set()


class Shutdown:
    """Stops the core: accept no more, GOAWAY, wait for open calls, cancel the rest. On the poll thread only.

    The core may be freed only when everything it was asked for has come back: ``is_over``. Any thread may wait for
    ``begun``.
    """

    def __init__(self, server: core.CoreServer, queue: core.Queue, acceptor: Acceptor, live: LiveCalls) -> None:
        self._server = server
        self._queue = queue
        self._acceptor = acceptor
        self._live = live
        #: The servers of other protocols.
        self.sources: list[CallSource] = []
        self.begun = threading.Event()
        self._core_is_done = False

    def prepare_self_call(self) -> SelfCall | None:
        """Return the call that the server makes to itself, if there are other protocols; before the core starts."""
        if not self.sources:
            return None
        self_call = SelfCall(self._server, self._queue, self._live.loop)
        self_call.prepare()
        self.sources.append(self_call)
        return self_call

    def begin(self, cancel_at: float) -> None:
        """Send GOAWAY; cancel open calls at ``cancel_at``. If called again, cancel at the earlier of both times."""
        loop = self._live.loop
        if not self.begun.is_set():
            self._acceptor.stop()
            self._server.shutdown(self._queue, self._on_done)
            loop.run_until(self.is_over)
            self.begun.set()
        loop.call_at(cancel_at, self._cancel)

    def is_over(self) -> bool:
        """Return whether no more events will come from the core."""
        is_over = self._core_is_done and self._acceptor.is_done and self._live.count == 0
        return is_over and all(source.close() for source in self.sources)

    def free(self) -> None:
        """Free the core; after ``is_over``."""
        self._server.destroy()
        core.end_queue(self._queue)

    def _cancel(self) -> None:
        self._live.ends.is_stopped = True
        self._server.cancel_all_calls()
        for source in self.sources:
            source.cancel_all()

    def _on_done(self, _event: core.Event) -> None:
        self._core_is_done = True


def _check_at_least_1(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}")


_running: set[Server] = set()
# A forked child has none of its parent's threads and must not wait for them.
os.register_at_fork(after_in_child=_running.clear)


@atexit.register
def _stop_running() -> None:
    """Stop running servers: the core crashes if the interpreter is finalized while its threads run."""
    for server in list(_running):
        stop_and_wait(server, _EXIT_TIMEOUT_S)


def stop_and_wait(server: Server, timeout_s: float) -> None:
    """Cancel all calls of ``server`` and wait until it has stopped, for at most ``timeout_s``."""
    server.stop(0.0)
    server.wait_for_termination(timeout_s)
