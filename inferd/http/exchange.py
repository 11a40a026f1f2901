"""One request and its answer on the http thread; `calls.HttpCall` is its side on the poll thread."""

import asyncio
from collections.abc import Mapping, Sequence

from aiohttp import StreamReader

from inferd.http.connections import Connection
from inferd.http.hand_over import HandOver
from inferd.http.messages import HttpMessage
from inferd.http.refusals import Refusal
from inferd.http.requests import Head
from inferd.http.status import Answer
from inferd.http.streaming import StreamedAnswer, StreamWriter
from inferd.rpc.call import CallBase
from inferd.rpc.core import CheckedMetadata


class BodyNotWantedError(Exception):
    """Raised by reading a body whose call has ended meanwhile."""


class Exchange:
    """A request on its connection, and its answer.

    Invariants: ``call`` is used on the poll thread only. ``head.refusal`` and ``message`` are set by the http thread
    before it submits the step that reads them. One of ``answer`` and ``stream`` is set once, after ``trailing``; both
    only if another thread ends the call while its stream begins.

    Threads: ``read_body`` to ``end_stream`` the poll thread; ``auth_context``, ``end`` and ``hang_up`` any; others the
    http thread.
    """

    __slots__ = (
        "_connection",
        "_hand_over",
        "answer",
        "call",
        "head",
        "message",
        "reading",
        "stream",
        "timer",
        "trailing",
        "waiter",
        "writer",
    )

    def __init__(self, head: Head, connection: Connection, hand_over: HandOver) -> None:
        self.head = head
        self._connection = connection
        self._hand_over = hand_over
        #: Set by `wake`, while the http thread waits for the poll thread.
        self.waiter: asyncio.Future[None] | None = None
        self.message: HttpMessage | None = None
        #: The body while it is read.
        self.reading: StreamReader | None = None
        self.call: CallBase | None = None
        #: Trailing metadata of the call, sent as headers.
        self.trailing: CheckedMetadata = None
        self.answer: Answer | None = None
        #: An answer that is sent in parts, and its writer from the first part on.
        self.stream: StreamedAnswer | None = None
        self.writer: StreamWriter | None = None
        #: Fires at the deadline.
        self.timer: asyncio.TimerHandle | None = None

    # -- on the poll thread

    def read_body(self) -> None:
        """Ask the http thread for the body; `serve_call` follows."""
        self._hand_over.wake(self)

    def begin_stream(self, stream: StreamedAnswer, trailing: CheckedMetadata) -> None:
        """Send ``stream`` as the answer, its head with its first part; called once."""
        self.trailing = trailing
        self.stream = stream

    def send(self, part: bytes) -> None:
        """Send ``part`` of the stream."""
        assert self.stream is not None, "begun"
        if self.stream.put(part):
            self._hand_over.wake(self)

    def end_stream(self, last: bytes) -> None:
        """Send the ``last`` part of the stream."""
        assert self.stream is not None, "begun"
        if self.stream.end(last):
            self._hand_over.wake(self)

    # -- on any thread

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return the properties of the authenticated peer."""
        return self._connection.peer.auth_context()

    def end(self, answer: Answer, trailing: CheckedMetadata) -> None:
        """Send ``answer``, or its body as the error that ends a stream; called once."""
        if self.stream is not None:
            self.end_stream(self.stream.error_part(answer.body))
            return
        self.trailing = trailing
        self.answer = answer
        self._hand_over.wake(self)

    def hang_up(self) -> None:
        """Close the connection."""
        self._hand_over.on_http_thread(self._connection.hang_up)

    # -- on the http thread

    def wake(self) -> None:
        """See `Waiter.wake`: continue `HttpCalls.handle`, write more of a stream, or stop reading the body."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        elif self.writer is not None:
            self.writer.pump()
        elif self.reading is not None:
            self.reading.set_exception(BodyNotWantedError())

    def answer_without_call(self, refusal: Refusal) -> None:
        """Answer with ``refusal``, as the poll thread has ended."""
        if self.answer is None and self.stream is None:
            self.answer = refusal.answer(self.head.error_form)
            self.wake()

    def stop_timer(self) -> None:
        """Stop watching the deadline."""
        if self.timer is not None:
            self.timer.cancel()
