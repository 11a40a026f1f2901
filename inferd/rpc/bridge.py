"""Callback handlers for when a standard interceptor has wrapped them.

What the interceptor returns is then an ordinary handler, served in a thread that may block, and somewhere inside it
calls the behavior made here. The callbacks still run on the poll thread; here we wait for what comes of them.
"""

import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import grpc

from inferd.request_id import log_fields
from inferd.rpc.calls import Finisher, StreamHandler, StreamListener, UnaryHandler
from inferd.rpc.metadata import Metadata, checked
from inferd.rpc.request_inbox import CallEndedError
from inferd.rpc.stream_call import BACKLOG_BYTES, BACKLOG_MESSAGES, CoreStreamCall

_log = logging.getLogger("inferd.rpc")

#: The call that an ordinary handler is serving, in that handler's context.
served_call: contextvars.ContextVar[CoreStreamCall] = contextvars.ContextVar("served_call")

_INTERNAL = (grpc.StatusCode.INTERNAL, "internal error", ())

Status = tuple[grpc.StatusCode, str, Metadata]


def bridge_unary(handler: UnaryHandler) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    """Return ``handler`` as the behavior of an ordinary unary handler."""

    def unary_unary(request: bytes, context: grpc.ServicerContext) -> bytes:
        call = _BridgedUnaryCall(served_call.get(), context)
        call.call_soon(partial(handler, call, request))
        return call.wait()

    return unary_unary


def bridge_stream(handler: StreamHandler) -> Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]:
    """Return ``handler`` as the behavior of an ordinary streaming handler."""

    def stream_stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        call = _BridgedStreamCall(served_call.get(), context)
        call.call_soon(partial(call.begin, handler))
        # Requests are waited for in a thread of their own, as answers may be due meanwhile.
        threading.Thread(target=call.pump, args=(iter(requests),), name="inferd-rpc-requests", daemon=True).start()
        return call.responses()

    return stream_stream


class _BridgedCall:
    """The identity of the call behind it, and an end of its own, which is what the wrapped handler returns."""

    def __init__(self, call: CoreStreamCall, context: grpc.ServicerContext) -> None:
        self._call = call
        self._context = context
        self._changed = threading.Condition()
        self._ended = False
        self._status: Status | None = None
        self.method = call.method
        self.raw_peer = call.raw_peer
        self.metadata = call.metadata
        self.deadline = call.deadline
        self.started_at = call.started_at
        self.facts = call.facts
        self.annotations = call.annotations
        # Before any callback of the handler, so that an answer from then on is in vain.
        call.on_terminated(self._on_gone)
        # The wrapper may also end the call by itself.
        if not context.add_callback(self._on_gone):
            self._on_gone()

    @property
    def ended_at(self) -> float:
        return self._call.ended_at

    @property
    def peer(self) -> str:
        return self._call.peer

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return self._call.auth_context()

    def add_trailing_metadata(self, pairs: Metadata) -> None:
        self._call.add_trailing_metadata(pairs)

    def on_finished(self, finisher: Finisher) -> None:
        self._call.on_finished(finisher)

    def expect_small_message(self) -> None:
        self._call.expect_small_message()

    def on_terminated(self, callback: Callable[[], None]) -> None:
        def run() -> None:
            if self._status is None:
                callback()

        self._call.on_terminated(run)

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run ``callback``, which is some handler's, on the poll thread."""

        def run() -> None:
            try:
                callback()
            except Exception:  # noqa: BLE001  the caller must hear something, but not what
                _log.exception("the handler of %s failed", self.method, extra=log_fields(self))
                self._end(_INTERNAL)

        self._call.call_soon(run)

    def _end(self, status: Status, last_message: bytes | None = None) -> bool:
        code, details, trailing_metadata = status
        try:
            status = (code, details, checked(trailing_metadata) or ())
        except ValueError:
            self._end(_INTERNAL)
            raise
        with self._changed:
            if self._ended:
                return False
            self._ended = True
            self._status = status
            if last_message is not None:
                self._keep(last_message)
            self._changed.notify_all()
        return True

    def _keep(self, message: bytes) -> None:
        raise NotImplementedError

    def _on_gone(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _leave(self) -> None:
        """Tell the context the status; raises unless it is OK."""
        if self._status is None:
            raise CallEndedError
        code, details, trailing_metadata = self._status
        if trailing_metadata:
            self._context.set_trailing_metadata(trailing_metadata)  # type: ignore[arg-type]  # any sequence will do
        if code is not grpc.StatusCode.OK:
            self._context.abort(code, details)


class _BridgedUnaryCall(_BridgedCall):
    """A `UnaryCall` whose answer is what ``wait`` returns."""

    def __init__(self, call: CoreStreamCall, context: grpc.ServicerContext) -> None:
        super().__init__(call, context)
        self._message = b""

    def reply(self, message: bytes, trailing_metadata: Metadata = ()) -> bool:
        return self._end((grpc.StatusCode.OK, "", trailing_metadata), message)

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata = ()) -> bool:
        return self._end((code, details, trailing_metadata))

    def wait(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._ended)
        self._leave()
        return self._message

    def _keep(self, message: bytes) -> None:
        self._message = message


class _BridgedStreamCall(_BridgedCall):
    """A `StreamCall` whose answers are what ``responses`` yields.

    ``pump`` runs in a thread of its own and takes one request whenever one is wanted and the answers are not too far
    behind; ``responses`` runs in the handler's thread; the rest as with any `StreamCall`.
    """

    def __init__(self, call: CoreStreamCall, context: grpc.ServicerContext) -> None:
        super().__init__(call, context)
        self._listener: StreamListener | None = None
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._read_wanted = False
        self._receiving = False

    def begin(self, handler: StreamHandler) -> None:
        self._listener = handler(self)
        self.on_terminated(self._listener.on_terminated)

    def read(self) -> None:
        with self._changed:
            self._read_wanted = not self._receiving
            self._changed.notify_all()

    def send(self, message: bytes) -> bool:
        with self._changed:
            if self._ended:
                return False
            self._keep(message)
            self._changed.notify_all()
        return True

    def finish(
        self,
        code: grpc.StatusCode = grpc.StatusCode.OK,
        details: str = "",
        trailing_metadata: Metadata = (),
    ) -> bool:
        return self._end((code, details, trailing_metadata))

    def pump(self, requests: Iterator[bytes]) -> None:
        while self._may_read():
            try:
                request = next(requests, None)
            except Exception:  # noqa: BLE001  the call is over, which the listener hears of by itself
                return
            if request is None:
                self.call_soon(self._half_close)
                return
            self.call_soon(partial(self._deliver, request))

    def responses(self) -> Iterator[bytes]:
        try:
            while (message := self._next_response()) is not None:
                yield message
            self._leave()
        finally:
            self._on_gone()

    def _may_read(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or (self._read_wanted and not self._is_backlogged()))
            self._read_wanted = False
            self._receiving = True
            return not self._ended

    def _is_backlogged(self) -> bool:
        return len(self._outbox) > BACKLOG_MESSAGES or self._outbox_bytes > BACKLOG_BYTES

    def _next_response(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._outbox)
            if not self._outbox:
                return None
            message = self._outbox.popleft()
            self._outbox_bytes -= len(message)
            self._changed.notify_all()
            return message

    def _keep(self, message: bytes) -> None:
        self._outbox.append(message)
        self._outbox_bytes += len(message)

    def _deliver(self, request: bytes) -> None:
        with self._changed:
            self._receiving = False
        if self._listener is not None and not self._ended:
            self._listener.on_message(request)

    def _half_close(self) -> None:
        if self._listener is not None and not self._ended:
            self._listener.on_half_close()
