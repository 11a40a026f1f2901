"""The parts of a running server, put together."""

import atexit
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from inferd.rpc import core, unix_sockets
from inferd.rpc.acceptor import Acceptor
from inferd.rpc.blocking import BlockingHandlers
from inferd.rpc.cut_off import ConnectionAges, Ends
from inferd.rpc.inflating import Inflater
from inferd.rpc.interceptors import CallInterceptor, InterceptorChain
from inferd.rpc.live_calls import LiveCalls
from inferd.rpc.memory_guard import MemoryGuard, MemoryMeter
from inferd.rpc.methods import Methods
from inferd.rpc.poll_lag import PollLag
from inferd.rpc.poll_loop import PollLoop
from inferd.rpc.refusals import StatusOf, bare_status
from inferd.rpc.shutdown import Shutdown
from inferd.rpc.upkeep import Upkeep
from inferd.rpc.worker_pool import WorkerPool

_log = logging.getLogger("inferd.rpc")

#: Two servers on one port would otherwise bind without an error and share its connections.
_DEFAULT_OPTIONS: dict[str, Any] = {"grpc.so_reuseport": 0}

#: How long a stop waits for the poll thread to take no more calls.
_BEGIN_STOP_S = 1.0

#: How long handlers whose call has ended are waited for.
_HANDLERS_END_S = 1.0

#: How long a server that nobody stopped is waited for when the process exits.
_EXIT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls take of the server, and how many it has refused by itself.

    ``held_bytes`` are of messages that have come and whose calls have not ended, ``taken_bytes`` all that the process
    has grown by, of at most ``budget_bytes``. ``refused`` is by reason.
    """

    held_bytes: int
    taken_bytes: int
    budget_bytes: int | None
    refused: Mapping[str, int]


class Engine:
    """A server without its public face.

    Invariant: the core's queue is only ended when nothing is pending on it. Threads: any; ``_lock`` orders starts and
    stops.
    """

    def __init__(
        self,
        *,
        interceptors: Sequence[CallInterceptor],
        options: Sequence[tuple[str, Any]],
        armed_calls: int,
        blocking_threads: int,
        max_inflight_unary: int | None,
        express_methods: Sequence[str],
        status_of: StatusOf = bare_status,
        message_timeout_s: float | None = None,
        inflate_up_to_bytes: int | None = None,
    ) -> None:
        core_options = _DEFAULT_OPTIONS | dict(options)
        self._core, self._queue = core.make_server(tuple(core_options.items()))
        self._loop = PollLoop(self._queue)
        self._lag = PollLag(self._loop)
        self._inflater = None
        if inflate_up_to_bytes is not None:
            self._inflater = Inflater(inflate_up_to_bytes, self._loop.call_soon)
        self._live = LiveCalls(
            self._loop,
            InterceptorChain(interceptors),
            status_of=status_of,
            inflater=self._inflater,
            ends=Ends(ConnectionAges.of(core_options)),
        )
        self._upkeep = Upkeep(self._live, message_timeout_s=message_timeout_s)
        self._memory_pool = WorkerPool("inferd-rpc-memory", threads=1)
        self._blocking = BlockingHandlers(blocking_threads, self._live)
        self.methods = Methods()
        self._acceptor = Acceptor(
            self._core,
            self._queue,
            self._live,
            self.methods,
            self._blocking,
            armed_calls=armed_calls,
            max_inflight_unary=max_inflight_unary,
            express_methods=express_methods,
        )
        self._shutdown = Shutdown(self._core, self._queue, self._loop, self._is_idle, self._live.ends)
        self._thread = threading.Thread(target=self._run, name="inferd-rpc-poll", daemon=True)
        self._lock = threading.Lock()
        self._is_launched = False
        self._stop_begun = threading.Event()
        self.stopped = threading.Event()

    @property
    def live_calls(self) -> int:
        """Calls whose last event has not come yet."""
        return self._live.count

    def limit_memory(self, budget_bytes: int, meter: MemoryMeter) -> None:
        """See `Server.limit_memory`."""
        # At once, so that it is there for the next call; made whole before the poll thread can see it.
        self._upkeep.memory = MemoryGuard(budget_bytes, meter, self._live, self._memory_pool)

    @property
    def usage(self) -> Usage:
        """See `Server.usage`."""
        memory = self._upkeep.memory
        return Usage(
            held_bytes=self._live.held_bytes,
            taken_bytes=0 if memory is None else memory.taken_bytes,
            budget_bytes=None if memory is None else memory.budget_bytes,
            refused=dict(self._live.refused),
        )

    @property
    def poll_lag_s(self) -> float:
        """See `PollLag.lag_s`; 0 while the poll thread does not run."""
        return 0.0 if self.stopped.is_set() else self._lag.lag_s

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """See `PollLoop.call_at`."""
        self._loop.call_at(when, callback)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """See `PollLoop.call_soon`."""
        self._loop.call_soon(callback)

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """See `PollLoop.call_when_idle`."""
        self._loop.call_when_idle(callback)

    def bind(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Listen on ``address``; returns the port, 1 for a Unix socket. Raises RuntimeError if that is not possible."""
        if self._is_launched:
            raise RuntimeError(f"cannot listen on {address}: the server was started before")
        path = unix_sockets.path_of(address)
        reason = None if path is None else unix_sockets.why_not_free(path)
        if reason is not None:
            raise RuntimeError(f"cannot listen on {address}: {reason}")
        port = core.bind(self._core, address, credentials)
        if port == 0:
            raise RuntimeError(
                f"cannot listen on {address}: it is taken, not permitted or no address of this machine; "
                "gRPC's log on standard error tells which"
            )
        return port

    def start(self) -> None:
        """Begin to serve. Raises ValueError if the server was started or stopped before."""
        with self._lock:
            if self._is_launched:
                raise ValueError("a server can be started once only")
            self._launch(accept=True)

    def stop(self, grace_s: float | None) -> None:
        """Take no more calls from now on; ``stopped`` tells when the last one has ended."""
        cancel_at = time.monotonic() + grace_s if grace_s is not None else -math.inf
        with self._lock:
            if not self._is_launched:
                # The core gives back ports it has bound only when it was started and shut down.
                self._launch(accept=False)
        self._loop.call_soon(partial(self._begin_stop, cancel_at))
        if not self._loop.in_poll_thread:
            # So that no call is taken once this has returned; yet a poll thread that hangs must not hang others.
            self._stop_begun.wait(_BEGIN_STOP_S)

    def stop_and_wait(self, timeout_s: float | None = None) -> None:
        """Cancel all calls and wait until the server has stopped, unless it is the poll thread that calls."""
        self.stop(None)
        self.wait(timeout_s)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until the server has stopped. Returns False if it has not."""
        if self._loop.in_poll_thread:
            return self.stopped.is_set()
        is_stopped = self.stopped.wait(timeout_s)
        if is_stopped:
            self._thread.join()
        return is_stopped

    def _launch(self, *, accept: bool) -> None:
        self._is_launched = True
        _running.add(self)
        self._acceptor.register()
        self._core.start()
        if accept:
            self._acceptor.start()
        self._lag.start()
        self._thread.start()

    def _begin_stop(self, cancel_at: float) -> None:
        self._acceptor.stop()
        self._shutdown.begin(cancel_at)
        self._stop_begun.set()

    def _is_idle(self) -> bool:
        return self._acceptor.armed == 0 and self._live.count == 0

    def _run(self) -> None:
        self._loop.run()
        self._core.destroy()
        core.end_queue(self._queue)
        self._blocking.stop(_HANDLERS_END_S)
        self._memory_pool.stop(_HANDLERS_END_S)
        if self._inflater is not None:
            self._inflater.stop(_HANDLERS_END_S)
        _running.discard(self)
        self.stopped.set()


_running: set[Engine] = set()
# A forked child has none of its parent's threads, and must not wait for them.
os.register_at_fork(after_in_child=_running.clear)


@atexit.register
def _stop_running() -> None:
    """Stop what nobody has: the core does not bear it that the interpreter is taken down around its threads."""
    for engine in list(_running):
        engine.stop_and_wait(_EXIT_TIMEOUT_S)
