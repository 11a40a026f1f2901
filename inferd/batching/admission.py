"""Admission: which requests can never be admitted, how fast the queue drains, and when to retry. Pure."""

from inferd.batching.request import InferenceRequest
from inferd.batching.waiting import WaitingRequests
from inferd.errors import DeadlineExceededError, InvalidInputError, ServingError

#: Share of the past that is kept for each batch that is added: about the last twenty batches count.
_KEPT = 0.95
_SHORTEST_HINT_S = 0.01
_LONGEST_HINT_S = 30.0
#: Before any batch has run there is nothing to compute from.
_UNKNOWN_HINT_S = 1.0


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
    return InvalidInputError(
        f"request: expected at most {bound} {unit}, the bound of the whole queue, got {given}", field="inputs"
    )


class DrainRate:
    """Rows that leave the queue in a second when there are always some to take.

    Measured from one batch that is taken to the next, and only where the first left something behind: so whatever it
    is that takes the time counts, the model, its workers or the handling of requests, and idle time does not make the
    rate look low. Not thread-safe: guarded by the lock of the `RequestQueue` that it is a part of.
    """

    def __init__(self) -> None:
        #: The rate, or None while nothing is known of it.
        self.rows_per_s: float | None = None
        self._rows = 0.0
        self._seconds = 0.0
        self._last_rows = 0
        self._last_at: float | None = None

    def taken(self, rows: int, now: float, *, left: int) -> None:
        """A batch of ``rows`` was taken at ``now``, and ``left`` rows still wait."""
        if self._last_at is not None:
            self._rows = self._rows * _KEPT + self._last_rows
            self._seconds = self._seconds * _KEPT + (now - self._last_at)
            self.rows_per_s = self._rows / self._seconds if self._seconds > 0 else None
        self._last_rows = rows
        self._last_at = now if left else None

    def interrupted(self) -> None:
        """How long the batch that was taken last held up the next one says nothing of others."""
        self._last_at = None


def retry_after_s(waiting_rows: int, rows_per_s: float | None) -> float:
    """When the rows that wait now will have been taken, so that a retry is likely to be admitted."""
    if not rows_per_s:
        return _UNKNOWN_HINT_S
    return min(max(waiting_rows / rows_per_s, _SHORTEST_HINT_S), _LONGEST_HINT_S)
