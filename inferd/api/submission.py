"""The way from a decoded request to the queue, the same for every service."""

import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from inferd.batching.request import InferenceRequest, Reply
from inferd.errors import InvalidInputError
from inferd.models.version import ModelVersion
from inferd.runtime.signature import Tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedRequest:
    """What a caller asked of a model, whatever the protocol.

    ``priority`` 0 is the model's default. ``timeout_s`` is None where the request names none.
    """

    inputs: Tensors
    outputs: tuple[str, ...]
    priority: int
    timeout_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a request comes to apart from its numbers, as in `InferenceRequest`; ``priority`` is never 0."""

    outputs: tuple[str, ...]
    rows: int
    nbytes: int
    stack_key: Hashable
    priority: int
    timeout_s: float | None


def terms_of(model: ModelVersion, decoded: DecodedRequest) -> Terms:
    """Check ``decoded`` against ``model``.

    Raises:
        InvalidInputError: it does not fit the model's signature or settings.
    """
    signature = model.require_signature()
    checked = signature.check(decoded.inputs)
    return Terms(
        outputs=signature.select_outputs(decoded.outputs),
        rows=checked.rows,
        nbytes=checked.nbytes,
        stack_key=checked.stack_key,
        priority=_priority(model, decoded.priority),
        timeout_s=decoded.timeout_s,
    )


def make_request(
    model: ModelVersion, inputs: Tensors, terms: Terms, *, reply: Reply, received_at: float, call_deadline: float
) -> InferenceRequest:
    """Return what the queue of ``model`` takes."""
    return InferenceRequest(
        inputs=inputs,
        outputs=terms.outputs,
        rows=terms.rows,
        nbytes=terms.nbytes,
        stack_key=terms.stack_key,
        reply=reply,
        received_at=received_at,
        deadline=_deadline(model, terms.timeout_s, received_at, call_deadline),
        priority=terms.priority,
    )


def _deadline(model: ModelVersion, timeout_s: float | None, received_at: float, call_deadline: float) -> float:
    """Return the earlier of the call's deadline and the request's own, or the model's default if there is neither."""
    if timeout_s is not None:
        return min(call_deadline, received_at + timeout_s)
    default_s = model.settings.queue.default_timeout_ms / 1000
    if call_deadline == math.inf and default_s > 0:
        return received_at + default_s
    return call_deadline


def _priority(model: ModelVersion, priority: int) -> int:
    queue = model.settings.queue
    if not 0 <= priority <= queue.priority_levels:
        raise InvalidInputError(
            f"priority: expected 1 (first) to {queue.priority_levels}, or 0 for the default, got {priority}"
        )
    return priority or queue.default_priority


#: The clock on which requests are received and expire, in seconds; the one that calls' deadlines are given on.
monotonic: Callable[[], float] = time.monotonic
