"""Admission: which requests can never be admitted, how fast the queue drains, and when to retry. Pure."""

from inferd.batching.request import InferenceRequest
from inferd.batching.waiting import WaitingRequests
from inferd.errors import DeadlineExceededError, InvalidInputError, ServingError

#: Fading per batch: about the last twenty batches count.
_KEPT = 0.95
_SHORTEST_HINT_S = 0.01
_LONGEST_HINT_S = 30.0
#: The retry delay before any batch has run.
_UNKNOWN_HINT_S = 1.0


def refusal(request: InferenceRequest, now: float, waiting: WaitingRequests) -> ServingError | None:
    """Return why ``request`` can never be admitted to a queue with the limits of ``waiting``; None if it can."""
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
    """Rows per second that leave the queue while it is not empty.

    Measured from one dispatched batch to the next, and only where the first left rows behind: whatever limits the rate
    counts, be it the model, its workers or the handling of requests, and idle time does not. Not thread-safe: guarded
    by the lock of the `RequestQueue`.
    """

    def __init__(self) -> None:
        #: The rate; None until it is known.
        self.rows_per_s: float | None = None
        self._rows = 0.0
        self._seconds = 0.0
        self._last_rows = 0
        self._last_at: float | None = None

    def taken(self, rows: int, now: float, *, left: int) -> None:
        """Record that a batch of ``rows`` was dispatched at ``now`` and ``left`` rows still wait."""
        if self._last_at is not None:
            self._rows = self._rows * _KEPT + self._last_rows
            self._seconds = self._seconds * _KEPT + (now - self._last_at)
            self.rows_per_s = self._rows / self._seconds if self._seconds > 0 else None
        self._last_rows = rows
        self._last_at = now if left else None

    def interrupted(self) -> None:
        """Ignore the time since the last batch, whose run was terminated or hangs."""
        self._last_at = None


def retry_after_s(waiting_rows: int, rows_per_s: float | None) -> float:
    """Return when the rows that wait now will have been dispatched, so that a retry is likely to be admitted."""
    if not rows_per_s:
        return _UNKNOWN_HINT_S
    return min(max(waiting_rows / rows_per_s, _SHORTEST_HINT_S), _LONGEST_HINT_S)
