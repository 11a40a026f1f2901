"""Streams of requests, whatever the protocol: what is the same for all of them.

A stream is a `RequestStream` from its first message to its status. Messages, half-close and termination come on the
poll thread; outcomes come on whichever thread settles a reply. What both touch is guarded by one lock per stream, held
only for bookkeeping and for handing messages to the call, which never blocks. Invariants: a request is in ``_open``
from its submission until its outcome is among the answers; the status is sent after the last answer, exactly once.

Answers are gathered while further requests of the stream are open and sent together from the poll thread, so that the
answers of one batch share a message or at least a wake-up; the last open one is sent at once.

The requests of a message are submitted in slices, between which the poll thread serves other calls. A request that
takes long to read is read by another thread, and its stream goes on when that is done.
"""

import logging
import threading
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from inferd import request_id
from inferd.api.access import admit, counted, find_granted, rows_not_run
from inferd.api.codec import Answer, Request
from inferd.api.errors import StatusTable
from inferd.api.large_messages import LargeMessages, takes_long_to_write
from inferd.api.reader import LARGE_BYTES, Incoming, RequestReader
from inferd.api.request_scan import MessageLimits
from inferd.api.submission import monotonic
from inferd.batching.request import FailedRunError, InferenceRequest, InferenceResult, Outcome, Reply
from inferd.errors import InferenceFailedError, InvalidInputError, ModelUnavailableError, ServingError
from inferd.models.registry import ModelRegistry
from inferd.models.version import ModelVersion
from inferd.observability.calls import StreamResult, result_listeners
from inferd.observability.timing import Stages
from inferd.rpc import StreamCall
from inferd.security.authorization.policy import Grant
from inferd.security.authorization.quota import Quota

_log = logging.getLogger(__name__)

#: Calls a function soon, on the poll thread; any thread may ask for it.
CallSoon = Callable[[Callable[[], None]], None]

_DRAINING = "the server is draining"

#: Requests that are submitted in one go; of known frames that takes about 2 ms.
_SLICE_REQUESTS = 64


class StreamItem(Generic[Request]):
    """One request of a stream.

    ``model`` and ``request`` are unset for one that never came to be submitted, ``stages`` where nobody wants them,
    ``grant`` where the caller may do anything.
    ``quota`` is what it is to be given back to when it leaves the open ones; changed with the stream's lock held.
    """

    __slots__ = ("grant", "incoming", "model", "quota", "request", "stages")

    def __init__(self, incoming: Incoming[Request]) -> None:
        self.incoming = incoming
        self.model: ModelVersion | None = None
        self.request: InferenceRequest | None = None
        self.grant: Grant | None = None
        self.stages: Stages | None = None
        self.quota: Quota | None = None

    def closed(self, outcome: Outcome | None = None) -> None:
        """It is no longer open, for want of a caller if there is no ``outcome``; called once, with the lock held."""
        if self.quota is not None:
            self.quota.release(rows_not_run(self.request, outcome))


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamParts:
    """What every stream works with."""

    registry: ModelRegistry
    statuses: StatusTable
    call_soon: CallSoon
    streams: "OpenStreams"
    large_messages: LargeMessages
    limits: MessageLimits


class RequestStream(ABC, Generic[Request]):
    """One stream of inference requests; the listener of its call."""

    #: What leads to the fields of a request in a message.
    _path_to_requests = ""

    def __init__(self, call: StreamCall, reader: RequestReader[Request], parts: StreamParts) -> None:
        self._call = call
        self._reader = reader
        self._registry = parts.registry
        self._statuses = parts.statuses
        self._call_soon = parts.call_soon
        self._listeners = result_listeners(call)
        self._known_as = request_id.of(call.facts)
        self._lock = threading.Lock()
        self._large_messages = parts.large_messages
        self._open: set[StreamItem[Request]] = set()
        #: Requests of the message at hand that are not open yet, and what is to be done when one is released.
        self._unread: deque[bytes] = deque()
        self._read_on: Callable[[], None] = call.read
        self._flush_due = False
        self._half_closed = False
        self._draining = False
        self._counts = {"requests": 0, "messages_in": 0, "messages_out": 0}

    @abstractmethod
    def _split(self, message: bytes) -> Sequence[bytes]:
        """Return the requests in ``message``, at least one, or raise `ServingError`, which ends the stream."""

    @abstractmethod
    def _opened(self, item: StreamItem[Request]) -> None:
        """Note a new request, with the lock held."""

    @abstractmethod
    def _gather(self, item: StreamItem[Request], outcome: bytes | ServingError) -> ServingError | None:
        """Add the outcome of ``item``, a result as the codec writes it, to the answers to be sent.

        With the lock held. Returns what ends the stream, if that is what it comes to.
        """

    @abstractmethod
    def _take_messages(self) -> Sequence[bytes]:
        """Take the answers that may be sent by now, as messages, with the lock held."""

    def open(self) -> None:
        """Ask for the first message."""
        if self._call.facts.principal is not None:
            # For whoever let the caller in and may find that it should no longer be.
            self._call.annotations["end_stream"] = self.end
        self._call.read()

    def on_message(self, message: bytes) -> None:
        """Submit the requests in ``message``; read on when all of them have been released."""
        received_at = monotonic()
        try:
            contents = self._split(message)
        except ServingError as error:
            self.end(counted(self._call, error))
            return
        self._count("messages_in", 1)
        self._count("requests", len(contents))
        self._read_on = self._call.read if len(contents) == 1 else _Countdown(len(contents), self._call.read)
        with self._lock:
            self._unread.extend(contents)
        self._submit_slice(received_at)

    def _submit_slice(self, received_at: float) -> None:
        """Submit requests of the message at hand, as many as are little work to read, and see to the others."""
        items: list[StreamItem[Request]] = []
        unknown_bytes = 0
        while (content := self._next_unread()) is not None and len(items) < _SLICE_REQUESTS:
            incoming = self._reader.known(content)
            if incoming is None:
                unknown_bytes += len(content)
                if unknown_bytes > LARGE_BYTES:
                    break
                incoming = self._read(content)
                if incoming is None:
                    return
            items.append(self._open_next(incoming, received_at))
        self._submit(items)
        if content is not None and unknown_bytes > LARGE_BYTES:
            self._large_messages.do(partial(self._read_large, content, received_at))
        elif content is not None:
            self._call_soon(partial(self._submit_slice, received_at))

    def _next_unread(self) -> bytes | None:
        with self._lock:
            return self._unread[0] if self._unread else None

    def _read_large(self, content: bytes, received_at: float) -> None:
        """Read the next request apart from the poll thread, which then submits it and goes on."""
        incoming = self._read(content)
        if incoming is not None:
            item = self._open_next(incoming, received_at)
            self._call_soon(partial(self._go_on, item, received_at))

    def _go_on(self, item: StreamItem[Request], received_at: float) -> None:
        self._submit([item])
        self._submit_slice(received_at)

    def _read(self, content: bytes) -> Incoming[Request] | None:
        """Read one request; what is wrong with it so that it has no name to be answered by ends the stream."""
        try:
            return self._reader.read(content)
        except ServingError as error:
            if error.field:
                error.field = self._path_to_requests + error.field
            self.end(counted(self._call, error))
        except Exception:  # noqa: BLE001  (the thread serves others, and this caller must hear something)
            _log.exception("could not read a request of %s", self._call.method, extra=self._log_fields())
            self.end(InferenceFailedError())
        return None

    def _open_next(self, incoming: Incoming[Request], received_at: float) -> StreamItem[Request]:
        """Open the first of the unread requests, check it, and settle it if it is refused."""
        item = StreamItem(incoming)
        with self._lock:
            if not self._unread:
                return item  # the stream has ended
            self._unread.popleft()
            self._open.add(item)
            self._opened(item)
        self._make_request(item, self._read_on, received_at)
        return item

    def _submit(self, items: Sequence[StreamItem[Request]]) -> None:
        """Submit what was not refused, requests to one model that follow each other together."""
        model: ModelVersion | None = None
        requests: list[InferenceRequest] = []
        for item in items:
            if item.request is None or not self._admit(item, item.request):
                continue
            if model is not None and item.model is not model:
                model.submit(requests)
                requests = []
            model = item.model
            requests.append(item.request)
        if model is not None:
            model.submit(requests)

    def on_half_close(self) -> None:
        """No more requests will come: end with OK once the open ones are answered."""
        with self._lock:
            self._half_closed = True
            self._finish_if_settled()

    def on_terminated(self) -> None:
        """Nobody is there to answer: give up on what is open."""
        with self._lock:
            items = list(self._open)
            self._open.clear()
            self._unread.clear()
            for item in items:
                item.closed()
        for item in items:
            if item.model is not None and item.request is not None:
                item.model.cancel(item.request)

    def drain(self) -> None:
        """Answer what is open, then end with UNAVAILABLE; requests that still come are refused. Any thread."""
        with self._lock:
            self._draining = True
            self._finish_if_settled()

    def end(self, error: ServingError) -> None:
        """End the whole stream with the status of ``error`` and give up on what is open. Any thread."""
        status = self._statuses.status_of(error)
        self._call.finish(status.code, status.message, status.trailing_metadata())
        self.on_terminated()

    def _make_request(self, item: StreamItem[Request], read_on: Callable[[], None], received_at: float) -> None:
        """Find out what is to be submitted for ``item``, or settle it with the error; any thread."""
        reply = Reply(partial(self._settle, item), read_on, self._known_as)
        try:
            self._prepare(item, reply, received_at)
        except ServingError as error:
            if isinstance(error, InvalidInputError):
                self._reader.locate(item.incoming, error)
            reply.deliver(counted(self._call, error))
        except Exception:  # noqa: BLE001  (one request's fault, even ours, must not end the stream for the others)
            _log.exception("could not decode a request of %s", self._call.method, extra=self._log_fields())
            reply.deliver(InferenceFailedError())

    def _prepare(self, item: StreamItem[Request], reply: Reply, received_at: float) -> None:
        if self._draining:
            raise ModelUnavailableError(_DRAINING)
        if self._listeners:
            item.stages = Stages(decoding_at=monotonic())
        model, item.grant = find_granted(self._registry, self._call, item.incoming.name, item.incoming.version)
        request = self._reader.request(item.incoming, model, reply, received_at, self._call.deadline)
        if item.stages is not None:
            item.stages.decoded_at = monotonic()
        item.model, item.request = model, request

    def _admit(self, item: StreamItem[Request], request: InferenceRequest) -> bool:
        """Count ``item`` in; on the poll thread. Returns False if it was settled because the quota has no room."""
        assert item.model is not None, "a request is made for a model"
        if item.incoming.learned is not None:
            self._reader.keep(item.incoming)
        try:
            if item.grant is not None and (quota := admit(item.grant, item.model, request)) is not None:
                self._hold(item, quota)
        except ServingError as error:
            request.reply.deliver(error)
            return False
        return True

    def _hold(self, item: StreamItem[Request], quota: Quota) -> None:
        """Give ``item`` back to ``quota`` when it is no longer open, which it may already be."""
        with self._lock:
            item.quota = quota
            if item not in self._open:
                item.closed()

    def _settle(self, item: StreamItem[Request], outcome: Outcome) -> None:
        if isinstance(outcome, InferenceResult) and takes_long_to_write(outcome, as_lists=item.incoming.wants_lists):
            self._large_messages.do(partial(self._answer, item, outcome))
        else:
            self._answer(item, outcome)

    def _answer(self, item: StreamItem[Request], outcome: Outcome) -> None:
        if item not in self._open:
            return
        answer: bytes | ServingError | None
        answer = outcome if isinstance(outcome, ServingError) else self._try_encode(item, outcome)
        with self._lock:
            if item not in self._open:
                return
            self._open.discard(item)
            item.closed(outcome)
            fatal = InferenceFailedError() if answer is None else self._gather(item, answer)
            if self._listeners:
                self._tell(item, outcome)
            if fatal is None:
                self._finish_if_settled()
                flush_later = bool(self._open or self._unread) and not self._flush_due
                self._flush_due |= flush_later
        if fatal is not None:
            self.end(fatal)
        elif flush_later:
            self._call_soon(self._flush)

    def _encode(self, item: StreamItem[Request], result: InferenceResult) -> bytes:
        assert item.model is not None, "a result comes from a model"
        incoming = item.incoming
        answer = Answer(item.model, incoming.request_id, incoming.wants_lists, result)
        if item.stages is None:
            return self._reader.codec.encode(answer)
        item.stages.encoding_at = monotonic()
        message = self._reader.codec.encode(answer)
        item.stages.encoded_at = monotonic()
        return message

    def _try_encode(self, item: StreamItem[Request], result: InferenceResult) -> bytes | None:
        try:
            return self._encode(item, result)
        except Exception:  # noqa: BLE001  (runs on a worker, which must go on)
            _log.exception("could not encode an answer of %s", self._call.method, extra=self._log_fields())
            return None

    def _flush(self) -> None:
        with self._lock:
            self._flush_due = False
            self._send_ready()

    def _finish_if_settled(self) -> None:
        if self._open or self._unread:
            return
        self._send_ready()
        if self._half_closed:
            self._call.finish()
        elif self._draining:
            status = self._statuses.status_of(ModelUnavailableError(_DRAINING))
            self._call.finish(status.code, status.message, status.trailing_metadata())

    def _send_ready(self) -> None:
        for message in self._take_messages():
            self._count("messages_out", 1)
            self._call.send(message)

    def _log_fields(self) -> dict[str, object]:
        return request_id.log_fields(self._call)

    def _count(self, name: str, number: int) -> None:
        """Count for the access log; each name is counted by one thread at a time."""
        self._counts[name] += number
        self._call.annotations[name] = self._counts[name]

    def _tell(self, item: StreamItem[Request], outcome: Outcome) -> None:
        """Tell those who want to know what a request came to; with the lock held."""
        stages = item.stages or Stages()
        status, error = "OK", ""
        if isinstance(outcome, ServingError):
            status, error = self._statuses.status_of(outcome).code.name, outcome.message
        if isinstance(outcome, InferenceResult | FailedRunError):
            stages.queue_s, stages.batch = outcome.queue_s, outcome.timing
        result = StreamResult(
            request_id=item.incoming.request_id,
            model=item.model.name if item.model else "",
            version=item.model.version if item.model else "",
            rows=item.request.rows if item.request else 0,
            status=status,
            error=error,
            stages=stages,
        )
        for listener in self._listeners:
            listener(self._call, result)


class _Countdown:
    """Calls ``action`` when it has been called ``count`` times, from any threads."""

    __slots__ = ("_action", "_count", "_lock")

    def __init__(self, count: int, action: Callable[[], None]) -> None:
        self._count = count
        self._action = action
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self._count -= 1
            last = self._count == 0
        if last:
            self._action()


class OpenStreams:
    """The streams that are open now, so that a draining server can bring them to an end. Used on the poll thread only.

    A stream belongs to its call and is forgotten with it.
    """

    def __init__(self) -> None:
        self._streams: weakref.WeakSet[RequestStream[Any]] = weakref.WeakSet()
        self._draining = False

    def add(self, stream: RequestStream[Any]) -> None:
        """Take in a new stream, which ends at once if the server is draining already."""
        self._streams.add(stream)
        if self._draining:
            stream.drain()

    def drain(self) -> None:
        """Let every stream finish what it has open and end."""
        self._draining = True
        for stream in list(self._streams):
            stream.drain()


Stream = TypeVar("Stream", bound=RequestStream[Any])


def open_stream(stream: Stream, parts: StreamParts) -> Stream:
    """Take in a new stream and ask for its first message."""
    parts.streams.add(stream)
    stream.open()
    return stream
