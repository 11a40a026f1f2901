"""Accepts calls: finds the handler of the method, passes the call to the interceptors, checks limits, and serves it."""

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol

import grpc

from inferd.rpc import core
from inferd.rpc.blocking import BlockingHandlers
from inferd.rpc.call import INTERNAL_ERROR, CallBase, CoreUnaryCall, log_failed_interceptor
from inferd.rpc.call_ends import MEMORY_BUDGET, TOO_MANY_CALLS, UNREAD_TOO_LONG, unknown_method
from inferd.rpc.core import Metadata
from inferd.rpc.interfaces import (
    CallbackAnswerStreamHandler,
    CallbackStreamHandler,
    CallbackUnaryHandler,
    CallInterceptor,
    Finisher,
    Rejection,
)
from inferd.rpc.live_calls import LiveCalls
from inferd.rpc.stream_call import CoreStreamCall
from inferd.rpc.turns import Turns
from inferd.rpc.unread_calls import UnreadCalls

_log = logging.getLogger("inferd.rpc")

Handler = Any  # a grpc.RpcMethodHandler, generic in the stubs and of third parties

#: Requested calls of each express method; there are never many.
_ARMED_EXPRESS_CALLS = 4

#: Calls that are held unread at most, those of them that are served in a round, and those that are rejected in it.
_MOST_UNREAD = 4096
_SERVED_AT_ONCE = 32
_REJECTED_AT_ONCE = 32
#: Calls that are requested at a stop, for those that have come and are not requested yet.
_REQUESTED_AT_STOP = 1024

#: The core represents "no deadline" by its largest number, 9.2e18. No real deadline is this far in the future.
_NO_DEADLINE_EPOCH_S = 1e12

#: Methods whose handler is cached; far more than any server has.
_MAX_CACHED = 4096


class _CallDetails(NamedTuple):
    method: str
    invocation_metadata: Metadata


class CallDetails(_CallDetails, grpc.HandlerCallDetails):  # type: ignore[misc]  # a protocol at runtime, unlike in the stubs
    """The argument of generic handlers; a named tuple as in grpcio."""

    __slots__ = ()


class Methods:
    """The handlers of a server.

    Invariant: a cached handler is the one a lookup would find: only handlers of services, whose methods are fixed, are
    cached, and only if no handler before them may decide otherwise for another call. Unknown methods are not cached,
    as callers can make up any number of them.

    Threads: handlers are added before the server starts; ``find`` and ``served`` are for the poll thread.
    """

    def __init__(self) -> None:
        self._generic: list[grpc.GenericRpcHandler[Any, Any]] = []
        self._registered: dict[str, Handler] = {}
        self._served: dict[str, list[str]] | None = None
        #: The name and the handler of a method, where they do not change.
        self.cached: dict[bytes, tuple[str, Handler]] = {}

    def add_generic(self, handlers: Iterable["grpc.GenericRpcHandler[Any, Any]"]) -> None:
        """Look up methods in ``handlers``, after those added before."""
        handlers = list(handlers)
        for handler in handlers:
            if not hasattr(handler, "service"):
                raise AttributeError(f"expected a grpc.GenericRpcHandler, which has a service method, got {handler!r}")
        self._generic.extend(handlers)

    def add_registered(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Serve the methods of ``service`` with ``handlers``, which precede generic handlers."""
        self._registered.update({f"/{service}/{name}": handler for name, handler in handlers.items()})

    def find(self, method: bytes, metadata: Metadata) -> tuple[str, Handler | None]:
        """Return the method's name and its handler, None for an unknown method. Raises what generic handlers raise."""
        name = decode(method)
        handler, is_fixed = self._look_up(CallDetails(name, metadata))
        if handler is not None and is_fixed and len(self.cached) < _MAX_CACHED:
            self.cached[method] = (name, handler)
        return name, handler

    def served(self) -> dict[str, list[str]]:
        """Return the methods of each service, as far as handlers list them."""
        if self._served is None:
            self._served = self._list_served()
        return self._served

    def _list_served(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for generic in self._generic:
            if isinstance(generic, grpc.ServiceRpcHandler):
                found[generic.service_name()] = []
        for name in (*self._registered, *(name for generic in self._generic for name in core.methods_of(generic))):
            service, _, method = name.strip("/").rpartition("/")
            methods = found.setdefault(service, [])
            if method not in methods:
                methods.append(method)
        return {service: sorted(methods) for service, methods in sorted(found.items())}

    def _look_up(self, details: grpc.HandlerCallDetails) -> tuple[Handler | None, bool]:
        """Return the handler and whether it is the same for every call of the method."""
        handler = self._registered.get(details.method)
        if handler is not None:
            return handler, True
        is_fixed = True
        for generic in self._generic:
            is_fixed = is_fixed and isinstance(generic, grpc.ServiceRpcHandler)
            handler = generic.service(details)
            if handler is not None:
                return handler, is_fixed
        return None, False


def decode(method: bytes) -> str:
    """Return a method's name as text; invalid UTF-8 is replaced."""
    return method.decode(errors="replace")


_BROKEN = Rejection(grpc.StatusCode.INTERNAL, INTERNAL_ERROR)


class InterceptorChain:
    """The interceptors of a server, outermost first. Immutable."""

    def __init__(self, interceptors: Sequence[CallInterceptor]) -> None:
        #: Each interceptor's ``started``, and the finishers of a call that it rejects.
        self._starters = tuple(
            (interceptor.started, _finishers(interceptors[: index + 1]))
            for index, interceptor in enumerate(interceptors)
        )
        #: The finishers of a call that no interceptor rejects, innermost first.
        self.all_finishers = _finishers(interceptors)

    def start(self, call: CallBase) -> Rejection | None:
        """Run ``started`` of the interceptors; return the rejection, if any.

        The finishers of ``call`` end with ``all_finishers``; of a rejected call, those of inner interceptors are
        removed.
        """
        for started, finishers in self._starters:
            try:
                rejection = started(call)
            except Exception:  # noqa: BLE001  a failed interceptor must not let a call pass that it might have rejected
                log_failed_interceptor(started, call)
                rejection = _BROKEN
            if rejection is not None:
                end = call.end
                own = end.finishers[: len(end.finishers) - len(self.all_finishers)]
                end.finishers = (*own, *finishers)
                return rejection
        return None


def _finishers(interceptors: Sequence[CallInterceptor]) -> tuple[Finisher, ...]:
    """Return each interceptor's ``finished``, the last one first."""
    found = (interceptor.finished for interceptor in reversed(interceptors))
    return tuple(finished for finished in found if finished is not None)


class CallSource(Protocol):
    """A server of another protocol whose calls run on the poll thread; both methods are called there at the stop."""

    def cancel_all(self) -> None:
        """End the open calls: the grace period is over."""
        ...

    def close(self) -> bool:
        """Bring no more calls to the poll thread. Returns False, without effect, if some are about to arrive there."""
        ...


@dataclass(frozen=True, slots=True)
class Entrance:
    """Admits the calls of other protocols, within the limits of those of gRPC; on the poll thread only.

    The thread that serves another protocol takes ``turns`` with the poll thread.
    """

    live: LiveCalls
    interceptors: InterceptorChain
    max_inflight_unary: int | None
    turns: Turns

    def admit(self, call: CallBase) -> bool:
        """Pass the new ``call`` to the interceptors and check the limits. Returns False if it was rejected."""
        live = self.live
        rejection = self.interceptors.start(call)
        if rejection is not None:
            call.abort_paced(rejection.code, rejection.details, rejection.trailing_metadata)
        elif live.is_short_of_memory:
            live.reject(call, MEMORY_BUDGET)
        elif self.max_inflight_unary is not None and live.inflight_unary >= self.max_inflight_unary:
            live.reject(call, TOO_MANY_CALLS)
        else:
            return True
        return False


class _LookupFailed:
    """Stands for a handler whose lookup raised."""


class Acceptor:
    """Keeps ``armed_calls`` calls requested from the core, so that few queue inside it, and serves those that come.

    The core hands over calls in order of arrival. Calls of ``express_methods`` are requested apart and do not wait
    behind others. While calls are rejected for overload, the others are collected during a round and served after it,
    the latest ones first if they are too many (`UnreadCalls`); those that have waited for ``max_unread_s`` are
    rejected; None serves all in order. Above ``max_inflight_unary`` calls to callback unary handlers, further ones are
    rejected. On the poll thread only.
    """

    def __init__(
        self,
        server: core.CoreServer,
        queue: core.Queue,
        live: LiveCalls,
        methods: Methods,
        blocking: BlockingHandlers,
        interceptors: InterceptorChain,
        *,
        armed_calls: int,
        max_inflight_unary: int | None,
        express_methods: Sequence[str],
        max_unread_s: float | None,
    ) -> None:
        self._server = server
        self._queue = queue
        self._live = live
        self.methods = methods
        self._blocking = blocking
        self._interceptors = interceptors
        self._armed_calls = armed_calls
        self._express_methods = express_methods
        self._max_inflight_unary = max_inflight_unary
        self._stopping = False
        #: Requested calls that have not come.
        self.armed = 0
        self._unread = None if max_unread_s is None else UnreadCalls[core.RequestEvent](max_unread_s)

    def register(self) -> None:
        """Let the core queue calls of express methods apart; the server must not have started."""
        for method in self._express_methods:
            self._server.register_method(method)

    def start(self) -> None:
        """Request calls; the server must have started."""
        for _ in range(self._armed_calls):
            self._arm()
        for method in self._express_methods:
            for _ in range(_ARMED_EXPRESS_CALLS):
                self._arm(method)

    def stop(self) -> None:
        """Request the calls that have come, which the core would cancel otherwise, and then no more."""
        if self.armed and not self._stopping:
            self._arm_up_to(_REQUESTED_AT_STOP)
        self._stopping = True

    @property
    def is_done(self) -> bool:
        """Whether no requested call is to come or to be served."""
        return self.armed == 0 and not (self._unread is not None and self._unread.count)

    def _arm(self, express: str | None = None) -> None:
        """Request a call, of any method or of an express one."""
        self.armed += 1
        if express is None:
            self._server.request_call(self._queue, self._queue, self._on_call)
        else:
            tag = partial(self._on_call, express=express)
            self._server.request_registered_call(self._queue, self._queue, express, tag)

    def _on_call(self, event: core.RequestEvent, express: str | None = None) -> None:
        self.armed -= 1
        if not event.success:
            return  # the server is stopping
        loop = self._live.loop
        loop.wake_by(event.call)
        unread = self._unread
        if express is None and unread is not None and (unread.count or loop.is_gathering):
            self._hold(event, unread)
            return
        if not self._stopping:
            # First, so that further calls come in while this one is handled.
            self._arm(express)
        self._accept(event, express)

    def _hold(self, event: core.RequestEvent, unread: UnreadCalls[core.RequestEvent]) -> None:
        """Serve a call at the end of the round, or later."""
        if unread.count == 0:
            self._live.loop.call_soon(self._serve_unread)
        now = self._live.loop.now()
        unread.add(event.call.peer(), event, now, to_monotonic(event.call_details.deadline, now, time.time()))
        self._arm_up_to(_MOST_UNREAD - unread.count)

    def _arm_up_to(self, count: int) -> None:
        """Request further calls, so that none waits in the core behind others."""
        if not self._stopping:
            for _ in range(count - self.armed):
                self._arm()

    def _serve_unread(self) -> None:
        unread = self._unread
        assert unread is not None, "only called for calls that are held"
        loop = self._live.loop
        try:
            self._reject_late(unread, loop.now())
            for event in unread.take(_SERVED_AT_ONCE):
                self._accept(event)
        finally:
            self._arm_up_to(_MOST_UNREAD - unread.count)
            if unread.count:
                loop.call_soon(self._serve_unread)
                loop.note_late(loop.now())

    def _reject_late(self, unread: UnreadCalls[core.RequestEvent], now: float) -> None:
        """Reject calls that were held for too long, some at a time."""
        for event in unread.take_expired(now):
            # Its caller has given up, so nobody would see a status. Its place must be free at once: in an overload that
            # lasts there are thousands of them.
            event.call.cancel()
            self._live.refusals.counts[UNREAD_TOO_LONG.reason] += 1
        for event in islice(unread.take_late(now), _REJECTED_AT_ONCE):
            self._accept(event, is_late=True)

    def _accept(self, event: core.RequestEvent, express: str | None = None, *, is_late: bool = False) -> None:
        # The event of an express call does not name its method.
        named = event.call_details.method if express is None else express.encode()
        found: tuple[str, Handler] = self.methods.cached.get(named) or self._find(named, event)
        method, handler = found
        now = time.monotonic()
        deadline = to_monotonic(event.call_details.deadline, now, time.time())
        live = self._live
        # Express calls are answered in any case. Before the call is live, as that may check the memory.
        is_short_of_memory = express is None and live.is_short_of_memory
        is_unary = type(handler) is CallbackUnaryHandler
        kind = CoreUnaryCall if is_unary else CoreStreamCall
        call = kind(event.call, live, method, event.invocation_metadata, deadline, now)
        # Ahead of the limits, so that every rejected call is logged and counted.
        rejection = self._interceptors.start(call)
        if rejection is not None:
            call.abort_paced(rejection.code, rejection.details, rejection.trailing_metadata)
        elif is_short_of_memory:
            live.reject(call, MEMORY_BUDGET)
        elif is_late:
            live.reject(call, UNREAD_TOO_LONG)
        # Not with isinstance, which calls Python code for abstract classes.
        elif type(call) is CoreStreamCall:
            self._serve_stream(call, handler)
        elif self._max_inflight_unary is not None and live.inflight_unary >= self._max_inflight_unary:
            live.reject(call, TOO_MANY_CALLS)
        else:
            call.serve(handler.callback)

    def _find(self, method: bytes, event: core.RequestEvent) -> tuple[str, Handler | None]:
        try:
            return self.methods.find(method, event.invocation_metadata)
        except Exception:  # noqa: BLE001  a generic handler's error; the call must still be answered
            _log.exception("the lookup of the handler of %s failed", decode(method))
            return decode(method), _LookupFailed

    def _serve_stream(self, call: CoreStreamCall, handler: Handler | None) -> None:
        if handler is None:
            self._live.reject(call, unknown_method(call.method, self.methods.served()))
        elif handler is _LookupFailed:
            call.abort(grpc.StatusCode.UNKNOWN, "the handler could not be found")
        elif type(handler) is CallbackStreamHandler:
            call.serve(handler.callback)
        elif type(handler) is CallbackAnswerStreamHandler:
            call.receive_one(partial(handler.callback, call))
        else:
            self._blocking.serve(call, handler)


def to_monotonic(deadline_epoch_s: float, now: float, now_epoch_s: float) -> float:
    """Convert the core's deadline to the monotonic clock, which shows ``now``; ``math.inf`` if there is none."""
    if deadline_epoch_s >= _NO_DEADLINE_EPOCH_S:
        return math.inf
    return now + (deadline_epoch_s - now_epoch_s)
