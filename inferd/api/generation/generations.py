"""Submit generation requests: look up the model, validate, tokenize, charge the quota, submit to the engine."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

from inferd.api.admission import (
    charge_invalid,
    find_model,
    generation_deadline,
    granted_priority,
    priority_of,
)
from inferd.api.generation.params import Chat, GenerationParams, GenerationReceiver
from inferd.api.generation.tokenization import is_long_prompt, tokenize_prompt
from inferd.api.generation.validation import Limits, ValidParams, limits_of, resolve_max_tokens, validate
from inferd.api.handler_resources import HandlerResources
from inferd.api.model_waits import Waited
from inferd.batching.queued import Principal
from inferd.call_context import Generated, generated_by, log_fields, request_id_of
from inferd.errors import (
    ColdModelError,
    InferenceFailedError,
    InvalidInputError,
    ModelUnavailableError,
    OverloadedError,
    ServingError,
)
from inferd.generation.request import Delta, GenerationRequest, TokenIds
from inferd.models.version import ModelVersion
from inferd.observability import timing
from inferd.observability.timing import Stages
from inferd.rpc import Call
from inferd.security.authorization.policy import Grant
from inferd.security.authorization.quota import Quota

_log = logging.getLogger(__name__)


def _nothing() -> None:
    """Do nothing."""


class Generations:
    """Submits requests of all protocols; on the poll thread, which it never blocks."""

    def __init__(self, resources: HandlerResources) -> None:
        self._resources = resources

    def begin(
        self,
        call: Call,
        params: GenerationParams,
        receiver: GenerationReceiver,
        *,
        on_settled: Callable[[], None] = _nothing,
        generated: Generated | None = None,
        waited: Waited | None = None,
    ) -> Callable[[], None]:
        """Submit a request with ``params`` for ``call``; return a function that cancels it.

        All errors go to ``receiver``, possibly before this returns. ``on_settled`` is called once, when the request has
        been admitted or rejected, unless it is cancelled before. ``generated`` records the output for the log in
        addition to the record of the call, which may have several requests. ``waited`` has the wait for a cold model,
        if there was one.
        """
        if call.ended_at != math.inf:
            return _nothing
        generation = _Generation(self._resources, call, params, receiver, on_settled, generated)
        generation.start(waited or Waited(monotonic()))
        return generation.cancel


@dataclass(slots=True)
class _Admitted:
    """A request that was submitted to the engine of ``version``, and the quota that it was charged to."""

    version: ModelVersion
    request: GenerationRequest
    quota: Quota | None


class _Generation:
    """One request from its params to its end; the receiver of the engine, which passes output on to ``receiver``.

    Invariants: ``receiver`` gets one end, or none once the request is cancelled; the quota is released once, at the
    end. On the poll thread, except `_tokenize` and `_tokenize_in_thread`.
    """

    def __init__(
        self,
        resources: HandlerResources,
        call: Call,
        params: GenerationParams,
        receiver: GenerationReceiver,
        on_settled: Callable[[], None],
        generated: Generated | None,
    ) -> None:
        self._resources = resources
        self._call = call
        self._params = params
        self._receiver = receiver
        self._on_settled = on_settled
        self._own_record = generated
        self._waited = Waited(0.0)
        self._began_at = 0.0
        self._withdraw: Callable[[], None] | None = None
        self._admitted: _Admitted | None = None
        self._tokens = 0
        self._has_ended = False

    def start(self, waited: Waited) -> None:
        """Look up the model, and tokenize and submit the request; called again after the wait for a cold model."""
        self._waited, self._withdraw = waited, None
        self._began_at = monotonic()
        try:
            self._prepare()
        except ColdModelError as error:
            self._wait_for_model(error)
        except ServingError as error:
            self._reject(error)

    def _prepare(self) -> None:
        params = self._params
        try:
            version, grant = find_model(self._resources.registry, self._call, params.model, params.version)
            limits = limits_of(version)
            valid = validate(params, limits)
        except InvalidInputError as error:
            params.name_field(error)
            raise
        tokenize = partial(self._tokenize, version, limits)
        admit = partial(self._admit, version, grant, limits, valid)
        if is_long_prompt(params):
            self._resources.large_messages.decode(partial(self._tokenize_in_thread, tokenize, admit))
        else:
            admit(tokenize())

    def _tokenize(self, version: ModelVersion, limits: Limits) -> TokenIds | ServingError:
        """Return the tokens of the prompt, or the error; any thread."""
        try:
            return tokenize_prompt(self._params, version, limits)[0]
        except ServingError as error:
            return error
        except Exception:  # noqa: BLE001  (the thread must go on, and the call must end)
            _log.exception("could not tokenize a prompt of %s", self._call.method, extra=log_fields(self._call))
            return InferenceFailedError()

    def _tokenize_in_thread(
        self, tokenize: Callable[[], TokenIds | ServingError], admit: Callable[[TokenIds | ServingError], None]
    ) -> None:
        if not self._has_ended and self._call.ended_at == math.inf:
            self._resources.call_soon(partial(admit, tokenize()))

    def _wait_for_model(self, error: ColdModelError) -> None:
        self._withdraw = self._resources.waits.add(
            self._call,
            error,
            self._waited,
            timeout_s=self._params.timeout_s,
            go_on=self.start,
            fail=self._reject,
        )

    def _admit(
        self,
        version: ModelVersion,
        grant: Grant | None,
        limits: Limits,
        valid: ValidParams,
        tokens: TokenIds | ServingError,
    ) -> None:
        """Charge the quota, and submit the request to the engine."""
        if self._has_ended:
            return
        try:
            if isinstance(tokens, ServingError):
                raise tokens
            engine = version.generator
            if engine is None:
                raise version.unavailable()
            request = self._build(version, limits, valid, tokens)
            self._admitted = _Admitted(
                version, request, None if grant is None else self._charge(grant, version, request)
            )
        except ServingError as error:
            if isinstance(error, InvalidInputError):
                self._params.name_field(error)
            self._reject(error)
            return
        operation = "chat" if isinstance(self._params.prompt, Chat) else "text_completion"
        for record in self._records():
            record.admitted(len(tokens), operation)
        stages = self._stages()
        if stages is not None:
            stages.decoding_at, stages.decoded_at = self._began_at, monotonic()
            stages.load_s = self._waited.load_s if self._waited.loads else None
        engine.submit(request)
        self._on_settled()

    def _build(self, version: ModelVersion, limits: Limits, valid: ValidParams, tokens: TokenIds) -> GenerationRequest:
        params, call = self._params, self._call
        priority = priority_of(version, params.priority)
        received_at = self._waited.received_at
        return GenerationRequest(
            prompt=tokens,
            max_tokens=resolve_max_tokens(params, limits, len(tokens)),
            receiver=self,
            received_at=received_at,
            sampling=valid.sampling,
            stops=valid.stops,
            top_logprobs=valid.top_logprobs,
            scores_prompt=params.scores_prompt,
            wants_text=params.wants_text and limits.has_tokenizer,
            deadline=generation_deadline(version, priority, params.timeout_s, received_at, call.deadline),
            priority=priority,
            principal=Principal(call.context.principal or ""),
            choices=params.choices,
            request_id=params.request_id or request_id_of(call.context),
        )

    def _charge(self, grant: Grant, version: ModelVersion, request: GenerationRequest) -> Quota | None:
        """Charge ``request`` to the quota of ``grant``, and set the priority and weight that are granted."""
        request.priority = granted_priority(grant, version, request.priority)
        request.principal = Principal(request.principal.name, grant.rule.weight)
        try:
            if grant.quota is not None:
                grant.quota.acquire(1, request.received_at, tokens=request.rows)
        except InvalidInputError as error:
            error.field = self._params.field_of("max_tokens")
            raise
        return grant.quota

    def on_delta(self, delta: Delta) -> None:
        """Record ``delta`` and pass it on; see `Receiver`."""
        admitted = self._admitted
        if self._has_ended or admitted is None:
            return
        is_first = self._tokens == 0
        self._tokens += len(delta.token_ids)
        self._record(delta, admitted.request)
        if delta.finish_reason is not None:
            self._end()
        try:
            if is_first:
                self._receiver.on_started(admitted.version, admitted.request)
            self._receiver.on_delta(delta)
        except Exception:  # noqa: BLE001  (the others of this step must get theirs, and the call must end)
            _log.exception("could not answer a request of %s", self._call.method, extra=log_fields(self._call))
            self.cancel()
            self._receiver.on_error(InferenceFailedError())

    def on_error(self, error: ServingError) -> None:
        """Pass on the error of the engine; see `Receiver`."""
        if self._has_ended:
            return
        if isinstance(error, InvalidInputError):
            self._params.name_field(error)
        self._end(is_rejected=not self._tokens and isinstance(error, OverloadedError | ModelUnavailableError))
        self._receiver.on_error(error)

    def cancel(self) -> None:
        """End the request; the receiver is not called again. No effect if it has ended."""
        if self._has_ended:
            return
        admitted = self._admitted
        if self._withdraw is not None:
            self._withdraw()
        if admitted is not None and admitted.version.generator is not None:
            admitted.version.generator.cancel(admitted.request)
        self._end()

    def _reject(self, error: ServingError) -> None:
        """End a request that was not submitted to the engine."""
        if self._has_ended:
            return
        self._end()
        self._receiver.on_error(charge_invalid(self._call, error))
        self._on_settled()

    def _end(self, *, is_rejected: bool = False) -> None:
        """Release the quota, and refund the tokens that were not generated; all of a rejected request."""
        self._has_ended = True
        # Break the reference cycle with the request, so that memory does not wait for the garbage collector.
        admitted, self._admitted = self._admitted, None
        if admitted is None or admitted.quota is None:
            return
        if is_rejected:
            admitted.quota.release(1, refund_tokens=admitted.request.rows)
        else:
            admitted.quota.release(refund_tokens=max(0, admitted.request.max_tokens - self._tokens))

    def _record(self, delta: Delta, request: GenerationRequest) -> None:
        """Record ``delta`` for logs and traces."""
        since_received_s = monotonic() - request.received_at
        for record in self._records():
            record.add(len(delta.token_ids), since_received_s)
            if delta.finish_reason is not None:
                record.finished(delta.finish_reason.value)
        if delta.usage is not None:
            self._call.context.queue_s = delta.usage.queue_s
            if (stages := self._stages()) is not None:
                stages.queue_s = delta.usage.queue_s

    def _records(self) -> Sequence[Generated]:
        of_call = generated_by(self._call.annotations)
        return (of_call,) if self._own_record is None else (of_call, self._own_record)

    def _stages(self) -> Stages | None:
        """Return the timing stages to fill; None unless they are measured for a call with a single request."""
        annotations = self._call.annotations
        return timing.of(annotations) if self._own_record is None and timing.KEY in annotations else None
