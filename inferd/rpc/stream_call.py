"""A call with messages in any number, both ways."""

import threading
import time
from collections import deque
from collections.abc import Callable

import grpc

from inferd.rpc import core
from inferd.rpc.call_base import MISSING_MESSAGE, CallBase
from inferd.rpc.calls import Finisher, StreamHandler, StreamListener
from inferd.rpc.interceptors import tell_finished
from inferd.rpc.live_calls import LiveCalls
from inferd.rpc.metadata import CheckedMetadata, Metadata

#: While more than this waits to be sent, nothing further is read.
BACKLOG_MESSAGES = 64
BACKLOG_BYTES = 4 * 1024 * 1024


class CoreStreamCall(CallBase):
    """A `StreamCall`, which also serves blocking handlers of all four shapes.

    Invariants, guarded by ``_lock``, which is never held while the core works:
    at most one receive and one send are in flight; what ``_outbox`` holds goes in order, the status last; ``_ended``
    is the claim on the end. Whoever sets ``_receiving`` or ``_sending`` starts that batch, and its event clears it.
    """

    __slots__ = (
        "_ended",
        "_headers",
        "_headers_due",
        "_headers_sent",
        "_listener",
        "_lock",
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
        super().__init__(core_call, live, method, metadata, deadline, started_at)
        self._lock = threading.Lock()
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
        #: Called on the poll thread after each batch that was sent or could not be.
        self.on_sent: Callable[[], None] | None = None

    @property
    def has_single_message(self) -> bool:
        """See `CallBase.has_single_message`."""
        return isinstance(self._listener, _SingleMessage)

    def serve(self, handler: StreamHandler) -> None:
        """Let ``handler`` begin; on the poll thread, before any event of the call but its end."""

        def begin() -> None:
            self.listen(handler(self))

        self._run_handler(begin)

    def receive_one(self, deliver: Callable[[bytes], None]) -> None:
        """Read the call's only message and give it to ``deliver``; on the poll thread."""
        self.listen(_SingleMessage(self, deliver))
        self.read()

    def listen(self, listener: StreamListener) -> None:
        """Tell ``listener`` what happens from now on; on the poll thread."""
        self._listener = listener
        self.on_terminated(listener.on_terminated)

    def read(self) -> None:
        """See `StreamCall.read`."""
        with self._lock:
            self._read_wanted = not self._receiving
            receive = self._claim_receive()
        if receive:
            self._start(core.receive_message(), self._on_message)

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
        """Send the initial metadata ahead of the first message. Returns False if it was sent, or the call has ended."""
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
        trailing_metadata: Metadata = (),
        last_message: bytes | None = None,
    ) -> bool:
        """See `StreamCall.finish`; ``last_message`` leaves in one write with the status, if nothing is before it."""
        trailing = self._checked(trailing_metadata)
        status = core.status(code, details.encode(errors="replace"), trailing)
        with self._lock:
            if self._ended:
                return False
            self._ended = True
        self.ended_at = time.monotonic()
        tell_finished(self.finishers, self, code, details)
        if self._trailing is not None:
            status = core.status(code, details.encode(errors="replace"), (*(trailing or ()), *self._trailing))
        with self._lock:
            if last_message is not None:
                self._outbox.append(last_message)
            self._status = status
            batch = self._next_batch()
        self._send_batch(batch)
        return True

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata = ()) -> bool:
        """See `UnaryCall.abort`. What was sent before goes first."""
        return self.finish(code, details, trailing_metadata)

    @property
    def has_ended(self) -> bool:
        """Whether the call was finished or has ended without that."""
        return self._ended

    @property
    def waiting_messages(self) -> int:
        """How many messages wait to be sent, without the one in flight."""
        return len(self._outbox)

    def _tell_also(self, finisher: Finisher) -> bool:
        with self._lock:
            if self._ended:
                return False
            self.finishers = (finisher, *self.finishers)
        return True

    def _claim_receive(self) -> bool:
        """Take it on us to start a receive, if one is wanted and may be; with the lock held."""
        may = self._read_wanted and not (self._receiving or self._requests_over or self._ended)
        if not may or len(self._outbox) > BACKLOG_MESSAGES or self._outbox_bytes > BACKLOG_BYTES:
            return False
        self._read_wanted = False
        self._receiving = True
        self._due += 1
        return True

    def _next_batch(self) -> core.Batch:
        """Take what is to be sent next, or nothing if a send is in flight; with the lock held."""
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
            # Its event is due from the start.
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
            self._start(core.receive_message(), self._on_message)
        if self.on_sent is not None:
            self.on_sent()
        self._settle()

    def _on_message(self, event: core.BatchEvent) -> None:
        message = core.received(event)
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
            self._without_message(self._on_half_close)
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
    """The listener for a handler of one request."""

    def __init__(self, call: CoreStreamCall, deliver: Callable[[bytes], None]) -> None:
        self._call = call
        self.on_message = deliver

    def on_half_close(self) -> None:
        self._call.abort(grpc.StatusCode.UNIMPLEMENTED, MISSING_MESSAGE)

    def on_terminated(self) -> None:
        pass
