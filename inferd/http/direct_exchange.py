"""One request that is served directly, on the http thread."""

from collections.abc import Callable
from functools import partial

from inferd.http.calls import on_disconnect, release_call
from inferd.http.direct import DirectConnection
from inferd.http.exchange import Exchange
from inferd.http.hand_over import HandOver
from inferd.http.requests import Head
from inferd.http.responses import answer_bytes
from inferd.http.status import STREAM_STATUS, Answer
from inferd.http.streaming import CHUNKED, StreamedAnswer, StreamWriter, in_chunks


class DirectExchange(Exchange):
    """An exchange whose answer is written at once, without a coroutine. ``done`` is called at its end."""

    __slots__ = ("_direct", "_done")

    def __init__(
        self,
        head: Head,
        connection: DirectConnection,
        hand_over: HandOver,
        done: Callable[["DirectExchange"], None],
    ) -> None:
        super().__init__(head, connection, hand_over)
        self._direct = connection
        self._done = done

    def wake(self) -> None:
        """See `Waiter.wake`: write the answer, or more of a stream."""
        answer = self.answer
        if answer is None or self.writer is not None:
            self._pump()
            return
        connection = self._direct
        is_last = connection.is_ending
        connection.answer(answer_bytes(answer, self.trailing, is_last=is_last), answer.rest, is_last=is_last)

    def _pump(self) -> None:
        writer = self.writer
        if writer is None:
            assert self.stream is not None, "its body is complete"
            writer = self.writer = self._writer_of(self.stream)
        writer.pump()

    def _writer_of(self, stream: StreamedAnswer) -> StreamWriter:
        connection = self._direct
        is_last = connection.is_ending
        head = answer_bytes(Answer(STREAM_STATUS, stream.head + CHUNKED, b""), self.trailing, is_last=is_last)
        done = partial(connection.end_request, is_last=is_last)
        return StreamWriter(connection, stream, head, self._hand_over.submit, done, frame=in_chunks)

    def written(self) -> None:
        """See `InProgress.written`."""
        self._end()
        self._hand_over.submit_late(partial(release_call, self))

    def lost(self) -> None:
        """See `InProgress.lost`."""
        self._end()
        self._hand_over.submit(partial(on_disconnect, self))

    def _end(self) -> None:
        self.stop_timer()
        self._done(self)
