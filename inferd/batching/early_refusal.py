"""The cheapest refusal: decided from a request's priority, principal and deadline, before anything else is decoded."""

import math

from inferd.batching.state import QueueState
from inferd.errors import OverloadedError

#: How long an error is used again, so that its status need not be encoded for each refused call.
_SAME_REFUSAL_S = 0.005


class EarlyRefusals:
    """Says of a request whether the queue would reject it, whatever its size.

    Used by the poll thread only, which is also the only one that admits requests; so the state is read without its
    lock: a worker can only make room meanwhile, and then the next request has it.
    """

    def __init__(self, state: QueueState) -> None:
        self._state = state
        self._error: OverloadedError | None = None
        self._usable_until = -math.inf

    def find(
        self, priority: int, deadline: float, now: float, *, principal: str = "", weight: float = 1.0
    ) -> OverloadedError | None:
        """Return why a request of at least one row would be rejected at ``now``, None if it may be admitted."""
        state = self._state
        waiting = state.waiting
        if waiting.rows < waiting.row_limit or deadline <= now or not state.rejects_when_full(now):
            return None
        if waiting.rows < waiting.max_rows and waiting.fits_in_turn(1, priority, principal, weight):
            return None
        if waiting.scavengers.rows and priority <= waiting.priority_levels:
            # Scavengers would be evicted.
            return None
        if now >= self._usable_until:
            self._error = state.refusals.overloaded("QUEUE_FULL")
            self._usable_until = now + _SAME_REFUSAL_S
        return self._error
