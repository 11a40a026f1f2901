"""Unary inference: one request in, one answer or one status out."""

import logging
import math
from functools import partial
from typing import Generic

from inferd import request_id
from inferd.api.access import admit, counted, find_granted, hold
from inferd.api.codec import Answer, Request
from inferd.api.errors import StatusTable
from inferd.api.large_messages import LargeMessages, takes_long_to_write
from inferd.api.reader import LARGE_BYTES, Incoming, RequestReader
from inferd.api.submission import monotonic
from inferd.batching.request import FailedRunError, InferenceRequest, InferenceResult, Outcome, Reply
from inferd.errors import InferenceFailedError, InvalidInputError, ServingError
from inferd.models.registry import ModelRegistry
from inferd.models.version import ModelVersion
from inferd.observability import timing
from inferd.observability.timing import Stages
from inferd.request_id import log_fields
from inferd.rpc import Call, UnaryCall
from inferd.security.authorization.policy import Grant

_log = logging.getLogger(__name__)


class UnaryInference(Generic[Request]):
    """The handler of a unary inference method; called on the poll thread.

    Everything up to the queue happens in the call to it; the answer is sent by whichever thread settles the reply.
    """

    def __init__(
        self,
        reader: RequestReader[Request],
        registry: ModelRegistry,
        statuses: StatusTable,
        large_messages: LargeMessages,
    ) -> None:
        self._reader = reader
        self._registry = registry
        self._statuses = statuses
        self._large_messages = large_messages

    def __call__(self, call: UnaryCall, message: bytes) -> None:
        """Admit the request in ``message`` or end ``call`` with the status that says why not."""
        received_at = monotonic()
        try:
            incoming = self._reader.known(message)
            if incoming is None:
                if len(message) > LARGE_BYTES:
                    self._large_messages.read(partial(self._read_large, call, message, received_at))
                    return
                incoming = self._reader.read(message)
            prepared = self._prepare(call, incoming, received_at)
        except ServingError as error:
            abort(call, self._statuses, counted(call, error))
        else:
            self._admit(call, incoming, *prepared)

    def _read_large(self, call: UnaryCall, message: bytes, received_at: float) -> None:
        """Read a message that takes long to read, apart from the poll thread, which then admits the request."""
        if call.ended_at != math.inf:
            return
        try:
            incoming = self._reader.read(message)
            prepared = self._prepare(call, incoming, received_at)
        except ServingError as error:
            abort(call, self._statuses, counted(call, error))
        except Exception:  # noqa: BLE001  (as on the poll thread: the caller must hear something, but not what)
            _log.exception("could not read a request of %s", call.method, extra=log_fields(call))
            abort(call, self._statuses, InferenceFailedError())
        else:
            self._large_messages.call_soon(partial(self._admit, call, incoming, *prepared))

    def _prepare(
        self, call: UnaryCall, incoming: Incoming[Request], received_at: float
    ) -> tuple[ModelVersion, Grant | None, InferenceRequest]:
        """Find the model of a request and check it; any thread. Raises `ServingError`."""
        if incoming.request_id:
            request_id.name_by_message(call, incoming.request_id)
        try:
            model, grant = find_granted(self._registry, call, incoming.name, incoming.version)
            answer = partial(self._answer, call, model, incoming.request_id, incoming.wants_lists)
            reply = Reply(answer, None, request_id.of(call.facts))
            return model, grant, self._reader.request(incoming, model, reply, received_at, call.deadline)
        except InvalidInputError as error:
            self._reader.locate(incoming, error)
            raise

    def _admit(
        self,
        call: UnaryCall,
        incoming: Incoming[Request],
        model: ModelVersion,
        grant: Grant | None,
        request: InferenceRequest,
    ) -> None:
        """Hand a request to its model, or end ``call`` if its quota has no room; on the poll thread."""
        if incoming.learned is not None:
            self._reader.keep(incoming)
        try:
            if grant is not None and (quota := admit(grant, model, request)) is not None:
                hold(call, quota)
        except ServingError as error:
            abort(call, self._statuses, counted(call, error))
            return
        call.facts.rows = request.rows
        if timing.KEY in call.annotations:
            stages = timing.of(call.annotations)
            stages.decoding_at, stages.decoded_at = request.received_at, monotonic()
        call.on_terminated(partial(model.cancel, request))
        model.submit((request,))

    def _answer(self, call: UnaryCall, model: ModelVersion, own_id: str, wants_lists: bool, outcome: Outcome) -> None:
        if isinstance(outcome, ServingError):
            if isinstance(outcome, FailedRunError):
                _note_run(call, outcome)
            abort(call, self._statuses, outcome)
            return
        if takes_long_to_write(outcome, as_lists=wants_lists):
            self._large_messages.do(partial(self._send, call, model, own_id, wants_lists, outcome))
        else:
            self._send(call, model, own_id, wants_lists, outcome)

    def _send(
        self, call: UnaryCall, model: ModelVersion, own_id: str, wants_lists: bool, outcome: InferenceResult
    ) -> None:
        stages = _note_run(call, outcome)
        if stages is not None:
            stages.encoding_at = monotonic()
        try:
            message = self._reader.codec.encode(Answer(model, own_id, wants_lists, outcome))
        except Exception:  # noqa: BLE001  (the worker goes on, and this caller must hear something)
            _log.exception("could not encode an answer of model %s", model.name, extra=log_fields(call))
            abort(call, self._statuses, InferenceFailedError())
            return
        if stages is not None:
            stages.encoded_at = monotonic()
        call.reply(message)


def _note_run(call: Call, ran: InferenceResult | FailedRunError) -> Stages | None:
    """Tell the interceptors when the request ran; returns where its stages are taken down, if somebody wants them."""
    call.facts.queue_s = ran.queue_s
    call.facts.batch = ran.timing
    if timing.KEY not in call.annotations:
        return None
    stages = timing.of(call.annotations)
    stages.queue_s, stages.batch = ran.queue_s, ran.timing
    return stages


def abort(call: UnaryCall, statuses: StatusTable, error: ServingError) -> None:
    """End ``call`` with the status of ``error``."""
    status = statuses.status_of(error)
    call.abort(status.code, status.message, status.trailing_metadata())
