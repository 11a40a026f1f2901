"""Unary methods: inference, whose response a model's run brings, and queries, which are answered at once."""

import logging
import math
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import Message

from inferd.api.admission import ModelView, charge, charge_invalid, find_model, release_at_end
from inferd.api.codec import RAW, Request, Response, ResponseForm, parse_query
from inferd.api.early_refusal import EarlyRefusals
from inferd.api.large_messages import LargeMessages
from inferd.api.model_waits import ModelWaits, Waited
from inferd.api.request_decoder import LARGE_BYTES, CachingDecoder, IncomingRequest, Sent
from inferd.api.status import StatusTable, abort
from inferd.api.tensors import take_long_to_encode
from inferd.batching.queued import Principal
from inferd.batching.request import FailedRunError, InferenceRequest, InferenceResult, Outcome, Reply
from inferd.call_context import log_fields, request_id_of, set_message_id
from inferd.errors import ColdModelError, InferenceFailedError, InvalidInputError, OverloadedError, ServingError
from inferd.models.registry import ModelRegistry
from inferd.models.version import ModelVersion
from inferd.observability import timing
from inferd.rpc import UnaryCall, callback_unary
from inferd.security.authorization.policy import Grant

_log = logging.getLogger(__name__)

Query = TypeVar("Query", bound=Message)

#: Answers a request to a language model, which may have waited for it; on the poll thread. Raises `InvalidInputError`.
Generate = Callable[[UnaryCall, IncomingRequest[Any], Waited | None], None]


class UnaryInference(Generic[Sent, Request]):
    """The handler of a unary inference method; called on the poll thread.

    The call to it does everything up to the queue; the thread that settles the reply sends the response.
    """

    def __init__(
        self,
        decoder: CachingDecoder[Sent, Request],
        registry: ModelRegistry,
        statuses: StatusTable,
        large_messages: LargeMessages,
        waits: ModelWaits,
        generate: Generate | None = None,
    ) -> None:
        """``generate`` is for protocols with requests that language models take."""
        self._decoder = decoder
        self._registry = registry
        self._statuses = statuses
        self._large_messages = large_messages
        self._waits = waits
        self._generate = generate
        self._early = EarlyRefusals(decoder, registry, statuses)

    def __call__(self, call: UnaryCall, message: Sent, waited: Waited | None = None) -> None:
        """Submit the request in ``message``, or end ``call`` with the status of what is wrong with it.

        ``waited`` is for one that comes again after it has waited for its model.
        """
        received_at = monotonic()
        try:
            incoming = self._decoder.match(message)
            if incoming is None:
                if received_at <= self._early.overloaded_until and self._early.refuse_unknown(
                    call, message, received_at
                ):
                    return
                if len(message) > LARGE_BYTES:
                    self._large_messages.decode(partial(self._decode_large, call, message, received_at, waited))
                    return
                incoming = self._decoder.parse(message)
            model, grant = self._find(call, incoming)
            cached = incoming.cached
            # Requests to language models match no template.
            if cached is None and self._generate is not None and model.language is not None:
                self._generate(call, incoming, waited)
                return
            # Looked at here, because this is done for each request and there mostly is room.
            if (
                cached is not None
                and cached.model is model
                and (batcher := model.batcher) is not None
                and batcher.waiting.rows >= batcher.waiting.row_limit
                and self._early.refuse(call, cached.params, model, grant, received_at)
            ):
                return
            request = self._build(call, incoming, model, received_at, waited)
        except ColdModelError as error:
            self._wait(call, message, error, waited or Waited(received_at))
        except ServingError as error:
            abort(call, self._statuses, charge_invalid(call, error))
        else:
            self._submit(call, incoming, model, grant, request)

    def _wait(self, call: UnaryCall, message: Sent, error: ColdModelError, waited: Waited) -> None:
        """Begin again when the model is loaded; on the poll thread."""
        withdraw = self._waits.add(
            call,
            error,
            waited,
            timeout_s=self._decoder.timeout_s(message),
            go_on=partial(self, call, message),
            fail=partial(abort, call, self._statuses),
        )
        call.on_terminated(withdraw)

    def _decode_large(self, call: UnaryCall, message: Sent, received_at: float, waited: Waited | None) -> None:
        """Decode a large message in the thread for them; the poll thread then submits the request."""
        if call.ended_at != math.inf:
            return
        try:
            incoming = self._decoder.parse(message)
            model, grant = self._find(call, incoming)
            if self._generate is not None and model.language is not None:
                self._large_messages.call_soon(partial(self._generate_large, call, incoming, waited))
                return
            request = self._build(call, incoming, model, received_at, waited)
        except ColdModelError as error:
            self._large_messages.call_soon(partial(self._wait, call, message, error, waited or Waited(received_at)))
        except ServingError as error:
            abort(call, self._statuses, charge_invalid(call, error))
        except Exception:  # noqa: BLE001  (as on the poll thread: the call must end, without internals in its status)
            _log.exception("could not decode a request of %s", call.method, extra=log_fields(call))
            abort(call, self._statuses, InferenceFailedError())
        else:
            self._large_messages.call_soon(partial(self._submit, call, incoming, model, grant, request))

    def _generate_large(self, call: UnaryCall, incoming: IncomingRequest[Request], waited: Waited | None) -> None:
        assert self._generate is not None, "called for requests to language models only"
        try:
            self._generate(call, incoming, waited)
        except ServingError as error:
            abort(call, self._statuses, charge_invalid(call, error))

    def _find(self, call: UnaryCall, incoming: IncomingRequest[Request]) -> tuple[ModelVersion, Grant | None]:
        """Look up the model of a request; any thread. Raises `ServingError`."""
        if incoming.request_id:
            set_message_id(call, incoming.request_id)
        try:
            return find_model(self._registry, call, incoming.name, incoming.version)
        except InvalidInputError as error:
            self._decoder.set_field(incoming, error)
            raise

    def _build(
        self,
        call: UnaryCall,
        incoming: IncomingRequest[Request],
        model: ModelVersion,
        received_at: float,
        waited: Waited | None,
    ) -> InferenceRequest:
        """Validate a request; any thread. Raises `InvalidInputError`."""
        on_outcome = partial(self._settle, call, model, incoming.request_id, incoming.form)
        reply = Reply(on_outcome, None, request_id_of(call.context))
        try:
            timed_from = received_at if waited is None else waited.received_at
            request = self._decoder.build(incoming, model, reply, timed_from, call.deadline)
        except InvalidInputError as error:
            self._decoder.set_field(incoming, error)
            raise
        if waited is not None:
            # Its deadline counts from its arrival, but the wait is no time of decoding.
            request.received_at = received_at
            if timing.KEY in call.annotations:
                timing.of(call.annotations).load_s = waited.load_s
        if call.context.principal is not None:
            request.principal = Principal(call.context.principal)
        return request

    def _submit(
        self,
        call: UnaryCall,
        incoming: IncomingRequest[Request],
        model: ModelVersion,
        grant: Grant | None,
        request: InferenceRequest,
    ) -> None:
        """Submit a request to its model, or end ``call`` if the quota is exhausted; on the poll thread."""
        if incoming.learned is not None:
            self._decoder.cache(incoming)
        try:
            if grant is not None and (quota := charge(grant, model, request)) is not None:
                release_at_end(call, quota)
        except ServingError as error:
            abort(call, self._statuses, charge_invalid(call, error))
            return
        call.context.rows = request.rows
        if timing.KEY in call.annotations:
            stages = timing.of(call.annotations)
            stages.decoding_at, stages.decoded_at = request.received_at, monotonic()
        call.on_terminated(partial(model.cancel, request))
        model.submit((request,))

    def _settle(self, call: UnaryCall, model: ModelVersion, own_id: str, form: ResponseForm, outcome: Outcome) -> None:
        """End ``call`` with ``outcome``; called by the thread that settles the reply."""
        if isinstance(outcome, InferenceResult):
            if take_long_to_encode(outcome.outputs.values(), as_raw=form is RAW):
                self._large_messages.do(partial(self._respond, call, model, own_id, form, outcome))
            else:
                self._respond(call, model, own_id, form, outcome)
            return
        if isinstance(outcome, FailedRunError):
            call.context.queue_s, call.context.batch = outcome.queue_s, outcome.timing
            if timing.KEY in call.annotations:
                stages = timing.of(call.annotations)
                stages.queue_s, stages.batch = outcome.queue_s, outcome.timing
        if isinstance(outcome, OverloadedError):
            self._early.overloaded()
        abort(call, self._statuses, outcome)

    def _respond(
        self, call: UnaryCall, model: ModelVersion, own_id: str, form: ResponseForm, result: InferenceResult
    ) -> None:
        # In this order: readers of a call that has not ended read the batch first.
        call.context.queue_s, call.context.batch = result.queue_s, result.timing
        stages = timing.of(call.annotations) if timing.KEY in call.annotations else None
        if stages is not None:
            stages.queue_s, stages.batch = result.queue_s, result.timing
            stages.encoding_at = monotonic()
        try:
            message = self._decoder.codec.encode(Response(model, own_id, form, result))
        except ServingError as error:
            # What the protocol cannot say in the form that was asked for.
            abort(call, self._statuses, error)
            return
        except Exception:  # noqa: BLE001  (the worker thread must go on, and the call must end)
            _log.exception("could not encode a response of model %s", model.name, extra=log_fields(call))
            abort(call, self._statuses, InferenceFailedError())
            return
        if stages is not None:
            stages.encoded_at = monotonic()
        call.reply(message)


def query_handler(
    query: type[Query],
    respond: Callable[[Query, ModelView], Message],
    registry: ModelRegistry,
    statuses: StatusTable,
    *,
    waits: ModelWaits | None = None,
) -> "grpc.RpcMethodHandler[Any, Any]":
    """Return the gRPC handler of a query, see `query_answerer`."""
    name_field = "model" if "model" in query.DESCRIPTOR.fields_by_name else "name"

    def answer(message: bytes, models: ModelView) -> bytes:
        return respond(parse_query(query, message), models).SerializeToString()

    return callback_unary(query_answerer(answer, registry, statuses, name_field=name_field, waits=waits))


def query_answerer(
    respond: Callable[[Any, ModelView], bytes],
    registry: ModelRegistry,
    statuses: StatusTable,
    *,
    name_field: str,
    waits: ModelWaits | None = None,
) -> Callable[[UnaryCall, Any], None]:
    """Return a handler that answers messages of any protocol with ``respond``, which may raise `ServingError`.

    ``respond`` gets the models of ``registry`` that the caller can see. It is called again after the wait if it needs
    a model that is cold; without ``waits`` the query fails then. ``name_field`` is what the protocol calls a model.
    """

    def handle(call: UnaryCall, message: object) -> None:
        answer(call, message, ModelView(registry, call), Waited(monotonic()))

    def answer(call: UnaryCall, message: object, view: ModelView, waited: Waited) -> None:
        fail = partial(abort, call, statuses)
        try:
            try:
                response = respond(message, view)
            finally:
                # Invalid queries are charged too, and an exhausted quota takes precedence over their error.
                view.charge()
        except ServingError as error:
            if isinstance(error, InvalidInputError) and error.at == "model":
                error.field = name_field
            if isinstance(error, ColdModelError) and waits is not None:
                go_on = partial(answer, call, message, view)
                call.on_terminated(waits.add(call, error, waited, go_on=go_on, fail=fail))
            else:
                fail(error)
        else:
            call.reply(response)

    return handle


def run_guarded(call: UnaryCall, statuses: StatusTable, work: Callable[[], None]) -> None:
    """Do ``work`` for ``call``; if that fails, log what is unexpected and end ``call`` with a status. Any thread."""
    try:
        work()
    except ServingError as error:
        abort(call, statuses, error)
    except Exception:  # noqa: BLE001  (the call must end, without internals in its status)
        _log.exception("%s failed", call.method, extra=log_fields(call))
        call.abort(grpc.StatusCode.INTERNAL, "internal error")
