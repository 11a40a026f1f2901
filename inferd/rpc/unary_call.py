"""A call with one request and one answer: the fast path."""

import threading
import time

import grpc

from inferd.rpc import core
from inferd.rpc.call_base import MISSING_MESSAGE, CallBase
from inferd.rpc.calls import Finisher, UnaryHandler
from inferd.rpc.interceptors import tell_finished
from inferd.rpc.live_calls import LiveCalls
from inferd.rpc.metadata import CheckedMetadata, Metadata


class CoreUnaryCall(CallBase):
    """A `UnaryCall` that costs four events: the call, its message, its answer, its end.

    The claim on its end is a lock that is taken once and never given back. ``_due`` is changed on the poll thread
    only.
    """

    __slots__ = ("_claim", "_handler")

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
        self._claim = threading.Lock()
        self._handler: UnaryHandler | None = None

    @property
    def has_single_message(self) -> bool:
        """See `CallBase.has_single_message`."""
        return True

    def serve_unary(self, handler: UnaryHandler) -> None:
        """Read the message and give it to ``handler``; on the poll thread, before any event of the call but its end."""
        self._handler = handler
        self._due += 1
        self._start(core.receive_message(), self._on_message)

    def reply(self, message: bytes, trailing_metadata: Metadata = ()) -> bool:
        """See `UnaryCall.reply`."""
        trailing = self._checked(trailing_metadata) if trailing_metadata else None
        return self._finish(core.whole_answer(message, trailing), trailing, grpc.StatusCode.OK, "")

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata = ()) -> bool:
        """See `UnaryCall.abort`."""
        trailing = self._checked(trailing_metadata)
        batch = core.whole_refusal(code, details.encode(errors="replace"), trailing)
        return self._finish(batch, trailing, code, details)

    def _finish(self, batch: core.Batch, trailing: CheckedMetadata, code: grpc.StatusCode, details: str) -> bool:
        """End the call with ``batch``, whose last operation is the status with ``trailing``."""
        if not self._claim.acquire(False):
            return False
        self.ended_at = time.monotonic()
        tell_finished(self.finishers, self, code, details)
        if self._trailing is not None:
            # Rare, so the status is made once more rather than later for everyone: what is wrong with an answer must
            # show before the call is claimed.
            more = (*(trailing or ()), *self._trailing)
            batch = (*batch[:-1], core.status(code, details.encode(errors="replace"), more))
        self._start(batch, self._on_sent)
        return True

    def _tell_also(self, finisher: Finisher) -> bool:
        if self._claim.locked():
            return False
        self.finishers = (finisher, *self.finishers)
        return True

    def _on_message(self, event: core.BatchEvent) -> None:
        message = core.received(event)
        if message is not None:
            self.message_bytes = size = len(message)
            self._live.held_bytes += size
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
        if self._handler is None:
            return  # the call has ended while its message was inflated
        try:
            self._handler(self, message)
        except Exception:  # noqa: BLE001  the caller must hear something, but not what
            self._handler_failed()

    def _on_half_close(self) -> None:
        self.abort(grpc.StatusCode.UNIMPLEMENTED, MISSING_MESSAGE)

    def _on_close(self, _event: core.BatchEvent) -> None:
        if self._claim.acquire(blocking=False):
            self._terminate()
            self._settle()
        self._settle()

    def _on_sent(self, _event: core.BatchEvent) -> None:
        self._settle()

    def _settle(self) -> None:
        self._due -= 1
        if self._due == 0:
            self._handler = None
            self._retire()
