"""The live calls of a server: their shared state, the memory that they hold, and the limits on their messages."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import grpc

from inferd.rpc.call_ends import (
    Ends,
    RejectionCause,
    StatusOf,
    bare_status,
    compressed,
    message_too_large,
    not_inflatable,
)
from inferd.rpc.core import SentMetadata
from inferd.rpc.inflating import ALGORITHMS, InflateError, Inflater
from inferd.rpc.interfaces import Finisher
from inferd.rpc.poll_loop import PollLoop
from inferd.rpc.refusals import Refusals

#: Maximum message size after `Call.expect_small_message`.
SMALL_MESSAGE_BYTES = 4096

#: The size of a call's message before the first one is complete.
UNREAD = -1


class LiveCall(ABC):
    """A call as `LiveCalls` sees it; ``ended_at`` is infinite until it has ended."""

    __slots__ = ()

    #: The check of messages before they are delivered.
    check: "MessageCheck"
    started_at: float
    ended_at: float
    #: True if the call takes one message, not a stream.
    has_single_message: bool

    @abstractmethod
    def cancel(self) -> None:
        """End the call as if the caller had cancelled it; any thread."""

    @abstractmethod
    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: SentMetadata = ()) -> bool:
        """See `UnaryCall.abort`."""

    @abstractmethod
    def pace(self, refuse: Callable[[], object]) -> None:
        """End the call by ``refuse`` on the poll thread, now or later; see `Refusals`."""


class LiveCalls:
    """The calls of a server with events still to come from the core, and their shared state.

    The server may be freed only when there are none. Changes on the poll thread only; ``count`` and ``held_bytes``
    may be read in any.
    """

    def __init__(
        self,
        loop: PollLoop,
        finishers: tuple[Finisher, ...] = (),
        *,
        status_of: StatusOf = bare_status,
        inflater: Inflater | None = None,
        ends: Ends | None = None,
    ) -> None:
        self.loop = loop
        #: Notified of the end of each call, the first one first.
        self.finishers = finishers
        self.ends = Ends() if ends is None else ends
        #: The oldest call first, each with the size of its latest message, which counts as held while the call is live
        #: or until the next message.
        self.calls: dict[LiveCall, int] = {}
        #: The sum of these sizes.
        self.held_bytes = 0
        #: Live calls that a unary handler serves.
        self.inflight_unary = 0
        #: Whether calls are rejected before their message is read.
        self.is_short_of_memory = False
        #: Called for the next new call; set while no timer checks the live calls.
        self.on_call: Callable[[], None] | None = None
        self._status_of = status_of
        self.refusals = Refusals(loop)
        #: None if compressed messages are rejected.
        self.inflater = inflater
        #: The check of ordinary calls' messages, which those that are not compressed pass; and of those that must be
        #: small.
        self.check = MessageCheck(self, inflater, max_bytes=None)
        self.small_check = MessageCheck(self, inflater, max_bytes=SMALL_MESSAGE_BYTES)

    @property
    def count(self) -> int:
        """The number of live calls."""
        return len(self.calls)

    def hold(self, call: LiveCall, size: int) -> None:
        """Count ``size`` bytes as the latest message of ``call``."""
        self.held_bytes += size - max(self.calls[call], 0)
        self.calls[call] = size

    def reject(self, call: LiveCall, cause: RejectionCause) -> None:
        """End ``call`` without serving it; later, if this is the caller's fault and not an overload."""
        if cause.retry_after_s is None:
            call.pace(partial(self._reject, call, cause))
        else:
            self._reject(call, cause)

    def _reject(self, call: LiveCall, cause: RejectionCause) -> None:
        rejection = self._status_of(cause)
        if call.abort(rejection.code, rejection.details, rejection.trailing_metadata):
            self.refusals.counts[cause.reason] += 1


class MessageCheck:
    """Checks a message before it is delivered: its size, and inflation if it is compressed.

    Immutable; shared by all calls with the same limits. On the poll thread only.
    """

    def __init__(self, live: LiveCalls, inflater: Inflater | None, *, max_bytes: int | None) -> None:
        self._live = live
        self._inflater = inflater
        self._max_bytes = max_bytes

    def deliver(self, call: LiveCall, message: bytes, deliver: Callable[[bytes], None]) -> None:
        """Call ``deliver`` with ``message``, inflated if it is compressed, at once or later; or reject ``call``."""
        if not self._fits(call, message):
            return
        algorithm = ALGORITHMS.get(message[:2])
        if algorithm is None:
            deliver(message)
        elif self._inflater is None:
            self._live.reject(call, compressed(algorithm))
        else:
            self._inflater.inflate(message, partial(self._inflated, call, deliver), algorithm)

    def _inflated(self, call: LiveCall, deliver: Callable[[bytes], None], outcome: bytes | InflateError) -> None:
        if isinstance(outcome, InflateError):
            self._live.reject(call, not_inflatable(str(outcome)))
        elif self._fits(call, outcome) and call in self._live.calls:
            self._live.hold(call, len(outcome))
            deliver(outcome)

    def _fits(self, call: LiveCall, message: bytes) -> bool:
        if self._max_bytes is None or len(message) <= self._max_bytes:
            return True
        self._live.reject(call, message_too_large(len(message), self._max_bytes))
        return False
