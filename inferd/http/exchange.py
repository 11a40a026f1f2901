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
from inferd.rpc.call_ends import CANCELLED, EXPIRED
from inferd.rpc.core import CheckedMetadata
from inferd.rpc.entrance import Entrance

if TYPE_CHECKING:
    from inferd.http.hand_over import HandOver


class BodyNotWantedError(Exception):
    """Raised where a body is read whose call has ended meanwhile."""


class Exchange:
    """Connects a request on its connection with its call.

    Invariants: ``call`` is used on the poll thread only. ``head.refusal`` and ``message`` are set by the http thread
    before it submits what reads them. ``answer`` is set once, after ``added``.

    Threads: ``begin`` to ``release`` the poll thread; ``auth_context``, ``end`` and ``hang_up`` any; the rest the http
    thread.
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
        "waiter",
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

    # -- in any thread

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return the properties of the authenticated peer."""
        return self._connection.peer.auth_context()

    def end(self, answer: Answer, added: CheckedMetadata) -> None:
        """Send ``answer``; called once."""
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
        elif self.reading is not None:
            self.reading.set_exception(BodyNotWantedError())

    def answer_without_call(self, refusal: Refusal) -> None:
        """Answer although there is no call, and no poll thread any more."""
        if self.answer is None:
            self.answer = refusal.answer()
            self.wake()
