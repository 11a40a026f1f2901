"""Runs ordinary gRPC handlers, of all four shapes, in threads that may block.

A handler with one request gets its thread once that request is there, so that slow callers occupy none. The whole
call is a `CoreStreamCall`.
"""

import contextvars
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc

from inferd.request_id import log_fields
from inferd.rpc.call import LiveCalls
from inferd.rpc.refusals import NO_THREAD
from inferd.rpc.request_inbox import CallEndedError, RequestInbox
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

#: Calls that may wait for a thread of their service.
_MAX_WAITING = 256

#: Services that have threads of their own. A generic handler may serve any names; from here on they share threads.
_MAX_SERVICES = 32

_UNSERIALIZABLE = "the response could not be serialized"

Handler = Any  # a grpc.RpcMethodHandler, generic in the stubs and of another's making
Message = Any  # what a handler takes or gives, before it is serialized


class BlockingHandlers:
    """The threads that serve ordinary handlers: at most ``threads`` for each service, so that none starves another.

    ``serial`` does one thing after the other: what a stock server does in its own serving thread, which third-party
    code may rely on, and which may take longer than our poll thread could bear.

    Threads: ``serve`` the poll thread; ``stop`` once it has ended.
    """

    def __init__(self, threads: int, live: LiveCalls) -> None:
        self._threads = threads
        self._live = live
        self._pools: dict[str, WorkerPool] = {}
        self.serial = WorkerPool("inferd-rpc-serial", threads=1)

    def stop(self, timeout_s: float) -> None:
        """End the threads, or say that a handler is stuck."""
        ended = [pool.stop(timeout_s) for pool in (*self._pools.values(), self.serial)]
        if not all(ended):
            _log.warning("a handler is still at work although its call has ended; its thread is left behind")

    def serve(self, call: CoreStreamCall, handler: Handler) -> None:
        """Run ``handler`` for ``call``; on the poll thread."""
        served = _Served(call, handler, self.serial.submit)
        pool = getattr(served.behavior, "experimental_thread_pool", None) or self._pool_of(call.method)

        def submit(work: Callable[[], None]) -> None:
            # Each call has context variables of its own, although threads serve many.
            if not pool.submit(partial(contextvars.Context().run, work)):
                self._live.refuse(call, NO_THREAD)

        if handler.request_streaming:
            call.listen(served.inbox)
            submit(partial(served.run, served.inbox))
        else:
            call.on_terminated(served.inbox.on_terminated)
            call.receive_one(lambda message: submit(partial(served.run_with, message)))

    def _pool_of(self, method: str) -> WorkerPool:
        service = method.rpartition("/")[0]
        if service not in self._pools:
            if len(self._pools) >= _MAX_SERVICES:
                service = ""
            pool = WorkerPool("inferd-rpc-handler", threads=self._threads, max_waiting=_MAX_WAITING)
            self._pools.setdefault(service, pool)
        return self._pools[service]


class _FailedError(Exception):
    """Unwinds a call whose message could not be converted; the text is for the caller."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Served:
    """One call to one handler; everything but the constructor runs in the handler's thread."""

    def __init__(
        self, call: CoreStreamCall, handler: Handler, run_callbacks: Callable[[Callable[[], None]], object]
    ) -> None:
        self._call = call
        self._handler = handler
        self._context = ServicerContext(call, run_callbacks)
        self.behavior = getattr(handler, _BEHAVIORS[bool(handler.request_streaming), bool(handler.response_streaming)])
        self.inbox = RequestInbox(call, self._deserialize)

    def run_with(self, message: bytes) -> None:
        """Call the handler with its one request."""
        self._guard(lambda: self._respond(self._deserialize(message)))

    def run(self, requests: Iterator[Message]) -> None:
        """Call the handler with an iterator over its requests."""
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
            # What a generator holds is given back now, not at some later collection.
            close = getattr(responses, "close", None)
            if close is not None:
                close()
        self._end()

    def _send_response(self, response: Message) -> None:
        """Take a response from a handler that does not block; None is the end."""
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
            pass  # there is no one left to tell
        except _FailedError as error:
            self._context.end(error.code, str(error))
        except BaseException:  # noqa: BLE001  whatever a handler raises, its caller must not wait for ever
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
            # Without a traceback: in all likelihood it is the caller's fault, who could fill the log with it.
            _log.info("%s: a request could not be deserialized: %r", self._call.method, error, extra=self._fields())
            raise _FailedError(grpc.StatusCode.INVALID_ARGUMENT, "the request could not be deserialized") from error

    def _serialize(self, response: Message) -> bytes:
        serialize = self._handler.response_serializer
        try:
            payload = response if serialize is None else serialize(response)
        except Exception as error:
            _log.exception("%s: %s", self._call.method, _UNSERIALIZABLE, extra=self._fields())
            raise _FailedError(grpc.StatusCode.INTERNAL, _UNSERIALIZABLE) from error
        if not isinstance(payload, bytes):
            kind = type(payload).__name__
            _log.error("%s answered with %s, expected bytes", self._call.method, kind, extra=self._fields())
            raise _FailedError(grpc.StatusCode.INTERNAL, _UNSERIALIZABLE)
        return payload

    def _fields(self) -> dict[str, object]:
        return log_fields(self._call)
