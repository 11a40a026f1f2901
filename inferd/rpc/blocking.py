"""Runs ordinary gRPC handlers, of all four shapes, in threads that may block.

A handler of one request gets a thread when that request is complete, so that slow callers occupy none. The call behind
a handler of any shape is a `CoreStreamCall`.
"""

import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc

from inferd.call_context import log_fields
from inferd.rpc.call_ends import NO_THREAD
from inferd.rpc.live_calls import LiveCalls
from inferd.rpc.servicer_context import ServicerContext
from inferd.rpc.stream_call import CoreStreamCall
from inferd.rpc.worker_pool import WorkerPool

_log = logging.getLogger("inferd.rpc")

_BEHAVIORS = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}

#: Calls that may be queued for a thread of their service.
_MAX_WAITING = 256

#: Services with threads of their own; further ones share a pool, as a generic handler may serve any names.
_MAX_SERVICES = 32

_UNSERIALIZABLE = "the response could not be serialized"

Handler = Any  # a grpc.RpcMethodHandler, generic in the stubs and of third parties
Message = Any  # a deserialized request or response


class BlockingHandlers:
    """The thread pools of ordinary handlers: up to ``threads`` for each service, so that none starves another.

    ``serial`` is one thread for the callbacks of servicer contexts. grpcio's server runs them one after another in its
    serving thread, which third-party code may rely on; they may block, so the poll thread cannot run them.

    Threads: ``serve`` the poll thread; ``stop`` any, after the poll thread has ended.
    """

    def __init__(self, threads: int, live: LiveCalls) -> None:
        self._threads = threads
        self._live = live
        self._pools: dict[str, WorkerPool] = {}
        self.serial = WorkerPool("inferd-rpc-serial", threads=1)

    def stop(self, timeout_s: float) -> None:
        """End the threads; log a handler that is stuck."""
        ended = [pool.stop(timeout_s) for pool in (*self._pools.values(), self.serial)]
        if not all(ended):
            _log.warning("a handler is still running although its call has ended; its thread is abandoned")

    def serve(self, call: CoreStreamCall, handler: Handler) -> None:
        """Run ``handler`` for ``call``; on the poll thread."""
        run = _HandlerRun(call, handler, self.serial.submit)
        pool = getattr(run.behavior, "experimental_thread_pool", None) or self._pool_of(call.method)

        def submit(work: Callable[[], None]) -> None:
            # Context variables must not leak to the next call of the thread.
            if not pool.submit(partial(contextvars.Context().run, work)):
                self._live.reject(call, NO_THREAD)

        if handler.request_streaming:
            call.listen(run.inbox)
            submit(partial(run.run, run.inbox))
        else:
            call.on_terminated(run.inbox.on_terminated)
            call.receive_one(lambda message: submit(partial(run.run_with, message)))

    def _pool_of(self, method: str) -> WorkerPool:
        service = method.rpartition("/")[0]
        if service not in self._pools:
            if len(self._pools) >= _MAX_SERVICES:
                service = ""
            pool = WorkerPool("inferd-rpc-handler", threads=self._threads, max_waiting=_MAX_WAITING)
            self._pools.setdefault(service, pool)
        return self._pools[service]


class CallEndedError(grpc.RpcError):
    """Unwinds a handler whose call has ended."""


class RequestInbox:
    """The listener of a call to a blocking handler, and the iterator over its requests.

    Threads: the listener's methods are called on the poll thread and take a lock that is held briefly only;
    ``__next__`` and ``wait_until_sent`` block the handler's thread. Invariant: at most one message is held, as a
    message is read only when the handler takes one.
    """

    def __init__(self, call: CoreStreamCall, deserialize: Callable[[bytes], Message]) -> None:
        self._call = call
        self._deserialize = deserialize
        self._changed = threading.Condition()
        self._message: bytes | None = None
        self._half_closed = False
        self._terminated = False
        call.on_sent = self._on_sent

    def on_message(self, message: bytes, /) -> None:
        """See `StreamListener.on_message`."""
        with self._changed:
            self._message = message
            self._changed.notify_all()

    def on_half_close(self) -> None:
        """See `StreamListener.on_half_close`."""
        with self._changed:
            self._half_closed = True
            self._changed.notify_all()

    def on_terminated(self) -> None:
        """See `StreamListener.on_terminated`."""
        with self._changed:
            self._terminated = True
            self._changed.notify_all()

    def __iter__(self) -> "RequestInbox":
        return self

    def __next__(self) -> Message:
        """Wait for the next request. Raises `CallEndedError` if the call has ended."""
        self._call.read()
        with self._changed:
            self._changed.wait_for(self._is_ready)
            message, self._message = self._message, None
            if self._terminated or (message is None and not self._half_closed):
                raise CallEndedError
        if message is None:
            raise StopIteration
        return self._deserialize(message)

    def next(self) -> Message:
        """Same as ``__next__``, as in grpcio's iterator."""
        return next(self)

    def wait_until_sent(self) -> bool:
        """Wait until the outbox is empty. Returns False if the call has ended."""
        with self._changed:
            self._changed.wait_for(lambda: not self._call.waiting_messages or self._call.has_ended)
        return not self._call.has_ended

    def _is_ready(self) -> bool:
        return self._message is not None or self._half_closed or self._call.has_ended

    def _on_sent(self) -> None:
        with self._changed:
            self._changed.notify_all()


class _ConversionError(Exception):
    """Unwinds a call whose message could not be converted; the text is sent to the caller."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class _HandlerRun:
    """One call to one handler; all but the constructor runs in the handler's thread."""

    def __init__(
        self, call: CoreStreamCall, handler: Handler, run_callbacks: Callable[[Callable[[], None]], object]
    ) -> None:
        self._call = call
        self._handler = handler
        self._context = ServicerContext(call, run_callbacks)
        self.behavior = getattr(handler, _BEHAVIORS[bool(handler.request_streaming), bool(handler.response_streaming)])
        self.inbox = RequestInbox(call, self._deserialize)

    def run_with(self, message: bytes) -> None:
        """Call a handler of one request."""
        self._guard(lambda: self._respond(self._deserialize(message)))

    def run(self, requests: Iterator[Message]) -> None:
        """Call a handler of a stream of requests."""
        self._guard(lambda: self._respond(requests))

    def _respond(self, argument: Message | Iterator[Message]) -> None:
        if not self._context.is_active():
            return
        if not self._handler.response_streaming:
            self._end(self._serialize(self.behavior(argument, self._context)))
        elif getattr(self.behavior, "experimental_non_blocking", False):
            self.behavior(argument, self._context, self._send_response)
        else:
            self._send_all(self.behavior(argument, self._context))

    def _send_all(self, responses: Iterator[Message]) -> None:
        try:
            for response in responses:
                if not (self._call.send(self._serialize(response)) and self.inbox.wait_until_sent()):
                    return
        finally:
            # Release what a generator holds now, not at some later garbage collection.
            close = getattr(responses, "close", None)
            if close is not None:
                close()
        self._end()

    def _send_response(self, response: Message) -> None:
        """Send a response of a handler that does not block; None ends the call."""
        if response is None:
            self._end()
        else:
            self._guard(lambda: self._call.send(self._serialize(response)))

    def _end(self, last_message: bytes | None = None) -> None:
        self._context.end(grpc.StatusCode.OK, "", last_message)

    def _guard(self, work: Callable[[], object]) -> None:
        try:
            work()
        except CallEndedError:
            pass  # no caller is left
        except _ConversionError as error:
            self._context.end(error.code, str(error))
        except BaseException:  # noqa: BLE001  the caller must get a status whatever the handler raises
            if not self._context.aborted:
                _log.exception("the handler of %s failed", self._call.method, extra=self._fields())
            self._context.end(grpc.StatusCode.UNKNOWN, "the handler failed")

    def _deserialize(self, message: bytes) -> Message:
        deserialize = self._handler.request_deserializer
        if deserialize is None:
            return message
        try:
            return deserialize(message)
        except Exception as error:
            # Without a traceback: it is most likely the caller's fault, who could flood the log.
            _log.info("%s: a request could not be deserialized: %r", self._call.method, error, extra=self._fields())
            raise _ConversionError(grpc.StatusCode.INVALID_ARGUMENT, "the request could not be deserialized") from error

    def _serialize(self, response: Message) -> bytes:
        serialize = self._handler.response_serializer
        try:
            payload = response if serialize is None else serialize(response)
        except Exception as error:
            _log.exception("%s: %s", self._call.method, _UNSERIALIZABLE, extra=self._fields())
            raise _ConversionError(grpc.StatusCode.INTERNAL, _UNSERIALIZABLE) from error
        if not isinstance(payload, bytes):
            kind = type(payload).__name__
            _log.error("%s answered with %s, expected bytes", self._call.method, kind, extra=self._fields())
            raise _ConversionError(grpc.StatusCode.INTERNAL, _UNSERIALIZABLE)
        return payload

    def _fields(self) -> dict[str, object]:
        return log_fields(self._call)
