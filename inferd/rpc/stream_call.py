"""A call with a stream of messages in each direction."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

import grpc

from inferd.rpc import core
from inferd.rpc.call import MISSING_MESSAGE, CoreCall
from inferd.rpc.core import CheckedMetadata, Metadata, SentMetadata
from inferd.rpc.interfaces import Finisher, StreamHandler, StreamListener
from inferd.rpc.live_calls import LiveCalls

#: Above either, no further message is received.
BACKLOG_MESSAGES = 64
BACKLOG_BYTES = 4 * 1024 * 1024


class Outbox:
    """The headers, messages and status that a stream has yet to send, in this order. With the lock of its call held.

    Invariant: at most one batch is in flight. `next_batch` sets ``is_sending``, and the batch's event clears it.
    """

    __slots__ = ("_headers", "_headers_due", "_headers_sent", "_status", "is_sending", "messages", "nbytes")

    def __init__(self) -> None:
        self._headers: CheckedMetadata = None
        self._headers_due = False
        self._headers_sent = False
        self._status: core.Operation | None = None
        self.is_sending = False
        #: Without the one in flight.
        self.messages: deque[bytes] = deque()
        self.nbytes = 0

    def put(self, message: bytes) -> None:
        """Send ``message`` after those before it."""
        self.messages.append(message)
        self.nbytes += len(message)

    def put_headers(self, headers: CheckedMetadata) -> bool:
        """Send ``headers`` ahead of messages. Returns False if headers were sent or put before."""
        if self._headers_sent or self._headers_due:
            return False
        self._headers = headers
        self._headers_due = True
        return True

    def put_status(self, status: core.Operation) -> None:
        """Send ``status`` when all messages have been."""
        self._status = status

    def drop_messages(self) -> None:
        """Forget what was not sent, except the status."""
        self.messages.clear()
        self.nbytes = 0

    def next_batch(self) -> core.Batch:
        """Return what to send next, empty if there is nothing or a batch is in flight; the caller starts it."""
        if self.is_sending or not (self.messages or self._headers_due or self._status is not None):
            return ()
        batch = []
        if not self._headers_sent:
            batch.append(core.initial_metadata(self._headers))
            self._headers_sent = True
            self._headers_due = False
        if self.messages:
            message = self.messages.popleft()
            self.nbytes -= len(message)
            batch.append(core.message(message))
        if self._status is not None and not self.messages:
            batch.append(self._status)
            self._status = None
        self.is_sending = True
        return tuple(batch)


class CoreStreamCall(CoreCall):
    """A `StreamCall`, which also serves blocking handlers of all four shapes.

    Invariants, guarded by ``_lock``, which is never held while the core works: at most one receive and one send are in
    flight; the claim on the end changes with it held. The thread that has ``_reading`` become "receiving" starts that
    receive. ``_due`` counts one event for the status until it is in the outbox, and then each batch.
    """

    __slots__ = ("_listener", "_lock", "_outbox", "_reading", "on_sent", "on_unregistered")

    _handler = None

    def __init__(
        self,
        core_call: core.Call,
        live: LiveCalls,
        method: str,
        metadata: Metadata,
        deadline: float,
        started_at: float,
    ) -> None:
        self._lock = threading.Lock()
        self._listener: StreamListener | None = None
        self._outbox = Outbox()
        #: "over" when the caller has sent its last message.
        self._reading: Literal["paused", "wanted", "receiving", "over"] = "paused"
        #: Called on the poll thread after each send, whether it succeeded or failed.
        self.on_sent: Callable[[], None] | None = None
        #: Called on the poll thread when the call is no longer live, however it ended.
        self.on_unregistered: Callable[[], None] | None = None
        self.core_call = core_call
        self._due = 2
        # Last, as it makes the call live. The core forgets the peer with the end of the call.
        super().__init__(live, method, metadata, deadline, started_at, core_call.peer())
        live.loop.defer_batch((self, (core.receive_close(),), self._on_close))

    @property
    def has_single_message(self) -> bool:  # type: ignore[override]  # a constant of unary calls
        """See `CallBase.has_single_message`."""
        return isinstance(self._listener, _SingleMessage)

    def serve(self, handler: StreamHandler) -> None:
        """Start ``handler``; on the poll thread, before any event of the call but its end."""
        try:
            self.listen(handler(self))
        except Exception:  # noqa: BLE001  the caller gets a status, but not the cause
            self._handler_failed()

    def receive_one(self, deliver: Callable[[bytes], None]) -> None:
        """Read the call's only message and give it to ``deliver``; on the poll thread."""
        self.listen(_SingleMessage(self, deliver))
        self.read()

    def listen(self, listener: StreamListener) -> None:
        """Pass events to ``listener`` from now on; on the poll thread."""
        self._listener = listener
        self.on_terminated(listener.on_terminated)

    def read(self) -> None:
        """See `StreamCall.read`."""
        with self._lock:
            if self._reading == "paused":
                self._reading = "wanted"
            receive = self._claim_receive()
        if receive:
            self._start((core.receive_message(),), self._on_message)

    def send(self, message: bytes) -> bool:
        """See `StreamCall.send`."""
        if not isinstance(message, bytes):
            raise TypeError(f"expected a message in bytes, got {type(message).__name__}")
        if len(message) > core.MOST_MESSAGE_BYTES:
            self._answer_too_large(len(message))
            return False
        with self._lock:
            if self.end.claim.locked():
                return False
            self._outbox.put(message)
            batch = self._claim_send()
        if batch:
            self._start(batch, self._on_sent)
        return True

    def send_headers(self, headers: CheckedMetadata) -> bool:
        """Send the initial metadata. Returns False if it was sent before, or the call has ended."""
        with self._lock:
            if self.end.claim.locked() or not self._outbox.put_headers(headers):
                return False
            batch = self._claim_send()
        if batch:
            self._start(batch, self._on_sent)
        return True

    def finish(
        self,
        code: grpc.StatusCode = grpc.StatusCode.OK,
        details: str = "",
        trailing_metadata: SentMetadata = (),
        last_message: bytes | None = None,
    ) -> bool:
        """See `StreamCall.finish`; ``last_message`` is sent in one write with the status if the outbox is empty."""
        if last_message is not None and len(last_message) > core.MOST_MESSAGE_BYTES:
            return self._answer_too_large(len(last_message))
        trailing = self._checked(trailing_metadata)
        encoded = details.encode(errors="replace")
        with self._lock:
            if not self.end.claim.acquire(False):
                return False
        self.ended_at = time.monotonic()
        self.end.notify(self, code, details)
        status = core.status(code, encoded, trailing, self.end.trailing)
        with self._lock:
            if last_message is not None:
                self._outbox.put(last_message)
            self._outbox.put_status(status)
            self._due -= 1
            batch = self._claim_send()
        if batch:
            self._start(batch, self._on_sent)
        return True

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: SentMetadata = ()) -> bool:
        """See `UnaryCall.abort`. Messages in the outbox are sent first."""
        return self.finish(code, details, trailing_metadata)

    @property
    def has_ended(self) -> bool:
        """True if the call was finished or terminated."""
        return self.end.claim.locked()

    @property
    def waiting_messages(self) -> int:
        """The number of messages in the outbox, without the one in flight."""
        return len(self._outbox.messages)

    def _add_finisher(self, finisher: Finisher) -> bool:
        with self._lock:
            return self.end.add_finisher(finisher)

    def _claim_receive(self) -> bool:
        """Claim the next receive if one is wanted and allowed, with the lock held; the caller starts it."""
        outbox = self._outbox
        if self._reading != "wanted" or self.end.claim.locked():
            return False
        if len(outbox.messages) > BACKLOG_MESSAGES or outbox.nbytes > BACKLOG_BYTES:
            return False
        self._reading = "receiving"
        self._due += 1
        return True

    def _claim_send(self) -> core.Batch:
        """Claim the next batch to send, empty if there is none, with the lock held; the caller starts it."""
        batch = self._outbox.next_batch()
        if batch:
            self._due += 1
        return batch

    def _start(self, batch: core.Batch, tag: Callable[[core.BatchEvent], None]) -> None:
        """Start ``batch`` now, or on the poll thread after the events that are ready."""
        loop = self._live.loop
        if threading.get_ident() == loop.thread_id:
            loop.defer_batch((self, batch, tag))
            return
        error = self.core_call.start_server_batch(batch, tag)
        if error:
            self.batch_refused(batch, tag, error)

    def _on_sent(self, event: core.BatchEvent) -> None:
        with self._lock:
            self._outbox.is_sending = False
            if not event.success:
                self._outbox.drop_messages()
            batch = self._claim_send()
            receive = self._claim_receive()
            self._due -= 1
            is_over = self._due == 0
        if batch:
            self._start(batch, self._on_sent)
        if receive:
            self._start((core.receive_message(),), self._on_message)
        if self.on_sent is not None:
            self.on_sent()
        if is_over:
            self._unregister()

    def _on_message(self, event: core.BatchEvent) -> None:
        message = event.batch_operations[0].message()
        with self._lock:
            self._reading = "over" if message is None else "paused"
        if message is None:
            self._no_message(event, self._on_half_close)
        else:
            self._live.hold(self, len(message))
            self.check.deliver(self, message, self.deliver)
        self._settle()

    def deliver(self, message: bytes) -> None:
        """See `CallBase.deliver`."""
        if self._listener is None or self.end.claim.locked():
            return
        try:
            self._listener.on_message(message)
        except Exception:  # noqa: BLE001  as in `serve`
            self._handler_failed()

    def _on_half_close(self) -> None:
        if self._listener is None or self.end.claim.locked():
            return
        try:
            self._listener.on_half_close()
        except Exception:  # noqa: BLE001  as in `serve`
            self._handler_failed()

    def _on_close(self, _event: core.BatchEvent) -> None:
        with self._lock:
            is_unanswered = self.end.claim.acquire(False)
            self._outbox.drop_messages()
        if is_unanswered:
            self._terminate()
            self._settle()
        self._settle()

    def _settle(self) -> None:
        with self._lock:
            self._due -= 1
            is_over = self._due == 0
        if is_over:
            self._unregister()

    def _unregister(self) -> None:
        self._listener = self.on_sent = None
        super()._unregister()
        if self.on_unregistered is not None:
            self.on_unregistered()
            self.on_unregistered = None


class _SingleMessage:
    """The listener of a handler that takes one request."""

    def __init__(self, call: CoreStreamCall, deliver: Callable[[bytes], None]) -> None:
        self._call = call
        self.on_message = deliver

    def on_half_close(self) -> None:
        self._call.abort(grpc.StatusCode.UNIMPLEMENTED, MISSING_MESSAGE)

    def on_terminated(self) -> None:
        pass
