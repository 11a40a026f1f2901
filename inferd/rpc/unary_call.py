"""A call with one request and one answer: the fast path."""

import threading
import time

import grpc

from inferd.rpc import core
from inferd.rpc.call import MISSING_MESSAGE, CallBase, LiveCalls
from inferd.rpc.core import CheckedMetadata, Metadata, SentMetadata
from inferd.rpc.interceptors import notify_finished
from inferd.rpc.interfaces import Finisher, UnaryHandler

_OK = grpc.StatusCode.OK


class CoreUnaryCall(CallBase):
    """A `UnaryCall` with four events: the call, its message, its answer, its close.

    The close is asked for when the handler has seen the message: until then the receive of the message reports a
    cancel. A call that ends on the poll thread before, as refused ones do, asks for it in one batch with the status.

    The claim on its end is ``_lock``, acquired once and never released. ``_due`` and ``_is_close_due``, whether the
    close was asked for, change on the poll thread only.
    """

    __slots__ = ("_handler", "_is_close_due")

    has_single_message = True

    _handler: UnaryHandler

    def __init__(
        self,
        core_call: core.Call,
        live: LiveCalls,
        method: str,
        metadata: Metadata,
        deadline: float,
        started_at: float,
    ) -> None:
        self._is_close_due = False
        # Last, as it makes the call live.
        super().__init__(core_call, live, method, metadata, deadline, started_at)

    def serve(self, handler: UnaryHandler) -> None:
        """Read the message and give it to ``handler``; on the poll thread, before any event of the call but its end."""
        self._handler = handler
        self.is_inflight = True
        self._live.inflight_unary += 1
        self._due += 1
        self._live.loop.defer_batch((self, (core.receive_message(),), self._on_message))

    def reply(self, message: bytes, trailing_metadata: Metadata = ()) -> bool:
        """See `UnaryCall.reply`."""
        trailing = self._checked(trailing_metadata) if trailing_metadata else None
        return self._finish(core.first_message(message), _OK, "", b"", trailing)

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: SentMetadata = ()) -> bool:
        """See `UnaryCall.abort`."""
        trailing = self._checked(trailing_metadata)
        return self._finish((core.initial_metadata(None),), code, details, details.encode(errors="replace"), trailing)

    def _finish(
        self, operations: core.Batch, code: grpc.StatusCode, details: str, encoded: bytes, trailing: CheckedMetadata
    ) -> bool:
        """End the call with ``operations`` and the status. Arguments are checked: nothing may fail after the claim."""
        if not self._lock.acquire(False):
            return False
        self.ended_at = time.monotonic()
        notify_finished(self.finishers, self, code, details)
        status = self._status_operation(code, encoded, trailing)
        if not self._is_close_due and threading.get_ident() == self._live.loop.thread_id:
            self._is_close_due = True
            self._live.loop.defer_batch((self, (*operations, core.receive_close(), status), self._on_sent_and_closed))
        else:
            self._start((*operations, status), self._on_sent)
        return True

    def _add_finisher(self, finisher: Finisher) -> bool:
        if self._lock.locked():
            return False
        self.finishers = (finisher, *self.finishers)
        return True

    def _on_message(self, event: core.BatchEvent) -> None:
        message = event.batch_operations[0].message()
        if message is not None:
            self.message_bytes = size = len(message)
            self._live.held_bytes += size
            if self.examines_messages:
                self._examine(message)
            else:
                self._deliver(message)
        elif event.success:
            self._after_no_message(self._on_half_close)
        else:
            self._receive_failed()
        if not self._is_close_due:
            self._is_close_due = True
            self._live.loop.defer_batch((self, (core.receive_close(),), self._on_close))
        self._due -= 1
        if self._due == 0:
            self._retire()

    def _deliver(self, message: bytes) -> None:
        try:
            self._handler(self, message)
        except Exception:  # noqa: BLE001  the caller gets a status, but not the cause
            self._handler_failed()

    def _on_half_close(self) -> None:
        self.abort(grpc.StatusCode.UNIMPLEMENTED, MISSING_MESSAGE)

    def _on_close(self, _event: core.BatchEvent) -> None:
        if self._lock.acquire(blocking=False):
            self._terminate()
            self._due -= 1
        self._due -= 1
        if self._due == 0:
            self._retire()

    def _on_sent_and_closed(self, _event: core.BatchEvent) -> None:
        self._due -= 2
        if self._due == 0:
            self._retire()

    def _on_sent(self, _event: core.BatchEvent) -> None:
        self._due -= 1
        if self._due == 0:
            self._retire()
