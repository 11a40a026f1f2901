"""Which requests can never be admitted, however empty the queue is. Pure."""

from inferd.batching.request import InferenceRequest
from inferd.batching.waiting import WaitingRequests
from inferd.errors import DeadlineExceededError, InvalidInputError, ServingError


def refusal(request: InferenceRequest, now: float, waiting: WaitingRequests) -> ServingError | None:
    """Say why ``request`` cannot be admitted to a queue with the bounds of ``waiting``; None if it can."""
    if request.deadline <= now:
        return DeadlineExceededError("the deadline passed before the request reached the queue")
    if request.rows > waiting.max_rows:
        return _too_large(request.rows, waiting.max_rows, "rows")
    if request.nbytes > waiting.max_bytes:
        return _too_large(request.nbytes, waiting.max_bytes, "bytes")
    if not 1 <= request.priority <= waiting.priority_levels:
        return InvalidInputError(f"priority: expected 1 to {waiting.priority_levels}, got {request.priority}")
    return None


def _too_large(given: int, bound: int, unit: str) -> InvalidInputError:
    return InvalidInputError(f"request: expected at most {bound} {unit}, the bound of the whole queue, got {given}")
