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
    """What a request comes to apart from its numbers, as in `InferenceRequest`; ``priority`` is never 0.

    ``timeout_s`` is the request's own; without one and without a deadline of the call, ``default_timeout_s`` holds.
    """

    outputs: tuple[str, ...]
    rows: int
    nbytes: int
    stack_key: Hashable
    priority: int
    timeout_s: float | None
    default_timeout_s: float


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
        default_timeout_s=model.settings.queue.default_timeout_ms / 1000 or math.inf,
    )


def make_request(
    inputs: Tensors, terms: Terms, reply: Reply, received_at: float, call_deadline: float
) -> InferenceRequest:
    """Return what a queue takes; it expires with its call, or earlier."""
    if terms.timeout_s is not None:
        deadline = min(call_deadline, received_at + terms.timeout_s)
    elif call_deadline == math.inf:
        deadline = received_at + terms.default_timeout_s
    else:
        deadline = call_deadline
    return InferenceRequest(
        inputs,
        terms.outputs,
        terms.rows,
        terms.nbytes,
        terms.stack_key,
        reply,
        received_at,
        deadline,
        terms.priority,
    )


def _priority(model: ModelVersion, priority: int) -> int:
    queue = model.settings.queue
    if not 0 <= priority <= queue.priority_levels:
        msg = f"priority: expected 1 (first) to {queue.priority_levels}, or 0 for the default, got {priority}"
        raise InvalidInputError(msg, at="priority")
    return priority or queue.default_priority


#: The clock on which requests are received and expire, in seconds; the one that calls' deadlines are given on.
monotonic: Callable[[], float] = time.monotonic
