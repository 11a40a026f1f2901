"""The waiting requests of a queue: admission, order of service, limits, expiry, and how fast they drain. Pure."""

import math
from collections.abc import Iterator
from itertools import chain

from inferd.batching.request import InferenceRequest
from inferd.errors import DeadlineExceededError, InvalidInputError, ServingError

#: How late a check for expired requests may be. A check walks the whole queue, so checks are at least this far apart.
SLACK_S = 0.005

#: Fading per batch: about the last twenty batches count.
_KEPT = 0.95
_SHORTEST_HINT_S = 0.01
_LONGEST_HINT_S = 30.0
#: The retry delay before any batch has run.
_UNKNOWN_HINT_S = 1.0


class WaitingRequests:
    """Waiting requests: the lowest priority number first, and within a priority in order of arrival.

    Invariant: ``count`` is the number of requests; ``rows`` and ``nbytes`` are the sums over them, never above
    ``max_rows`` and ``max_bytes``. ``row_limit`` is how many rows may wait at present: at most ``max_rows``, and less
    than ``rows`` if it has just been lowered. A request always fits into an empty queue. Not thread-safe: guarded by
    the lock of the `RequestQueue`.
    """

    def __init__(self, *, max_rows: int, max_bytes: int, priority_levels: int) -> None:
        self.max_rows = max_rows
        self.row_limit = max_rows
        self.max_bytes = max_bytes
        self.priority_levels = priority_levels
        self.count = 0
        self.rows = 0
        self.nbytes = 0
        self._rows_of = [0] * priority_levels
        # Dictionaries keep the order and allow removal from the middle.
        self._lines: dict[int, dict[InferenceRequest, None]] = {level: {} for level in range(1, priority_levels + 1)}

    def __iter__(self) -> Iterator[InferenceRequest]:
        """Iterate in order of service."""
        return chain.from_iterable(self._lines.values())

    def victims(self) -> Iterator[InferenceRequest]:
        """Iterate in order of shedding: the lowest priority first, within it the oldest first."""
        return chain.from_iterable(reversed(self._lines.values()))

    def fits(self, request: InferenceRequest) -> bool:
        """Whether there is room for ``request`` now."""
        rows = self.rows + request.rows
        return (rows <= self.row_limit or rows == request.rows) and self.nbytes + request.nbytes <= self.max_bytes

    def add(self, request: InferenceRequest) -> None:
        """Add ``request``; the caller has checked that it fits."""
        self._lines[request.priority][request] = None
        self.count += 1
        self.rows += request.rows
        self._rows_of[request.priority - 1] += request.rows
        self.nbytes += request.nbytes

    def remove(self, request: InferenceRequest) -> bool:
        """Remove ``request``; False if it does not wait here."""
        line = self._lines.get(request.priority)
        if line is None or request not in line:
            return False
        del line[request]
        self.count -= 1
        self.rows -= request.rows
        self._rows_of[request.priority - 1] -= request.rows
        self.nbytes -= request.nbytes
        return True

    def rows_before(self, request: InferenceRequest) -> int:
        """Return how many waiting rows would be served before ``request``, which does not wait yet."""
        return sum(self._rows_of[: request.priority])

    def describe(self) -> str:
        """Say how full it is, for a message."""
        return f"{self.rows} of {self.row_limit} rows and {self.nbytes} of {self.max_bytes} bytes wait"


class Deadlines:
    """Keeps a timer armed for the earliest deadline without arming one for every request.

    Invariants: no watched request has a deadline before ``earliest``; a timer is armed for at most ``SLACK_S`` after
    ``earliest``, unless that is infinite. Every timer is armed for an earlier time than those before it, so the one
    that fires is always the last. Not thread-safe: guarded by the lock of the `RequestQueue`.
    """

    def __init__(self) -> None:
        self.earliest = math.inf
        self._armed = [math.inf]

    def watch(self, deadline: float) -> float | None:
        """Watch ``deadline``. Returns the time to arm a timer for, if one is needed."""
        self.earliest = min(self.earliest, deadline)
        return self._arm(deadline) if deadline + SLACK_S < self._armed[-1] else None

    def looked(self, earliest: float) -> None:
        """Record that expired requests were removed; ``earliest`` is the earliest deadline of the others.

        The timer for the expired ones has yet to fire; `fired` then arms the next one.
        """
        self.earliest = earliest

    def fired(self, now: float) -> float | None:
        """Record that a timer fired and expired requests were removed. Returns the time to arm the next one for."""
        self._armed.pop()
        when = max(self.earliest, now + SLACK_S)
        return self._arm(when) if when < self._armed[-1] else None

    def _arm(self, when: float) -> float:
        self._armed.append(when)
        return when


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
