"""One request that is served directly, as the http thread sees it."""

from collections.abc import Callable
from functools import partial

from inferd.http.direct import DirectConnection
from inferd.http.exchange import Exchange
from inferd.http.hand_over import HandOver
from inferd.http.requests import Head
from inferd.http.responses import encoded
from inferd.http.status import STREAM_STATUS, Answer
from inferd.http.stream_writer import CHUNKED, StreamWriter, in_chunks
from inferd.http.streamed_answer import StreamedAnswer
from inferd.rpc.accept import Entrance


class DirectExchange(Exchange):
    """An exchange whose answer is written at once, on the http thread. ``done`` is called when it needs no more."""

    __slots__ = ("_direct", "_done")

    def __init__(
        self,
        head: Head,
        connection: DirectConnection,
        hand_over: HandOver,
        entrance: Entrance,
        done: Callable[["DirectExchange"], None],
    ) -> None:
        super().__init__(head, connection, hand_over, entrance)
        self._direct = connection
        self._done = done

    def wake(self) -> None:
        """Write the answer, or what there is of it."""
        answer = self.answer
        if answer is None or self.writer is not None:
            self._pump()
            return
        connection = self._direct
        is_last = connection.is_ending
        connection.answer(encoded(answer, self.added, is_last=is_last), answer.rest, is_last=is_last)

    def _pump(self) -> None:
        writer = self.writer
        if writer is None:
            assert self.stream is not None, "its body is complete"
            writer = self.writer = self._writer_of(self.stream)
        writer.pump()

    def _writer_of(self, stream: StreamedAnswer) -> StreamWriter:
        connection = self._direct
        is_last = connection.is_ending
        head = encoded(Answer(STREAM_STATUS, stream.head + CHUNKED, b""), self.added, is_last=is_last)
        done = partial(connection.answered, is_last=is_last)
        return StreamWriter(connection, stream, head, self._hand_over.submit, done, frame=in_chunks)

    def written(self) -> None:
        """See `InProgress.written`."""
        self._end()
        self._hand_over.submit_late(self.release)

    def lost(self) -> None:
        """See `InProgress.lost`."""
        self._end()
        self._hand_over.submit(self.lose_caller)

    def _end(self) -> None:
        self.stop_timer()
        self._done(self)
