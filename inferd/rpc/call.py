"""What both kinds of call have in common: the caller, the end, and the calls of a server that are live."""

import logging
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import grpc

from inferd.call_context import CallContext, log_fields, readable_peer
from inferd.rpc import call_ends, core
from inferd.rpc.call_ends import REASONS, Ends, RejectionCause, StatusOf, bare_status
from inferd.rpc.core import CheckedMetadata, EncodedMetadata, Metadata, SentMetadata, checked_metadata
from inferd.rpc.inflating import GZIP, InflateError, Inflater
from inferd.rpc.interceptors import InterceptorChain, notify_finished
from inferd.rpc.interfaces import Finisher
from inferd.rpc.poll_loop import PollLoop

_log = logging.getLogger("inferd.rpc")

INTERNAL_ERROR = "internal error"
MISSING_MESSAGE = "expected one request message, got none"

#: Maximum message size after `Call.expect_small_message`.
SMALL_MESSAGE_BYTES = 4096

#: `CallBase.message_bytes` before the first message is complete.
UNREAD = -1

#: The close event follows a receive without a message within about this time.
_CLOSE_FOLLOWS_S = 0.002

#: The end as reported to an ``on_finished`` that comes after it; the real one is not kept.
_ENDED_BEFORE = (grpc.StatusCode.CANCELLED, "the call had ended")

_OVERSIZE = (grpc.StatusCode.RESOURCE_EXHAUSTED, "a message was larger than the limit or could not be unpacked")


class LiveCalls:
    """The calls of a server with events still to come from the core, and what they share.

    The server may be freed only when there are none. ``held_bytes`` is the size of the messages they hold. Changes on
    the poll thread only; ``count``, ``held_bytes`` and ``rejected`` may be read in any.
    """

    def __init__(
        self,
        loop: PollLoop,
        interceptors: InterceptorChain,
        *,
        status_of: StatusOf = bare_status,
        inflater: Inflater | None = None,
        ends: Ends | None = None,
    ) -> None:
        self.loop = loop
        self.interceptors = interceptors
        self.inflater = inflater
        self.ends = Ends() if ends is None else ends
        #: An ordered set: the oldest call first.
        self.calls: dict[CallBase, None] = {}
        #: Live calls with `CallBase.is_inflight`.
        self.inflight_unary = 0
        self.held_bytes = 0
        #: Whether calls are rejected before their message is read.
        self.is_short_of_memory = False
        #: Called for the next new call; set while no timer checks the live calls.
        self.on_call: Callable[[], None] | None = None
        #: Rejected calls by reason.
        self.rejected = dict.fromkeys(REASONS, 0)
        self._status_of = status_of

    @property
    def count(self) -> int:
        """The number of live calls."""
        return len(self.calls)

    def reject(self, call: "CallBase", cause: RejectionCause) -> None:
        """End ``call`` without serving it."""
        rejection = self._status_of(cause)
        if call.abort(rejection.code, rejection.details, rejection.trailing_metadata):
            self.rejected[cause.reason] += 1


class CallBase(ABC):
    """One call of the core, live from its construction.

    Invariants: exactly one of all answers and terminations claims the end of the call, and the one that does notifies
    the interceptors. ``_due`` counts the events still to arrive, among them the one of the status, which counts from
    the start and is subtracted if the call ends without an answer. At zero the call is no longer live.

    Threads: constructed on the poll thread, where its events arrive; answered in any.
    """

    __slots__ = (
        "_callbacks",
        "_cause",
        "_due",
        "_live",
        "_lock",
        "_terminated",
        "_trailing",
        "annotations",
        "context",
        "core_call",
        "deadline",
        "ended_at",
        "examines_messages",
        "expects_small_message",
        "finishers",
        "is_inflight",
        "message_bytes",
        "metadata",
        "method",
        "on_retired",
        "raw_peer",
        "started_at",
    )

    #: Whether the call takes one message, not a stream.
    has_single_message: bool

    def __init__(
        self,
        core_call: core.Call,
        live: LiveCalls,
        method: str,
        metadata: Metadata,
        deadline: float,
        started_at: float,
    ) -> None:
        self.core_call = core_call
        self._live = live
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._cause: tuple[grpc.StatusCode, str] | None = None
        self._due = 2
        # The core forgets it with the end of the call.
        self.raw_peer = core_call.peer()
        self._terminated = False
        #: Added to the trailing metadata of the handler.
        self._trailing: CheckedMetadata = None
        self.method = method
        self.metadata = metadata
        self.deadline = deadline
        self.started_at = started_at
        self.ended_at = math.inf
        self.context = CallContext()
        self.annotations: dict[str, object] = {}
        self.finishers = live.interceptors.all_finishers
        #: Size of the latest message, which counts as held while the call is live or until the next message.
        self.message_bytes = UNREAD
        self.expects_small_message = False
        #: Whether the call counts among the unary calls in flight.
        self.is_inflight = False
        #: Whether messages go through `_examine` first.
        self.examines_messages = live.inflater is not None
        #: Called on the poll thread when the call is no longer live, however it ended.
        self.on_retired: Callable[[], None] | None = None
        # From here on the call is live, and a check of memory may end it.
        live.calls[self] = None
        if live.on_call is not None:
            live.on_call()
        if live.ends.ages is not None:
            live.ends.ages.note(self.raw_peer, started_at)

    @property
    def peer(self) -> str:
        """See `Call.peer`."""
        return readable_peer(self.raw_peer)

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """See `Call.auth_context`."""
        return core.auth_context(self.core_call)

    def peer_identities(self) -> Sequence[bytes] | None:
        """Return the authenticated names of the peer, or None."""
        return core.peer_identities(self.core_call)

    def peer_identity_key(self) -> str | None:
        """Return the key of the identities in the auth context, or None."""
        return core.peer_identity_key(self.core_call)

    def cancel(self) -> None:
        """End the call as if the caller had cancelled it; any thread."""
        self._cause = call_ends.CANCELLED_HERE
        self.core_call.cancel()

    def add_trailing_metadata(self, pairs: SentMetadata) -> None:
        """See `Call.add_trailing_metadata`."""
        added = pairs if isinstance(pairs, EncodedMetadata) else checked_metadata(pairs)
        if added is not None:
            self._trailing = added if self._trailing is None else (*self._trailing, *added)

    def expect_small_message(self) -> None:
        """See `Call.expect_small_message`."""
        self.expects_small_message = self.examines_messages = True

    def on_terminated(self, callback: Callable[[], None]) -> None:
        """See `Call.on_terminated`."""
        self._callbacks.append(callback)
        if self._terminated:
            self._run_callbacks()

    def on_finished(self, finisher: Finisher) -> None:
        """See `Call.on_finished`."""
        if not self._add_finisher(finisher):
            finisher(self, *_ENDED_BEFORE)

    @abstractmethod
    def _add_finisher(self, finisher: Finisher) -> bool:
        """Put ``finisher`` ahead of the others. Returns False if the call has ended."""

    @abstractmethod
    def _on_close(self, event: core.BatchEvent) -> None:
        """Handle the end of the call."""

    @abstractmethod
    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: SentMetadata = ()) -> bool:
        """See `UnaryCall.abort`."""

    @abstractmethod
    def _deliver(self, message: bytes) -> None:
        """Give ``message`` to the handler; on the poll thread."""

    def _examine(self, message: bytes) -> None:
        """Check the size of ``message``, inflate it if it is compressed, and deliver it; else reject the call."""
        if not self._fits(message):
            return
        if self._live.inflater is not None and message.startswith(GZIP):
            self._live.inflater.inflate(message, self._inflated)
        else:
            self._deliver(message)

    def _inflated(self, outcome: bytes | InflateError) -> None:
        if isinstance(outcome, InflateError):
            self._live.reject(self, call_ends.not_inflatable(str(outcome)))
        elif self._fits(outcome) and self in self._live.calls:
            self._live.held_bytes += len(outcome) - self.message_bytes
            self.message_bytes = len(outcome)
            self._deliver(outcome)

    def _fits(self, message: bytes) -> bool:
        """Whether ``message`` is within the limit for small messages, if that applies; else reject the call."""
        if not self.expects_small_message or len(message) <= SMALL_MESSAGE_BYTES:
            return True
        self._live.reject(self, call_ends.message_too_large(len(message), SMALL_MESSAGE_BYTES))
        return False

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

    def _status_operation(self, code: grpc.StatusCode, details: bytes, trailing: CheckedMetadata) -> core.Operation:
        """Make the operation that sends the status, once the interceptors were notified."""
        if self._trailing is not None:
            trailing = self._trailing if trailing is None else (*trailing, *self._trailing)
        return core.status(code, details, trailing)

    def _start(self, batch: core.Batch, tag: Callable[[core.BatchEvent], None]) -> None:
        """Start ``batch`` now, or on the poll thread after the events that are ready."""
        loop = self._live.loop
        if threading.get_ident() == loop.thread_id:
            loop.defer_batch((self, batch, tag))
            return
        error = self.core_call.start_server_batch(batch, tag)
        if error:
            self.batch_refused(batch, tag, error)

    def batch_refused(self, batch: core.Batch, tag: Callable[[core.BatchEvent], None], error: int) -> None:
        """See `BatchOwner.batch_refused`: cancel the call, which would stay live otherwise."""
        text = "the core refused a batch on %s with error %d; the call is cancelled"
        _log.error(text, self.method, error, extra=log_fields(self))
        self._cause = (grpc.StatusCode.INTERNAL, INTERNAL_ERROR)
        self.core_call.cancel()
        self._live.loop.call_soon(partial(tag, core.RefusedBatch(batch)))

    def _run_handler(self, handler: Callable[..., object], *arguments: object) -> None:
        try:
            handler(*arguments)
        except Exception:  # noqa: BLE001  the caller gets a status, but not the cause
            self._handler_failed()

    def _handler_failed(self) -> None:
        _log.exception("the handler of %s failed", self.method, extra=log_fields(self))
        self.abort(grpc.StatusCode.INTERNAL, INTERNAL_ERROR)

    def _after_no_message(self, half_closed: Callable[[], None]) -> None:
        """Call ``half_closed`` unless the call proves to have ended.

        The core reports a cancelled call like a half-close, by a receive without a message, and then by the close
        event, from a thread that may be delayed. So wait a little, and then for the events that are ready by then.
        """
        loop = self._live.loop
        loop.call_at(loop.now() + _CLOSE_FOLLOWS_S, partial(loop.call_after_queued, half_closed))

    def _receive_failed(self) -> None:
        """Note that the core rejected a message; it answers by itself, and the close event follows."""
        self._cause = _OVERSIZE

    def _terminate(self) -> None:
        """End the call without an answer; the caller holds the claim."""
        self.ended_at = self._live.loop.now()
        code, details = self._cause or self._live.ends.cause(self, self.ended_at)
        notify_finished(self.finishers, self, code, details)
        self._terminated = True
        self._run_callbacks()

    def _run_callbacks(self) -> None:
        """Run the remaining callbacks in order; `list.pop` gives each to one thread only."""
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:  # another thread was faster
                return
            try:
                callback()
            except Exception:  # noqa: BLE001  the other callbacks must run too
                _log.exception("a callback at the end of %s failed", self.method, extra=log_fields(self))

    def _retire(self) -> None:
        """Remove the call from the live calls: no more events will come."""
        del self._live.calls[self]
        if self.message_bytes > 0:
            self._live.held_bytes -= self.message_bytes
        if self.is_inflight:
            self._live.inflight_unary -= 1
        # Handlers and listeners refer to their call: breaking the cycles frees it at once.
        self._callbacks.clear()
        if self.on_retired is not None:
            self.on_retired()
            self.on_retired = None
