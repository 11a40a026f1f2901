"""Refuse requests before their tensors are looked at, so that a refusal costs little and any size costs the same.

A model's queue says whether it would reject a request of some priority, principal and deadline, whatever its numbers.
For a request that matches a cached template these are known. Of others the *outline* is parsed, the message without the
contents of its tensors, and only shortly after rejections, as the full decoding repeats that work.

A request that is refused early is not validated, so an invalid one may get the overload status first.
"""

import math
from time import monotonic
from typing import Generic

from inferd.api.admission import RequestParams, deadline_of, find_model, granted_priority, params_of, release_at_end
from inferd.api.codec import Request
from inferd.api.request_decoder import CachingDecoder, Sent
from inferd.api.status import StatusTable, abort
from inferd.call_context import set_message_id
from inferd.errors import ServingError
from inferd.models.registry import ModelRegistry
from inferd.models.version import ModelVersion
from inferd.observability import timing
from inferd.rpc import UnaryCall
from inferd.security.authorization.policy import Grant

#: How long after a rejection the outline of unknown messages is parsed first.
_OVERLOAD_S = 0.1


class EarlyRefusals(Generic[Sent, Request]):
    """Ends unary calls whose request would be rejected. Poll thread only, except ``overloaded``."""

    def __init__(self, decoder: CachingDecoder[Sent, Request], registry: ModelRegistry, statuses: StatusTable) -> None:
        self._decoder = decoder
        self._registry = registry
        self._statuses = statuses
        #: Until when the outline of unknown messages is parsed first.
        self.overloaded_until = -math.inf

    def overloaded(self) -> None:
        """Note that a request was rejected; any thread."""
        self.overloaded_until = monotonic() + _OVERLOAD_S

    def refuse_unknown(self, call: UnaryCall, message: Sent, received_at: float) -> bool:
        """End ``call`` if the request in ``message``, of no known template, would be rejected; return whether it did.

        Worth its cost before ``overloaded_until``. What is wrong with the request is left to its decoding.
        """
        outline = self._decoder.outline(message)
        if outline is None:
            return False
        try:
            model, grant = find_model(self._registry, call, outline.name, outline.version)
            terms = self._decoder.codec.admission_terms(outline.request, model.require_signature())
            params = None if terms.rows is None else params_of(model, terms.rows, terms.priority, terms.timeout_s)
        except ServingError:
            return False
        if params is None or params.rows > len(message):
            return False
        return self.refuse(call, params, model, grant, received_at, own_id=outline.request_id)

    def refuse(
        self,
        call: UnaryCall,
        params: RequestParams,
        model: ModelVersion,
        grant: Grant | None,
        received_at: float,
        *,
        own_id: str = "",
    ) -> bool:
        """End ``call`` if a request with ``params`` would be rejected; return whether it did.

        The call is charged, counted and logged as if the queue had rejected the request. Raises as `Quota.acquire`.
        """
        batcher = model.batcher
        if batcher is None:
            return False
        context = call.context
        error = batcher.early_refusal(
            params.priority if grant is None else granted_priority(grant, model, params.priority),
            deadline_of(params, received_at, call.deadline),
            received_at,
            principal=context.principal or "",
            weight=1.0 if grant is None else grant.rule.weight,
        )
        if error is None:
            return False
        if own_id:
            set_message_id(call, own_id)
        if grant is not None and grant.quota is not None:
            grant.quota.acquire(params.rows, received_at)
            release_at_end(call, grant.quota)
        context.rows = params.rows
        if timing.KEY in call.annotations:
            stages = timing.of(call.annotations)
            stages.decoding_at, stages.decoded_at = received_at, monotonic()
        batcher.refused(params.rows, received_at, error)
        self.overloaded_until = received_at + _OVERLOAD_S
        abort(call, self._statuses, error)
        return True
