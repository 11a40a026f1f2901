"""Streams of inference requests: the part that is the same in all protocols.

A stream is a `RequestStream` from its first message to its status. Messages, half-close and termination arrive on the
poll thread; outcomes on the thread that settles the reply. One lock per stream guards their shared state, held only
for bookkeeping and for passing messages to the call, which never blocks. Invariants: a request is in ``_open`` from
its submission until its outcome is among the responses; the status is sent once, after the last response.

While other requests of the stream are open, responses are collected and the poll thread sends them together, so that
the responses of a batch share a message or at least a wake-up. The response to the last open request is sent at once.

The requests of a message are submitted in slices; the poll thread serves other calls in between. Another thread
decodes a request that takes long, and the stream continues after that.
"""

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Generic, Self

from inferd.api.admission import charge, charge_invalid, find_model
from inferd.api.codec import RAW, Response, WireRequest
from inferd.api.handler_resources import DRAINING, HandlerResources
from inferd.api.model_waits import Waited
from inferd.api.request_decoder import LARGE_BYTES, IncomingRequest, RequestDecoder
from inferd.api.status import finish
from inferd.api.stream_request import ColdRequest, Countdown, StreamRequest
from inferd.api.tensors import take_long_to_encode
from inferd.batching.queued import Principal
from inferd.batching.request import InferenceRequest, InferenceResult, Outcome, Reply
from inferd.call_context import log_fields, request_id_of
from inferd.errors import (
    ColdModelError,
    InferenceFailedError,
    InvalidInputError,
    ModelUnavailableError,
    ServingError,
)
from inferd.models.version import ModelVersion
from inferd.observability.stream_results import result_listeners
from inferd.observability.timing import Stages
from inferd.rpc import StreamCall
from inferd.security.authorization.quota import Quota

_log = logging.getLogger(__name__)

#: Requests per slice; about 2 ms for requests that match a cached template.
_SLICE_REQUESTS = 64


class RequestStream(ABC, Generic[WireRequest]):
    """One stream of inference requests; the listener of its call."""

    #: Path from a message to the fields of its requests, for errors.
    _path_to_requests = ""

    def __init__(self, call: StreamCall, decoder: RequestDecoder[WireRequest], resources: HandlerResources) -> None:
        self._call = call
        self._decoder = decoder
        self._resources = resources
        self._listeners = result_listeners(call)
        self._call_id = request_id_of(call.context)
        self._lock = threading.Lock()
        self._open: set[StreamRequest[WireRequest]] = set()
        #: Requests of the current message that are not open yet, and what to call when one of them is released.
        self._pending: deque[bytes] = deque()
        self._on_released: Callable[[], None] = call.read
        self._flush_due = False
        self._half_closed = False
        self._draining = False
        self._counts = {"requests": 0, "messages_in": 0, "messages_out": 0}

    @abstractmethod
    def _split(self, message: bytes) -> Sequence[bytes]:
        """Return the requests in ``message``, at least one. Raises `ServingError`, which ends the stream."""

    @abstractmethod
    def _opened(self, request: StreamRequest[WireRequest]) -> None:
        """Record a new request, with the lock held."""

    @abstractmethod
    def _collect(self, request: StreamRequest[WireRequest], outcome: bytes | ServingError) -> ServingError | None:
        """Add the outcome of ``request``, an encoded response or an error, to those to send; with the lock held.

        Returns an error if it is to end the stream.
        """

    @abstractmethod
    def _take_messages(self) -> Sequence[bytes]:
        """Take the messages that can be sent now, with the lock held."""

    def open(self) -> Self:
        """Add the new stream to the open ones and read its first message."""
        self._resources.streams.add(self)
        if self._call.context.principal is not None:
            # For authentication, which ends the stream when its credential expires or is revoked.
            self._call.annotations["end_stream"] = self.end
        self._call.read()
        return self

    def on_message(self, message: bytes) -> None:
        """Submit the requests in ``message``; read the next message when all of them have been released."""
        received_at = monotonic()
        try:
            contents = self._split(message)
        except ServingError as error:
            self.end(charge_invalid(self._call, error))
            return
        self._count("messages_in", 1)
        self._count("requests", len(contents))
        self._on_released = self._call.read if len(contents) == 1 else Countdown(len(contents), self._call.read)
        with self._lock:
            self._pending.extend(contents)
        self._submit_slice(received_at)

    def _submit_slice(self, received_at: float) -> None:
        """Submit requests of the current message as long as decoding takes little time, and schedule the rest."""
        requests: list[StreamRequest[WireRequest]] = []
        parsed_bytes = 0
        while (content := self._next_pending()) is not None and len(requests) < _SLICE_REQUESTS:
            incoming = self._decoder.match(content)
            if incoming is None:
                parsed_bytes += len(content)
                if parsed_bytes > LARGE_BYTES:
                    break
                incoming = self._parse(content)
                if incoming is None:
                    return
            requests.append(self._open_next(incoming, received_at))
            if requests[-1].cold is not None:
                break
        self._submit(requests)
        if requests and requests[-1].cold is not None:
            self._wait(requests[-1], requests[-1].cold)
        elif content is not None and parsed_bytes > LARGE_BYTES:
            self._resources.large_messages.do(partial(self._decode_large, content, received_at))
        elif content is not None:
            self._resources.call_soon(partial(self._submit_slice, received_at))

    def _next_pending(self) -> bytes | None:
        with self._lock:
            return self._pending[0] if self._pending else None

    def _decode_large(self, content: bytes, received_at: float) -> None:
        """Decode the next request in the thread for large messages; the poll thread then submits it and the rest."""
        incoming = self._parse(content)
        if incoming is not None:
            request = self._open_next(incoming, received_at)
            self._resources.call_soon(partial(self._continue, request, received_at))

    def _continue(self, request: StreamRequest[WireRequest], received_at: float) -> None:
        """Continue with the current message after ``request``; on the poll thread."""
        if request.cold is not None:
            self._wait(request, request.cold)
            return
        self._submit([request])
        self._submit_slice(received_at)

    def _parse(self, content: bytes) -> IncomingRequest[WireRequest] | None:
        """Parse a request. One that cannot be parsed has no id to be answered by, so it ends the stream."""
        try:
            return self._decoder.parse(content)
        except ServingError as error:
            if error.field:
                error.field = self._path_to_requests + error.field
            self.end(charge_invalid(self._call, error))
        except Exception:  # noqa: BLE001  (the thread must go on, and the stream must end)
            self._log_exception("could not parse a request of %s")
            self.end(InferenceFailedError())
        return None

    def _open_next(self, incoming: IncomingRequest[WireRequest], received_at: float) -> StreamRequest[WireRequest]:
        """Open the first pending request and validate it; settle it if it is rejected. Any thread."""
        request = StreamRequest(incoming)
        with self._lock:
            if not self._pending:
                return request  # the stream has ended
            self._pending.popleft()
            self._open.add(request)
            self._opened(request)
        self._prepare(request, Reply(partial(self._settle, request), self._on_released, self._call_id), received_at)
        return request

    def _prepare(
        self, request: StreamRequest[WireRequest], reply: Reply, received_at: float, waited: Waited | None = None
    ) -> None:
        """Look up the model of ``request`` and build what to submit, or settle it if it is rejected. Any thread.

        If the model is cold, the request is too. ``waited`` is for one that has waited for it.
        """
        if self._draining:
            reply.deliver(ModelUnavailableError(DRAINING))
            return
        try:
            if self._listeners:
                request.stages = Stages(decoding_at=monotonic())
            incoming = request.incoming
            model, request.grant = find_model(self._resources.registry, self._call, incoming.name, incoming.version)
            request.model, request.inference = model, self._build(request, model, reply, received_at)
            if request.stages is not None:
                request.stages.decoded_at = monotonic()
            if waited is not None:
                request.mark_waited(waited.load_s)
        except ColdModelError as error:
            request.cold = ColdRequest(error, reply, waited or Waited(received_at))
        except ServingError as error:
            if isinstance(error, InvalidInputError):
                self._decoder.set_field(request.incoming, error)
            reply.deliver(charge_invalid(self._call, error))
        except Exception:  # noqa: BLE001  (a bug that one request triggers must not end the stream for the others)
            self._log_exception("could not decode a request of %s")
            reply.deliver(InferenceFailedError())

    def _build(
        self, request: StreamRequest[WireRequest], model: ModelVersion, reply: Reply, received_at: float
    ) -> InferenceRequest | None:
        """Return what to submit for ``request``; None if it has a way of its own to begin. Any thread."""
        built = self._decoder.build(request.incoming, model, reply, received_at, self._call.deadline)
        if self._call.context.principal is not None:
            built.principal = Principal(self._call.context.principal)
        return built

    def _wait(self, request: StreamRequest[WireRequest], cold: ColdRequest) -> None:
        """Continue with ``request`` and the rest of its message when its model is loaded; on the poll thread."""
        request.cold = None

        def fail(error: ServingError) -> None:
            cold.reply.deliver(error)
            self._resources.call_soon(partial(self._submit_slice, cold.waited.received_at))

        request.withdraw = self._resources.waits.add(
            self._call,
            cold.error,
            cold.waited,
            timeout_s=self._decoder.timeout_s(request.incoming.message),
            go_on=partial(self._resume, request, cold.reply),
            fail=fail,
        )

    def _resume(self, request: StreamRequest[WireRequest], reply: Reply, waited: Waited) -> None:
        def prepare() -> None:
            self._prepare(request, reply, waited.received_at, waited)
            self._resources.call_soon(partial(self._continue, request, waited.received_at))

        if len(request.incoming.message) > LARGE_BYTES:
            self._resources.large_messages.do(prepare)
        else:
            prepare()

    def _submit(self, requests: Sequence[StreamRequest[WireRequest]]) -> None:
        """Submit the requests that were not rejected, consecutive ones for the same model together."""
        model: ModelVersion | None = None
        group: list[InferenceRequest] = []
        for request in requests:
            if request.begin is not None:
                request.begin()
            if request.inference is None or not self._charge(request, request.inference):
                continue
            if model is not None and request.model is not model:
                model.submit(group)
                group = []
            model = request.model
            group.append(request.inference)
        if model is not None:
            model.submit(group)

    def _charge(self, request: StreamRequest[WireRequest], built: InferenceRequest) -> bool:
        """Charge the quota of a request; on the poll thread. Returns False if it is exhausted, and settles then."""
        assert request.model is not None, "a request is built for a model"
        if request.incoming.learned is not None:
            self._decoder.cache(request.incoming)
        try:
            if request.grant is not None and (quota := charge(request.grant, request.model, built)) is not None:
                self._hold(request, quota)
        except ServingError as error:
            built.reply.deliver(error)
            return False
        return True

    def _hold(self, request: StreamRequest[WireRequest], quota: Quota) -> None:
        """Let ``request`` release ``quota`` when it is no longer open, which may be the case already."""
        with self._lock:
            request.quota = quota
            if request not in self._open:
                request.close()

    def on_half_close(self) -> None:
        """End with OK once the open requests are answered: no more will come."""
        with self._lock:
            self._half_closed = True
            self._finish_if_settled()

    def on_terminated(self) -> None:
        """Cancel the open requests: the call has ended."""
        with self._lock:
            requests = list(self._open)
            self._open.clear()
            self._pending.clear()
            for request in requests:
                request.close()
        for request in requests:
            if request.model is not None and request.inference is not None:
                request.model.cancel(request.inference)
            elif request.withdraw is not None:
                self._resources.call_soon(request.withdraw)

    def drain(self) -> None:
        """Answer the open requests, reject new ones, then end with UNAVAILABLE. Any thread."""
        with self._lock:
            self._draining = True
            self._finish_if_settled()

    def end(self, error: ServingError) -> None:
        """End the stream with the status of ``error`` and cancel its open requests. Any thread."""
        finish(self._call, self._resources.statuses, error)
        self.on_terminated()

    def _settle(self, request: StreamRequest[WireRequest], outcome: Outcome) -> None:
        as_raw = request.incoming.form is RAW
        if isinstance(outcome, InferenceResult) and take_long_to_encode(outcome.outputs.values(), as_raw=as_raw):
            self._resources.large_messages.do(partial(self._respond, request, outcome))
        else:
            self._respond(request, outcome)

    def _respond(self, request: StreamRequest[WireRequest], outcome: Outcome) -> None:
        """Encode ``outcome`` and send it, now or with others; called by the thread that settles the reply."""
        if request not in self._open:
            return
        self._conclude(
            request, outcome if isinstance(outcome, ServingError) else self._encode(request, outcome), outcome
        )

    def _conclude(
        self, request: StreamRequest[WireRequest], response: bytes | ServingError | None, outcome: Outcome | None
    ) -> None:
        """Send the last ``response`` to a request, now or with others; without one the stream ends. Any thread."""
        with self._lock:
            if request not in self._open:
                return
            self._open.discard(request)
            request.close(outcome)
            fatal = InferenceFailedError() if response is None else self._collect(request, response)
            if self._listeners:
                result = request.result(outcome, self._resources.statuses)
                for listener in self._listeners:
                    listener(self._call, result)
            if fatal is None:
                self._finish_if_settled()
                flush_later = bool(self._open or self._pending) and not self._flush_due
                self._flush_due |= flush_later
        if fatal is not None:
            self.end(fatal)
        elif flush_later:
            self._resources.call_soon(self._flush)

    def _encode(self, request: StreamRequest[WireRequest], result: InferenceResult) -> bytes | None:
        """Return the encoded response, None if that failed."""
        assert request.model is not None, "a result comes from a model"
        incoming, stages = request.incoming, request.stages
        if stages is not None:
            stages.encoding_at = monotonic()
        try:
            message = self._decoder.codec.encode(Response(request.model, incoming.request_id, incoming.form, result))
        except Exception:  # noqa: BLE001  (the worker thread must go on)
            self._log_exception("could not encode a response of %s")
            return None
        if stages is not None:
            stages.encoded_at = monotonic()
        return message

    def _flush(self) -> None:
        with self._lock:
            self._flush_due = False
            self._send_ready()

    def _finish_if_settled(self) -> None:
        if self._open or self._pending:
            return
        self._send_ready()
        if self._half_closed:
            self._call.finish()
        elif self._draining:
            finish(self._call, self._resources.statuses, ModelUnavailableError(DRAINING))

    def _send_ready(self) -> None:
        for message in self._take_messages():
            self._count("messages_out", 1)
            self._call.send(message)

    def _log_exception(self, event: str) -> None:
        _log.exception(event, self._call.method, extra=log_fields(self._call))

    def _count(self, name: str, number: int) -> None:
        """Count for the access log; each name is counted by one thread at a time."""
        self._counts[name] += number
        self._call.annotations[name] = self._counts[name]
