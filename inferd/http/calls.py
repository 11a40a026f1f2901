"""Calls over HTTP: the handlers of inference and queries answer them as they answer those of gRPC.

The functions are the steps of a request on the poll thread; the http thread submits them to `HandOver`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import grpc

from inferd.call_context import HTTP_STATUS_KEY
from inferd.http.exchange import Exchange
from inferd.http.messages import Headers, HttpBody, HttpHandler, HttpMessage
from inferd.http.refusals import Refusal, compressed, not_inflatable, too_large
from inferd.http.status import STREAM_STATUS, Answer, Pairs, answer_of, error_answer
from inferd.http.streaming import ErrorPart, StreamedAnswer
from inferd.rpc.accept import Entrance
from inferd.rpc.call import INTERNAL_ERROR, CallBase
from inferd.rpc.call_ends import CANCELLED, CANCELLED_HERE, EXPIRED, STOPPED, Cause
from inferd.rpc.core import EncodedMetadata, Metadata, SentMetadata, encoded_metadata
from inferd.rpc.inflating import InflateError
from inferd.rpc.live_calls import SMALL_MESSAGE_BYTES

_OK = grpc.StatusCode.OK
_RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def begin_call(exchange: Exchange, entrance: Entrance) -> None:
    """Start the call of ``exchange``."""
    exchange.call = call = HttpCall(exchange, entrance)
    call.begin()


def serve_call(exchange: Exchange) -> None:
    """Serve the call with its body, or refuse it if that could not be read."""
    call, refusal = exchange.call, exchange.head.refusal
    assert isinstance(call, HttpCall), "begun"
    if refusal is not None:
        call.refuse(refusal)
    else:
        call.serve()


def on_deadline(exchange: Exchange) -> None:
    """End the call; no effect on one that has not begun, as `begin_call` rejects it."""
    if isinstance(exchange.call, HttpCall):
        exchange.call.terminate(EXPIRED)


def on_disconnect(exchange: Exchange) -> None:
    """Cancel the call, as its client is gone."""
    if isinstance(exchange.call, HttpCall):
        exchange.call.terminate(CANCELLED)
        release_call(exchange)


def release_call(exchange: Exchange) -> None:
    """End the life of the call, as its answer is written."""
    if isinstance(exchange.call, HttpCall):
        exchange.call.release()
    # Breaks the cycle of call and exchange: bodies would fill the memory until garbage is collected.
    exchange.call = exchange.message = None


class HttpCall(CallBase):
    """An `HttpUnaryCall`.

    Invariants: it is live from its construction to `release`: when its answer is written, the client is gone, or the
    server has stopped. One of all answers and terminations claims the end, and only that one calls `Exchange.end`.

    Threads: ``reply``, ``abort``, ``auth_context`` and ``cancel`` any; all else the poll thread.
    """

    __slots__ = ("_entrance", "_exchange", "_handler")

    has_single_message = True
    _handler: HttpHandler | None

    def __init__(self, exchange: Exchange, entrance: Entrance) -> None:
        self._exchange = exchange
        self._entrance = entrance
        self._handler = None
        head = exchange.head
        # Last, as it makes the call live.
        super().__init__(entrance.live, head.method, head.metadata, head.deadline, head.started_at, head.raw_peer)

    # -- steps of the poll thread

    def begin(self) -> None:
        """Pass the call to the interceptors, then serve it if its body has been read, or ask for the body."""
        if not self._entrance.admit(self):
            return
        exchange = self._exchange
        head = exchange.head
        refusal = head.refusal
        if refusal is None and head.encoding and self._live.inflater is None:
            refusal = compressed(head.encoding)
        if refusal is not None:
            self.refuse(refusal)
            return
        assert head.operation is not None, "found"
        self._handler = head.operation.handler
        self._live.inflight_unary += 1
        if exchange.message is not None:
            self.serve()
        elif self._fits(head.length or 0):
            exchange.read_body()

    def serve(self) -> None:
        """Pass the body to the handler, inflated if it is compressed, unless the call has ended."""
        exchange, live = self._exchange, self._live
        message = exchange.message
        assert message is not None, "read"
        if self not in live.calls or self.end.claim.locked():
            return
        live.calls[self] = size = len(message.body)
        live.held_bytes += size
        if not self._fits(size):
            return
        if exchange.head.encoding:
            assert live.inflater is not None, "checked"
            live.inflater.inflate(message.body, self._on_inflated, exchange.head.encoding)
        else:
            self._call_handler(message)

    def _on_inflated(self, outcome: bytes | InflateError) -> None:
        exchange, live = self._exchange, self._live
        message, operation = exchange.message, exchange.head.operation
        assert message is not None, "read"
        assert operation is not None, "found"
        if self not in live.calls or self.end.claim.locked():
            return
        if isinstance(outcome, InflateError):
            self.refuse(not_inflatable(str(outcome)))
            return
        size = len(outcome)
        if size > operation.max_body_bytes:
            self.refuse(too_large(operation.max_body_bytes, size))
        elif self._fits(size):
            live.hold(self, size)
            exchange.message = replace(message, body=outcome)
            self._call_handler(exchange.message)

    def _call_handler(self, message: HttpMessage) -> None:
        assert self._handler is not None, "begun"
        try:
            self._handler(self, message)
        except Exception:  # noqa: BLE001  the caller gets a status, but not the cause
            self._handler_failed()

    def refuse(self, refusal: Refusal) -> None:
        """Answer with ``refusal``, and count it; later, if the caller causes many."""
        self.pace(partial(self._refuse, refusal))

    def _refuse(self, refusal: Refusal) -> None:
        rejected = self._live.refusals.counts
        answer = refusal.answer(self._exchange.head.error_form)
        if self._finish(refusal.code, refusal.text, answer) and refusal.reason in rejected:
            rejected[refusal.reason] += 1

    def terminate(self, cause: Cause) -> None:
        """End the call for ``cause``, without an answer of its handler."""
        end = self.end
        if end.claim.acquire(False):
            end.cause = cause
            code, details = cause
            answer = error_answer(code, details, (), self._exchange.head.error_form)
            if self._exchange.stream is None:
                self.annotations[HTTP_STATUS_KEY] = answer.status
            else:
                self._record_sent(self._exchange.stream)
            self._terminate()
            self._exchange.end(answer, end.trailing)

    def stop(self) -> None:
        """Terminate and release the call, as the server stops."""
        self.terminate(STOPPED)
        self.release()

    def release(self) -> None:
        """Remove the call from the live calls; no effect the second time."""
        if self in self._live.calls:
            self._unregister()

    # -- from interceptors, handlers and limits

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """See `Call.auth_context`."""
        return self._exchange.auth_context()

    def cancel(self) -> None:
        """End the call and close its connection; any thread."""
        self._exchange.hang_up()
        self._live.loop.call_soon(lambda: self.terminate(CANCELLED_HERE))

    def reply(self, message: bytes, trailing_metadata: Metadata = ()) -> bool:
        """See `UnaryCall.reply`; ``message`` is an `HttpBody`."""
        assert isinstance(message, HttpBody), "handlers of HTTP answer with it"
        if trailing_metadata:
            self.add_trailing_metadata(trailing_metadata)
        return self._finish(_OK, "", answer_of(message.status, message, message.headers, message.rest))

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: SentMetadata = ()) -> bool:
        """See `UnaryCall.abort`."""
        trailing = self._encoded(trailing_metadata)
        return self._finish(code, details, error_answer(code, details, trailing, self._exchange.head.error_form))

    def begin_stream(self, headers: Headers, error_part: ErrorPart) -> bool:
        """See `HttpUnaryCall.begin_stream`. Raises ValueError for illegal headers."""
        if self.end.claim.locked():
            return False
        self.annotations[HTTP_STATUS_KEY] = STREAM_STATUS
        stream = StreamedAnswer(headers, error_part)
        self._exchange.begin_stream(stream, self.end.trailing)
        if self.end.claim.locked():
            # Ended by another thread, which may not have seen the stream.
            stream.end(b"")
            return False
        return True

    def send(self, part: bytes) -> bool:
        """See `HttpUnaryCall.send`."""
        if self.end.claim.locked():
            return False
        self._exchange.send(part)
        return True

    def finish_stream(self, last: bytes = b"") -> bool:
        """See `HttpUnaryCall.finish_stream`."""
        end, stream = self.end, self._exchange.stream
        assert stream is not None, "begun"
        if not end.claim.acquire(False):
            return False
        self._exchange.end_stream(last)
        self.ended_at = time.monotonic()
        self._record_sent(stream)
        end.notify(self, _OK, "")
        return True

    @property
    def is_backed_up(self) -> bool:
        """See `HttpUnaryCall.is_backed_up`."""
        stream = self._exchange.stream
        return stream is not None and stream.is_backed_up

    def when_read(self, callback: Callable[[], None]) -> None:
        """See `HttpUnaryCall.when_read`."""
        stream = self._exchange.stream
        if stream is None or not stream.on_next_take(callback):
            callback()

    def _encoded(self, metadata: SentMetadata) -> Pairs:
        if isinstance(metadata, EncodedMetadata):
            return metadata
        try:
            return encoded_metadata(metadata)
        except ValueError:
            self.abort(grpc.StatusCode.INTERNAL, INTERNAL_ERROR)
            raise

    def _finish(self, code: grpc.StatusCode, details: str, answer: Answer) -> bool:
        end = self.end
        if not end.claim.acquire(False):
            return False
        self.ended_at = time.monotonic()
        if self._exchange.stream is None:
            self.annotations[HTTP_STATUS_KEY] = answer.status
        else:
            self._record_sent(self._exchange.stream)
        end.notify(self, code, details)
        self._exchange.end(answer, end.trailing)
        loop = self._live.loop
        if code is _RESOURCE_EXHAUSTED and loop.in_poll_thread:
            loop.call_rejected(self.ended_at)
        return True

    def _record_sent(self, stream: StreamedAnswer) -> None:
        """Record for the log how much of a stream was sent."""
        self.annotations["messages_out"], self.annotations["bytes_out"] = stream.sent_parts, stream.sent_bytes

    def _fits(self, size: int) -> bool:
        """Return True if the caller may send ``size`` bytes; refuse the call otherwise."""
        if self.check is not self._live.small_check or size <= SMALL_MESSAGE_BYTES:
            return True
        self.refuse(too_large(SMALL_MESSAGE_BYTES, size))
        return False
