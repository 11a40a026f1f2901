"""One request and its answer, as the http thread sees them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aiohttp import StreamReader

from inferd.http.calls import HttpCall
from inferd.http.connections import Connection
from inferd.http.messages import HttpMessage
from inferd.http.refusals import Refusal
from inferd.http.requests import Head
from inferd.http.status import Answer
from inferd.http.stream_writer import StreamWriter
from inferd.http.streamed_answer import StreamedAnswer
from inferd.rpc.accept import Entrance
from inferd.rpc.call_ends import CANCELLED, EXPIRED
from inferd.rpc.core import CheckedMetadata

if TYPE_CHECKING:
    from inferd.http.hand_over import HandOver


class BodyNotWantedError(Exception):
    """Raised where a body is read whose call has ended meanwhile."""


class Exchange:
    """Connects a request on its connection with its call.

    Invariants: ``call`` is used on the poll thread only. ``head.refusal`` and ``message`` are set by the http thread
    before it submits what reads them. One of ``answer`` and ``stream`` is set once, after ``added``; both only if
    another thread ends the call while its stream begins.

    Threads: ``begin`` to ``end_stream`` the poll thread; ``auth_context``, ``end`` and ``hang_up`` any; the rest the
    http thread.
    """

    __slots__ = (
        "_connection",
        "_entrance",
        "_hand_over",
        "added",
        "answer",
        "call",
        "head",
        "message",
        "reading",
        "stream",
        "timer",
        "waiter",
        "writer",
    )

    def __init__(self, head: Head, connection: Connection, hand_over: "HandOver", entrance: Entrance) -> None:
        self.head = head
        self._connection = connection
        self._hand_over = hand_over
        self._entrance = entrance
        #: Done by `wake`.
        self.waiter: asyncio.Future[None] | None = None
        self.message: HttpMessage | None = None
        #: The body while it is read.
        self.reading: StreamReader | None = None
        self.call: HttpCall | None = None
        #: Metadata that the answer has besides its own headers.
        self.added: CheckedMetadata = None
        self.answer: Answer | None = None
        #: An answer that is sent bit by bit, and what writes it once its head is to be sent.
        self.stream: StreamedAnswer | None = None
        self.writer: StreamWriter | None = None
        #: For the deadline.
        self.timer: asyncio.TimerHandle | None = None

    # -- on the poll thread

    def begin(self) -> None:
        """Make the call."""
        self.call = HttpCall(self, self._entrance)
        self.call.begin()

    def read_body(self) -> None:
        """Let the body be read, and the call served with it."""
        self._hand_over.answered(self)

    def serve(self) -> None:
        """Serve the call with the body that was read."""
        assert self.call is not None, "begun"
        if self.head.refusal is not None:
            self.call.refuse(self.head.refusal)
        else:
            self.call.serve()

    def expire(self) -> None:
        """End the call, whose deadline has passed; one that has not begun is found to be late then."""
        if self.call is not None:
            self.call.terminate(EXPIRED)

    def lose_caller(self) -> None:
        """End the call, as its caller is gone."""
        if self.call is not None:
            self.call.terminate(CANCELLED)
            self.release()

    def release(self) -> None:
        """Let the call live no longer, as its answer is written."""
        if self.call is not None:
            self.call.release()
        # Both have each other, and the garbage collector is rare: bodies would fill the memory until then.
        self.call = self.message = None

    def begin_stream(self, stream: StreamedAnswer, added: CheckedMetadata) -> None:
        """Send ``stream`` as the answer, its head with its first part; called once."""
        self.added = added
        self.stream = stream

    def send(self, part: bytes) -> None:
        """Send ``part`` of the stream."""
        assert self.stream is not None, "begun"
        if self.stream.put(part):
            self._hand_over.answered(self)

    def end_stream(self, last: bytes) -> None:
        """Send the ``last`` part of the stream."""
        assert self.stream is not None, "begun"
        if self.stream.end(last):
            self._hand_over.answered(self)

    # -- in any thread

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return the properties of the authenticated peer."""
        return self._connection.peer.auth_context()

    def end(self, answer: Answer, added: CheckedMetadata) -> None:
        """Send ``answer``, or the end of a stream that was begun; called once."""
        if self.stream is not None:
            self.end_stream(self.stream.error_part(answer.body))
            return
        self.added = added
        self.answer = answer
        self._hand_over.answered(self)

    def hang_up(self) -> None:
        """Close the connection."""
        self._hand_over.on_http_thread(self._connection.hang_up)

    # -- on the http thread

    def wake(self) -> None:
        """See `Waiter.wake`: go on, whether waiting for the poll thread or for more of the body."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        elif self.writer is not None:
            self.writer.pump()
        elif self.reading is not None:
            self.reading.set_exception(BodyNotWantedError())

    def answer_without_call(self, refusal: Refusal) -> None:
        """Answer although there is no call, and no poll thread any more."""
        if self.answer is None and self.stream is None:
            self.answer = refusal.answer(self.head.error_form)
            self.wake()

    def stop_timer(self) -> None:
        """Watch the deadline no longer."""
        if self.timer is not None:
            self.timer.cancel()
