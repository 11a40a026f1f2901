"""Calls of many threads over one stream, so that those that come together travel together."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Empty, SimpleQueue

import grpc

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client.errors import out_of_time
from inferd.client.feed import Outbox
from inferd.client.messages import RequestWriter
from inferd.client.results import Result
from inferd.client.waiting import Outcome, Waiting, answer, broken

#: Opens a stream that sends what the iterator yields; iterating over it gives what comes back.
OpenStream = Callable[[Iterator[bytes]], Iterable[pb.StreamInferResponse]]

_Reply = SimpleQueue[Outcome]


class SharedStream:
    """A stream that is opened by the first call, and by the next one after it has broken. For any threads."""

    def __init__(self, open_stream: OpenStream) -> None:
        self._open_stream = open_stream
        self._lock = threading.Lock()
        self._line: _Line | None = None

    def infer(self, writer: RequestWriter, fields: Sequence[bytes], request_id: str, timeout_s: float | None) -> Result:
        """Send a request and wait for its answer, for ``timeout_s`` at most."""
        reply = self._send(writer, fields, request_id)
        try:
            outcome = reply.get(timeout=timeout_s)
        except Empty:
            raise out_of_time(timeout_s) from None
        return answer(outcome, request_id)

    def _send(self, writer: RequestWriter, fields: Sequence[bytes], request_id: str) -> _Reply:
        with self._lock:
            while self._line is None or (reply := self._line.send(writer, fields, request_id)) is None:
                self._line = _Line(self._open_stream)
            return reply


class _Line:
    """One stream, from its opening to its end.

    A thread of its own reads what comes back and wakes the calls; any thread sends. The lock is held for bookkeeping
    only. Invariant: a request that `send` took gets one outcome, at the latest when the stream ends.
    """

    def __init__(self, open_stream: OpenStream) -> None:
        self._lock = threading.Lock()
        self._waiting: Waiting[_Reply] = Waiting()
        self._outbox = Outbox()
        self._ended = False
        responses = open_stream(self._outbox.messages())
        threading.Thread(target=self._read, args=[responses], name="inferd-client-answers", daemon=True).start()

    def send(self, writer: RequestWriter, fields: Sequence[bytes], request_id: str) -> _Reply | None:
        """Send a request and return where its outcome will be; None if the stream has ended."""
        reply: _Reply = SimpleQueue()
        with self._lock:
            if self._ended:
                return None
            wire_id = self._waiting.enter(request_id, reply)
        self._outbox.put(writer.write(wire_id, fields))
        return reply

    def _read(self, responses: Iterable[pb.StreamInferResponse]) -> None:
        failure: grpc.RpcError | None = None
        try:
            for message in responses:
                for result in message.results:
                    with self._lock:
                        reply = self._waiting.leave(result.request_id)
                    if reply is not None:
                        reply.put(result)
        except grpc.RpcError as error:
            failure = error
        self._outbox.end()
        with self._lock:
            self._ended = True
            replies = self._waiting.leave_all()
        for reply in replies:
            reply.put(broken(failure))
