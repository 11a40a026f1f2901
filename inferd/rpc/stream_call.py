"""A call with a stream of messages in each direction."""

import time
from collections import deque
from collections.abc import Callable

import grpc

from inferd.rpc import core
from inferd.rpc.call import MISSING_MESSAGE, CallBase, LiveCalls
from inferd.rpc.core import CheckedMetadata, Metadata, SentMetadata
from inferd.rpc.interceptors import notify_finished
from inferd.rpc.interfaces import Finisher, StreamHandler, StreamListener

#: Above either, no further message is received.
BACKLOG_MESSAGES = 64
BACKLOG_BYTES = 4 * 1024 * 1024


class CoreStreamCall(CallBase):
    """A `StreamCall`, which also serves blocking handlers of all four shapes.

    Invariants, guarded by ``_lock``, which is never held while the core works: at most one receive and one send are in
    flight; ``_outbox`` is sent in order, the status last; ``_ended`` is the claim on the end. The thread that sets
    ``_receiving`` or ``_sending`` starts that batch, and its event clears the flag.
    """

    __slots__ = (
        "_ended",
        "_headers",
        "_headers_due",
        "_headers_sent",
        "_listener",
        "_outbox",
        "_outbox_bytes",
        "_read_wanted",
        "_receiving",
        "_requests_over",
        "_sending",
        "_status",
        "on_sent",
    )

    def __init__(
        self,
        core_call: core.Call,
        live: LiveCalls,
        method: str,
        metadata: Metadata,
        deadline: float,
        started_at: float,
    ) -> None:
        self._listener: StreamListener | None = None
        self._headers: CheckedMetadata = None
        self._headers_due = False
        self._headers_sent = False
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._status: core.Operation | None = None
        self._read_wanted = False
        self._receiving = False
        self._requests_over = False
        self._sending = False
        self._ended = False
        #: Called on the poll thread after each send, whether it succeeded or failed.
        self.on_sent: Callable[[], None] | None = None
        # Last, as it makes the call live.
        super().__init__(core_call, live, method, metadata, deadline, started_at)
        live.loop.defer_batch((self, (core.receive_close(),), self._on_close))

    @property
    def has_single_message(self) -> bool:  # type: ignore[override]  # a constant of unary calls
        """See `CallBase.has_single_message`."""
        return isinstance(self._listener, _SingleMessage)

    def serve(self, handler: StreamHandler) -> None:
        """Start ``handler``; on the poll thread, before any event of the call but its end."""

        def begin() -> None:
            self.listen(handler(self))

        self._run_handler(begin)

    def receive_one(self, deliver: Callable[[bytes], None]) -> None:
        """Read the call's only message and give it to ``deliver``; on the poll thread."""
        self.listen(_SingleMessage(self, deliver))
        self.read()

    def listen(self, listener: StreamListener) -> None:
        """Notify ``listener`` from now on; on the poll thread."""
        self._listener = listener
        self.on_terminated(listener.on_terminated)

    def read(self) -> None:
        """See `StreamCall.read`."""
        with self._lock:
            self._read_wanted = not self._receiving
            receive = self._claim_receive()
        if receive:
            self._start((core.receive_message(),), self._on_message)

    def send(self, message: bytes) -> bool:
        """See `StreamCall.send`."""
        if not isinstance(message, bytes):
            raise TypeError(f"expected a message in bytes, got {type(message).__name__}")
        with self._lock:
            if self._ended:
                return False
            self._outbox.append(message)
            self._outbox_bytes += len(message)
            batch = self._next_batch()
        self._send_batch(batch)
        return True

    def send_headers(self, headers: CheckedMetadata) -> bool:
        """Send the initial metadata. Returns False if it was sent before, or the call has ended."""
        with self._lock:
            if self._ended or self._headers_sent or self._headers_due:
                return False
            self._headers = headers
            self._headers_due = True
            batch = self._next_batch()
        self._send_batch(batch)
        return True

    def finish(
        self,
        code: grpc.StatusCode = grpc.StatusCode.OK,
        details: str = "",
        trailing_metadata: SentMetadata = (),
        last_message: bytes | None = None,
    ) -> bool:
        """See `StreamCall.finish`; ``last_message`` is sent in one write with the status if the outbox is empty."""
        trailing = self._checked(trailing_metadata)
        encoded = details.encode(errors="replace")
        with self._lock:
            if self._ended:
                return False
            self._ended = True
        self.ended_at = time.monotonic()
        notify_finished(self.finishers, self, code, details)
        status = self._status_operation(code, encoded, trailing)
        with self._lock:
            if last_message is not None:
                self._outbox.append(last_message)
            self._status = status
            batch = self._next_batch()
        self._send_batch(batch)
        return True

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: SentMetadata = ()) -> bool:
        """See `UnaryCall.abort`. Messages in the outbox are sent first."""
        return self.finish(code, details, trailing_metadata)

    @property
    def has_ended(self) -> bool:
        """Whether the call was finished or terminated."""
        return self._ended

    @property
    def waiting_messages(self) -> int:
        """The number of messages in the outbox, without the one in flight."""
        return len(self._outbox)

    def _add_finisher(self, finisher: Finisher) -> bool:
        with self._lock:
            if self._ended:
                return False
            self.finishers = (finisher, *self.finishers)
        return True

    def _claim_receive(self) -> bool:
        """Claim the next receive if one is wanted and allowed, with the lock held; the caller starts it."""
        may = self._read_wanted and not (self._receiving or self._requests_over or self._ended)
        if not may or len(self._outbox) > BACKLOG_MESSAGES or self._outbox_bytes > BACKLOG_BYTES:
            return False
        self._read_wanted = False
        self._receiving = True
        self._due += 1
        return True

    def _next_batch(self) -> core.Batch:
        """Return the next batch to send, empty if there is none or a send is in flight; with the lock held."""
        if self._sending or not (self._outbox or self._headers_due or self._status is not None):
            return ()
        batch = []
        if not self._headers_sent:
            batch.append(core.initial_metadata(self._headers))
            self._headers_sent = True
            self._headers_due = False
        if self._outbox:
            message = self._outbox.popleft()
            self._outbox_bytes -= len(message)
            batch.append(core.message(message))
        if self._status is not None and not self._outbox:
            # Its event counts as due from the start of the call.
            batch.append(self._status)
            self._status = None
        else:
            self._due += 1
        self._sending = True
        return tuple(batch)

    def _send_batch(self, batch: core.Batch) -> None:
        if batch:
            self._start(batch, self._on_sent)

    def _on_sent(self, event: core.BatchEvent) -> None:
        with self._lock:
            self._sending = False
            if not event.success:
                self._drop_outbox()
            batch = self._next_batch()
            receive = self._claim_receive()
        self._send_batch(batch)
        if receive:
            self._start((core.receive_message(),), self._on_message)
        if self.on_sent is not None:
            self.on_sent()
        self._settle()

    def _on_message(self, event: core.BatchEvent) -> None:
        message = event.batch_operations[0].message()
        with self._lock:
            self._receiving = False
            self._requests_over = message is None
        if message is not None:
            self._live.held_bytes += len(message) - max(self.message_bytes, 0)
            self.message_bytes = len(message)
            if self.examines_messages:
                self._examine(message)
            else:
                self._deliver(message)
        elif event.success:
            self._after_no_message(self._on_half_close)
        else:
            self._receive_failed()
        self._settle()

    def _deliver(self, message: bytes) -> None:
        if not self._ended and self._listener is not None:
            self._run_handler(self._listener.on_message, message)

    def _on_half_close(self) -> None:
        if not self._ended and self._listener is not None:
            self._run_handler(self._listener.on_half_close)

    def _on_close(self, _event: core.BatchEvent) -> None:
        with self._lock:
            unanswered = not self._ended
            self._ended = True
            self._drop_outbox()
        if unanswered:
            self._terminate()
            self._settle()
        self._settle()

    def _drop_outbox(self) -> None:
        self._outbox.clear()
        self._outbox_bytes = 0

    def _settle(self) -> None:
        with self._lock:
            self._due -= 1
            over = self._due == 0
        if over:
            self._listener = None
            self.on_sent = None
            self._retire()


class _SingleMessage:
    """The listener of a handler that takes one request."""

    def __init__(self, call: CoreStreamCall, deliver: Callable[[bytes], None]) -> None:
        self._call = call
        self.on_message = deliver

    def on_half_close(self) -> None:
        self._call.abort(grpc.StatusCode.UNIMPLEMENTED, MISSING_MESSAGE)

    def on_terminated(self) -> None:
        pass
