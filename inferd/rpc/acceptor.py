"""Takes calls from the core, shows them to the interceptors and gives them to their handlers."""

import logging
import time
from collections.abc import Sequence
from functools import partial

import grpc

from inferd.rpc import core, deadlines
from inferd.rpc.blocking import BlockingHandlers
from inferd.rpc.call_base import CallBase
from inferd.rpc.handlers import CallbackStreamHandler, CallbackUnaryHandler
from inferd.rpc.live_calls import LiveCalls
from inferd.rpc.methods import Handler, Methods, decode
from inferd.rpc.refusals import MEMORY_BUDGET, TOO_MANY_CALLS, unknown_method
from inferd.rpc.stream_call import CoreStreamCall
from inferd.rpc.unary_call import CoreUnaryCall

_log = logging.getLogger("inferd.rpc")

#: Calls of each express method that are asked for; there are never many.
_ARMED_EXPRESS_CALLS = 4


class _Failed:
    """In place of a handler, where looking for it has failed."""


class Acceptor:
    """Keeps ``armed_calls`` calls asked for, so that few queue inside the core.

    The core hands calls over in the order in which they came, so in an overload each waits behind all the others. Those
    of ``express_methods`` have a line of their own.

    Everything runs on the poll thread.
    """

    def __init__(
        self,
        server: core.CoreServer,
        queue: core.Queue,
        live: LiveCalls,
        methods: Methods,
        blocking: BlockingHandlers,
        *,
        armed_calls: int,
        max_inflight_unary: int | None,
        express_methods: Sequence[str],
    ) -> None:
        self._server = server
        self._queue = queue
        self._live = live
        self._methods = methods
        self._blocking = blocking
        self._armed_calls = armed_calls
        self._express_methods = express_methods
        self._max_inflight_unary = max_inflight_unary
        self._inflight_unary = 0
        self._stopping = False
        #: Calls that are asked for and have not come.
        self.armed = 0

    def register(self) -> None:
        """Have the core keep calls of the express methods apart; the server must not have started."""
        for method in self._express_methods:
            self._server.register_method(method)

    def start(self) -> None:
        """Ask for calls; the server must have started."""
        for _ in range(self._armed_calls):
            self._arm()
        for method in self._express_methods:
            for _ in range(_ARMED_EXPRESS_CALLS):
                self._arm(method)

    def stop(self) -> None:
        """Ask for no more calls."""
        self._stopping = True

    def _arm(self, express: str | None = None) -> None:
        """Ask for a call, of any method or of an express one."""
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
        if not self._stopping:
            # First of all: while this call is looked at, others come.
            self._arm(express)
        self._live.loop.wake_by(event.call)
        if express is None:
            self._accept(event, event.call_details.method, self._live.is_short_of_memory)
        else:
            self._accept(event, express.encode(), False)

    def _accept(self, event: core.RequestEvent, named: bytes, is_short_of_memory: bool) -> None:
        method, handler = self._find(named, event)
        kind = CoreUnaryCall if type(handler) is CallbackUnaryHandler else CoreStreamCall
        now = time.monotonic()
        deadline = deadlines.to_monotonic(event.call_details.deadline, now)
        call = kind(event.call, self._live, method, event.invocation_metadata, deadline, now)
        call.watch()
        refusal = self._live.interceptors.start(call)
        if refusal is not None:
            call.abort(refusal.code, refusal.details, refusal.trailing_metadata)
        elif is_short_of_memory:
            self._live.refuse(call, MEMORY_BUDGET)
        elif type(handler) is CallbackUnaryHandler:
            assert isinstance(call, CoreUnaryCall)
            self._serve_unary(call, handler)
        else:
            self._dispatch(call, handler)

    def _find(self, method: bytes, event: core.RequestEvent) -> tuple[str, Handler | None]:
        known = self._methods.remembered.get(method)
        if known is not None:
            return known
        try:
            return self._methods.find(method, event.invocation_metadata)
        except Exception:  # noqa: BLE001  a generic handler's fault; the call must still be answered
            _log.exception("looking for the handler of %s failed", decode(method))
            return decode(method), _Failed

    def _dispatch(self, call: CallBase, handler: Handler | None) -> None:
        if handler is None:
            self._live.refuse(call, unknown_method(call.method, self._methods.served()))
        elif handler is _Failed:
            call.abort(grpc.StatusCode.UNKNOWN, "the handler could not be found")
        else:
            assert isinstance(call, CoreStreamCall)
            if type(handler) is CallbackStreamHandler:
                call.serve(handler.callback)
            else:
                self._blocking.serve(call, handler)

    def _serve_unary(self, call: CoreUnaryCall, handler: CallbackUnaryHandler) -> None:
        if self._max_inflight_unary is not None:
            if self._inflight_unary >= self._max_inflight_unary:
                self._live.refuse(call, TOO_MANY_CALLS)
                return
            self._inflight_unary += 1
            call.on_retired = self._unary_retired
        call.serve_unary(handler.callback)

    def _unary_retired(self) -> None:
        self._inflight_unary -= 1
