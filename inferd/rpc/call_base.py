"""What both kinds of call have in common: who calls, and the way to the end."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import grpc

from inferd.call_facts import CallFacts
from inferd.peer import readable
from inferd.request_id import log_fields
from inferd.rpc import core, cut_off, refusals
from inferd.rpc.calls import Finisher
from inferd.rpc.inflating import GZIP, InflateError
from inferd.rpc.interceptors import tell_finished
from inferd.rpc.live_calls import LiveCalls
from inferd.rpc.metadata import CheckedMetadata, Metadata, checked

_log = logging.getLogger("inferd.rpc")

INTERNAL_ERROR = "internal error"
MISSING_MESSAGE = "expected one request message, got none"

#: The event for the end of a call comes at most about this long after the one for no message.
_END_FOLLOWS_S = 0.002

#: What is told of a call's end to those who ask for it too late.
_ENDED_BEFORE = (grpc.StatusCode.CANCELLED, "the call had ended")

#: What a call that `Call.expect_small_message` was called on may bring.
SMALL_MESSAGE_BYTES = 4096

#: The size of a message that is not here yet.
UNREAD = -1

_OVERSIZE = (grpc.StatusCode.RESOURCE_EXHAUSTED, "a message was larger than the limit or could not be unpacked")


class CallBase(ABC):
    """One call of the core.

    Invariants: exactly one of all answers and terminations claims the end of the call. Who does tells the
    interceptors. ``_due`` counts the events that are still to arrive, among them the one for the status, which is due
    from the start and is struck off if the call ends without an answer. At zero the call is no longer live.

    Threads: the events come on the poll thread; answers may come in any.
    """

    __slots__ = (
        "_callbacks",
        "_cause",
        "_core",
        "_due",
        "_live",
        "_terminated",
        "_trailing",
        "annotations",
        "deadline",
        "ended_at",
        "examines_messages",
        "expects_small_message",
        "facts",
        "finishers",
        "message_bytes",
        "metadata",
        "method",
        "on_retired",
        "raw_peer",
        "started_at",
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
        self._core = core_call
        self._live = live
        self._callbacks: list[Callable[[], None]] = []
        self._cause: tuple[grpc.StatusCode, str] | None = None
        self._due = 2
        # The core forgets it with the end of the call.
        self.raw_peer = core_call.peer()
        self._terminated = False
        #: What was added to the handler's own trailing metadata.
        self._trailing: CheckedMetadata = None
        self.method = method
        self.metadata = metadata
        self.deadline = deadline
        self.started_at = started_at
        self.ended_at = math.inf
        self.facts = CallFacts()
        self.annotations: dict[str, object] = {}
        self.finishers = live.interceptors.all_finishers
        #: The size of the latest message, which is held for as long as the call is live or until the next one comes.
        self.message_bytes = UNREAD
        self.expects_small_message = False
        #: Whether messages go through `_examine` first.
        self.examines_messages = live.inflater is not None
        #: Called on the poll thread when the call is no longer live, however it ended.
        self.on_retired: Callable[[], None] | None = None

    @property
    def peer(self) -> str:
        """See `Call.peer`."""
        return readable(self.raw_peer)

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """See `Call.auth_context`."""
        return core.auth_context(self._core)

    def peer_identities(self) -> Sequence[bytes] | None:
        """Return the caller's proven names, or None."""
        return core.peer_identities(self._core)

    def peer_identity_key(self) -> str | None:
        """Return which property of the auth context holds the identities, or None."""
        return core.peer_identity_key(self._core)

    def cancel(self) -> None:
        """End the call from this side as if the caller had cancelled it; any thread."""
        self._cause = cut_off.CANCELLED_HERE
        self._core.cancel()

    def add_trailing_metadata(self, pairs: Metadata) -> None:
        """See `Call.add_trailing_metadata`."""
        added = checked(pairs)
        if added is not None:
            self._trailing = (*(self._trailing or ()), *added)

    def expect_small_message(self) -> None:
        """See `Call.expect_small_message`."""
        self.expects_small_message = self.examines_messages = True

    @property
    @abstractmethod
    def has_single_message(self) -> bool:
        """Whether one message is expected and not any number of them."""

    def on_terminated(self, callback: Callable[[], None]) -> None:
        """See `Call.on_terminated`."""
        self._callbacks.append(callback)
        if self._terminated:
            self._run_callbacks()

    def watch(self) -> None:
        """Have the end of the call told; once, at its start."""
        live = self._live
        live.calls[self] = None
        if live.on_call is not None:
            live.on_call()
        if live.ends.ages is not None:
            live.ends.ages.note(self.raw_peer, self.started_at)
        live.loop.start_later(self, core.receive_close(), self._on_close)

    def on_finished(self, finisher: Finisher) -> None:
        """See `Call.on_finished`."""
        if not self._tell_also(finisher):
            # How it has ended is not known any more.
            finisher(self, *_ENDED_BEFORE)

    @abstractmethod
    def _tell_also(self, finisher: Finisher) -> bool:
        """Have ``finisher`` told of the end before the others. Returns False if the call has ended."""

    @abstractmethod
    def _on_close(self, event: core.BatchEvent) -> None:
        """The call has ended."""

    @abstractmethod
    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata = ()) -> bool:
        """See `UnaryCall.abort`."""

    @abstractmethod
    def _deliver(self, message: bytes) -> None:
        """Give ``message`` to the handler; on the poll thread."""

    @abstractmethod
    def _settle(self) -> None:
        """One event less is due."""

    def _examine(self, message: bytes) -> None:
        """Deliver ``message`` if it is as it may be, inflated if it was compressed; else refuse the call."""
        if not self._fits(message):
            return
        if self._live.inflater is not None and message.startswith(GZIP):
            self._live.inflater.inflate(message, self._inflated)
        else:
            self._deliver(message)

    def _inflated(self, outcome: bytes | InflateError) -> None:
        if isinstance(outcome, InflateError):
            self._live.refuse(self, refusals.not_inflatable(str(outcome)))
        elif self._fits(outcome) and self in self._live.calls:
            self._live.held_bytes += len(outcome) - self.message_bytes
            self.message_bytes = len(outcome)
            self._deliver(outcome)

    def _fits(self, message: bytes) -> bool:
        """Whether ``message`` is as small as it may have to be; if not, the call is refused."""
        if not self.expects_small_message or len(message) <= SMALL_MESSAGE_BYTES:
            return True
        self._live.refuse(self, refusals.message_too_large(len(message), SMALL_MESSAGE_BYTES))
        return False

    def _checked(self, metadata: Metadata) -> CheckedMetadata:
        """Check ``metadata``; what is illegal ends the call, as its caller would wait in vain otherwise."""
        if not metadata:
            return None
        try:
            return checked(metadata)
        except ValueError:
            self.abort(grpc.StatusCode.INTERNAL, INTERNAL_ERROR)
            raise

    def _start(self, batch: core.Batch, tag: Callable[[core.BatchEvent], None]) -> None:
        loop = self._live.loop
        if loop.in_poll_thread:
            loop.start_later(self, batch, tag)
        else:
            self.start_now(batch, tag)

    def start_now(self, batch: core.Batch, tag: Callable[[core.BatchEvent], None]) -> None:
        """See `Starter.start_now`."""
        error = self._core.start_server_batch(batch, tag)
        if error:
            # The core will say nothing more of this batch, so that the call would stay live for ever.
            text = "the core refused a batch on %s with error %d; the call is cancelled"
            _log.error(text, self.method, error, extra=log_fields(self))
            self._cause = (grpc.StatusCode.INTERNAL, INTERNAL_ERROR)
            self._core.cancel()
            self._live.loop.call_soon(partial(tag, core.RefusedBatch(batch)))

    def _run_handler(self, handler: Callable[..., object], *arguments: object) -> None:
        try:
            handler(*arguments)
        except Exception:  # noqa: BLE001  the caller must hear something, but not what
            self._handler_failed()

    def _handler_failed(self) -> None:
        _log.exception("the handler of %s failed", self.method, extra=log_fields(self))
        self.abort(grpc.StatusCode.INTERNAL, INTERNAL_ERROR)

    def _without_message(self, half_closed: Callable[[], None]) -> None:
        """No message came: call ``half_closed`` unless it turns out that the call has ended.

        The core tells a cancel, too, first by no message and then by the end, from a thread that may have to wait for
        a processor in between. So give it the time, and then let what is ready by then go first.
        """
        loop = self._live.loop
        loop.call_at(loop.now() + _END_FOLLOWS_S, partial(loop.call_after_queued, half_closed))

    def _receive_failed(self) -> None:
        """The core has refused a message and answers by itself; the end of the call follows."""
        self._cause = _OVERSIZE

    def _terminate(self) -> None:
        """The call has ended without our answer, and we hold the claim."""
        self.ended_at = self._live.loop.now()
        code, details = self._cause or self._live.ends.cause(self, self.ended_at)
        tell_finished(self.finishers, self, code, details)
        self._terminated = True
        self._run_callbacks()

    def _run_callbacks(self) -> None:
        """Run those that are left, in their order; `list.pop` gives each to one thread only."""
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:  # another thread was faster
                return
            try:
                callback()
            except Exception:  # noqa: BLE001  the others must hear of it too
                _log.exception("a callback at the end of %s failed", self.method, extra=log_fields(self))

    def _retire(self) -> None:
        del self._live.calls[self]
        if self.message_bytes > 0:
            self._live.held_bytes -= self.message_bytes
        # Handlers and listeners refer to their call: without these cycles it is freed at once.
        self._callbacks.clear()
        if self.on_retired is not None:
            self.on_retired()
            self.on_retired = None
