"""Calls of all protocols, their end, and the unary calls of gRPC."""

import logging
import math
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import grpc

from inferd.call_context import CallContext, log_fields, readable_peer
from inferd.rpc import core
from inferd.rpc.call_ends import CANCELLED_HERE, Cause
from inferd.rpc.core import CheckedMetadata, EncodedMetadata, Metadata, SentMetadata, checked_metadata
from inferd.rpc.inflating import ALGORITHMS
from inferd.rpc.interfaces import Call, Finisher, UnaryHandler
from inferd.rpc.live_calls import UNREAD, LiveCall, LiveCalls

_log = logging.getLogger("inferd.rpc")

_OK = grpc.StatusCode.OK
_RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
INTERNAL_ERROR = "internal error"
MISSING_MESSAGE = "expected one request message, got none"

#: The close event follows a receive without a message within about this time.
_CLOSE_FOLLOWS_S = 0.002

#: The end as reported to an ``on_finished`` that comes after it; the real one is not kept.
_ENDED_BEFORE = (grpc.StatusCode.CANCELLED, "the call had ended")

_TOO_LARGE = "the answer has {size} bytes, gRPC's messages at most {most}"

_OVERSIZE = (grpc.StatusCode.RESOURCE_EXHAUSTED, "a message was larger than the limit or could not be unpacked")


class CallEnd:
    """The one end of a call: one of all answers and terminations claims it, and notifies the finishers.

    Invariant: ``claim`` is acquired once and never released. Threads: any may claim; the one that did notifies.
    """

    __slots__ = ("callbacks", "cause", "claim", "finishers", "is_terminated", "trailing")

    def __init__(self, finishers: tuple[Finisher, ...]) -> None:
        self.claim = threading.Lock()
        #: Notified of every end, in order.
        self.finishers = finishers
        #: Called after a termination, an end without our answer.
        self.callbacks: list[Callable[[], None]] = []
        self.is_terminated = False
        #: Why the call is about to be terminated, as far as this side knows.
        self.cause: Cause | None = None
        #: Added to the trailing metadata of the handler.
        self.trailing: CheckedMetadata = None

    def add_finisher(self, finisher: Finisher) -> bool:
        """Put ``finisher`` ahead of the others. Returns False if the end was claimed."""
        if self.claim.locked():
            return False
        self.finishers = (finisher, *self.finishers)
        return True

    def notify(self, call: Call, code: grpc.StatusCode, details: str) -> None:
        """Call the finishers for ``call``, whose end was claimed."""
        for finished in self.finishers:
            try:
                finished(call, code, details)
            except Exception:  # noqa: BLE001  the others must run, and the caller must get the status
                log_failed_interceptor(finished, call)

    def run_callbacks(self, call: Call) -> None:
        """Run the remaining callbacks in order; `list.pop` gives each to one thread only."""
        while self.callbacks:
            try:
                callback = self.callbacks.pop(0)
            except IndexError:  # another thread was faster
                return
            try:
                callback()
            except Exception:  # noqa: BLE001  the other callbacks must run too
                _log.exception("a callback at the end of %s failed", call.method, extra=log_fields(call))


def log_failed_interceptor(method: Callable[..., object], call: Call) -> None:
    """Log the exception that ``method`` of an interceptor has raised."""
    _log.exception("interceptor %r failed on %s", method, call.method, extra=log_fields(call))


class CallBase(LiveCall):
    """A call of any protocol; live from its construction.

    Threads: constructed on the poll thread; answered in any.
    """

    __slots__ = (
        "_live",
        "annotations",
        "check",
        "context",
        "deadline",
        "end",
        "ended_at",
        "metadata",
        "method",
        "raw_peer",
        "started_at",
    )

    #: The handler of a unary call, which then counts among the unary calls in flight; None for others.
    _handler: object

    def __init__(
        self,
        live: LiveCalls,
        method: str,
        metadata: Metadata,
        deadline: float,
        started_at: float,
        raw_peer: bytes,
    ) -> None:
        self._live = live
        self.raw_peer = raw_peer
        self.method = method
        self.metadata = metadata
        self.deadline = deadline
        self.started_at = started_at
        self.ended_at = math.inf
        self.context = CallContext()
        self.annotations: dict[str, object] = {}
        self.end = CallEnd(live.finishers)
        self.check = live.check
        # From here on the call is live, and a check of memory may end it.
        live.calls[self] = UNREAD
        if live.on_call is not None:
            live.on_call()
        if live.ends.ages is not None:
            live.ends.ages.add_call(raw_peer, started_at)

    @property
    def peer(self) -> str:
        """See `Call.peer`."""
        return readable_peer(self.raw_peer)

    def add_trailing_metadata(self, pairs: SentMetadata) -> None:
        """See `Call.add_trailing_metadata`."""
        added = pairs if isinstance(pairs, EncodedMetadata) else checked_metadata(pairs)
        if added is not None:
            earlier = self.end.trailing
            self.end.trailing = added if earlier is None else (*earlier, *added)

    def expect_small_message(self) -> None:
        """See `Call.expect_small_message`."""
        self.check = self._live.small_check

    def on_terminated(self, callback: Callable[[], None]) -> None:
        """See `Call.on_terminated`."""
        end = self.end
        end.callbacks.append(callback)
        if end.is_terminated:
            end.run_callbacks(self)

    def on_finished(self, finisher: Finisher) -> None:
        """See `Call.on_finished`."""
        if not self._add_finisher(finisher):
            finisher(self, *_ENDED_BEFORE)

    def _add_finisher(self, finisher: Finisher) -> bool:
        return self.end.add_finisher(finisher)

    @abstractmethod
    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """See `Call.auth_context`."""

    def abort_paced(self, code: grpc.StatusCode, details: str, trailing_metadata: SentMetadata = ()) -> None:
        """See `UnaryCall.abort_paced`."""
        self.pace(partial(self.abort, code, details, trailing_metadata))

    def pace(self, refuse: Callable[[], object]) -> None:
        """See `LiveCall.pace`."""
        live = self._live
        live.refusals.end(self.context, self.deadline, max(live.calls.get(self, 0), 0), refuse)

    def _checked(self, metadata: SentMetadata) -> CheckedMetadata:
        """Check ``metadata``; if it is illegal, end the call and raise, as the caller would wait in vain otherwise."""
        if isinstance(metadata, EncodedMetadata):
            return metadata
        if not metadata:
            return None
        try:
            return checked_metadata(metadata)
        except ValueError:
            self.abort(grpc.StatusCode.INTERNAL, INTERNAL_ERROR)
            raise

    def _handler_failed(self) -> None:
        _log.exception("the handler of %s failed", self.method, extra=log_fields(self))
        self.abort(grpc.StatusCode.INTERNAL, INTERNAL_ERROR)

    def _terminate(self) -> None:
        """End the call without an answer; the caller holds the claim."""
        end = self.end
        self.ended_at = self._live.loop.now()
        code, details = end.cause or self._live.ends.cause(self, self.ended_at)
        end.notify(self, code, details)
        end.is_terminated = True
        end.run_callbacks(self)

    def _unregister(self) -> None:
        """Remove the call from the live calls, after its last event."""
        live = self._live
        size = live.calls.pop(self)
        if size > 0:
            live.held_bytes -= size
        if self._handler is not None:
            live.inflight_unary -= 1
        # Handlers and listeners refer to their call: breaking the cycles frees it at once.
        self.end.callbacks.clear()


class CoreCall(CallBase):
    """A call on gRPC's core, unary or streaming.

    Invariant: ``_due`` counts the events still to arrive, among them the one of the status, which counts from the
    start and is subtracted if the call ends without an answer. At zero the call is no longer live.

    Threads: as `CallBase`; its events arrive on the poll thread.
    """

    __slots__ = ("_due", "core_call")

    core_call: core.Call
    _handler: UnaryHandler | None

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """See `Call.auth_context`."""
        return core.auth_context(self.core_call)

    def cancel(self) -> None:
        """See `LiveCall.cancel`."""
        self.end.cause = CANCELLED_HERE
        self.core_call.cancel()

    @abstractmethod
    def deliver(self, message: bytes) -> None:
        """Give ``message``, which was checked, to the handler; on the poll thread."""

    def batch_refused(self, batch: core.Batch, tag: Callable[[core.BatchEvent], None], error: int) -> None:
        """See `BatchOwner.batch_refused`: cancel the call, which would stay live otherwise."""
        text = "the core refused a batch on %s with error %d; the call is cancelled"
        _log.error(text, self.method, error, extra=log_fields(self))
        self.end.cause = (grpc.StatusCode.INTERNAL, INTERNAL_ERROR)
        self.core_call.cancel()
        self._live.loop.call_soon(partial(tag, core.RefusedBatch(batch)))

    def _answer_too_large(self, size: int) -> bool:
        """End the call in place of an answer of ``size`` bytes, which the core would refuse after it was logged."""
        return self.abort(_RESOURCE_EXHAUSTED, _TOO_LARGE.format(size=size, most=core.MOST_MESSAGE_BYTES))

    def _no_message(self, event: core.BatchEvent, half_closed: Callable[[], None]) -> None:
        """Handle a receive without a message; call ``half_closed`` unless the call proves to have ended.

        The core reports a cancelled call like a half-close, and then by the close event, from a thread that may be
        delayed. So wait a little, and then for the events that are ready by then.
        """
        if event.success:
            loop = self._live.loop
            loop.call_at(loop.now() + _CLOSE_FOLLOWS_S, partial(loop.call_after_queued, half_closed))
        else:
            # The core rejected the message; it answers by itself, and the close event follows.
            self.end.cause = _OVERSIZE


class CoreUnaryCall(CoreCall):
    """A `UnaryCall` with four events: the call, its message, its answer, its close.

    The close is asked for when the handler has seen the message: until then the receive of the message reports a
    cancel. A call that ends on the poll thread before, as refused ones do, asks for it in one batch with the status.

    ``_due`` and ``_is_close_due``, whether the close was asked for, change on the poll thread only.
    """

    __slots__ = ("_handler", "_is_close_due")

    has_single_message = True

    def __init__(
        self,
        core_call: core.Call,
        live: LiveCalls,
        method: str,
        metadata: Metadata,
        deadline: float,
        started_at: float,
    ) -> None:
        self._handler = None
        self._is_close_due = False
        self.core_call = core_call
        self._due = 2
        # Last, as it makes the call live. The core forgets the peer with the end of the call.
        super().__init__(live, method, metadata, deadline, started_at, core_call.peer())

    def serve(self, handler: UnaryHandler) -> None:
        """Read the message and give it to ``handler``; on the poll thread, before any event of the call but its end."""
        self._handler = handler
        self._live.inflight_unary += 1
        self._due += 1
        self._live.loop.defer_batch((self, (core.receive_message(),), self._on_message))

    def reply(self, message: bytes, trailing_metadata: Metadata = ()) -> bool:
        """See `UnaryCall.reply`."""
        if len(message) > core.MOST_MESSAGE_BYTES:
            return self._answer_too_large(len(message))
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
        end, loop = self.end, self._live.loop
        if not end.claim.acquire(False):
            return False
        self.ended_at = time.monotonic()
        end.notify(self, code, details)
        status = core.status(code, encoded, trailing, end.trailing)
        batch = (*operations, status)
        if threading.get_ident() != loop.thread_id:
            error = self.core_call.start_server_batch(batch, self._on_sent)
            if error:
                self.batch_refused(batch, self._on_sent, error)
        elif self._is_close_due:
            loop.defer_batch((self, batch, self._on_sent))
        else:
            self._is_close_due = True
            loop.defer_batch((self, (*operations, core.receive_close(), status), self._on_sent_and_closed))
            if code is _RESOURCE_EXHAUSTED:
                loop.call_rejected(self.ended_at)
        return True

    def _on_message(self, event: core.BatchEvent) -> None:
        message = event.batch_operations[0].message()
        live = self._live
        if message is None:
            self._no_message(event, self._on_half_close)
        else:
            # As `LiveCalls.hold` for the first message, without a call for each request.
            live.calls[self] = size = len(message)
            live.held_bytes += size
            # Without the call of a check that it passes, for each request.
            if self.check is live.check and message[:2] not in ALGORITHMS:
                self.deliver(message)
            else:
                self.check.deliver(self, message, self.deliver)
        if not self._is_close_due:
            self._is_close_due = True
            live.loop.defer_batch((self, (core.receive_close(),), self._on_close))
        self._due -= 1
        if self._due == 0:
            self._unregister()

    def deliver(self, message: bytes) -> None:
        """See `CallBase.deliver`."""
        assert self._handler is not None
        try:
            self._handler(self, message)
        except Exception:  # noqa: BLE001  the caller gets a status, but not the cause
            self._handler_failed()

    def _on_half_close(self) -> None:
        self.abort(grpc.StatusCode.UNIMPLEMENTED, MISSING_MESSAGE)

    def _on_close(self, _event: core.BatchEvent) -> None:
        if self.end.claim.acquire(blocking=False):
            self._terminate()
            self._due -= 1
        self._due -= 1
        if self._due == 0:
            self._unregister()

    def _on_sent_and_closed(self, _event: core.BatchEvent) -> None:
        self._due -= 2
        if self._due == 0:
            self._unregister()

    def _on_sent(self, _event: core.BatchEvent) -> None:
        self._due -= 1
        if self._due == 0:
            self._unregister()
