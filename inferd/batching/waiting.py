"""The waiting requests of a queue: in the order of service, within bounds, and when to look for expired ones. Pure."""

import math
from collections.abc import Iterator
from itertools import chain

from inferd.batching.request import InferenceRequest

#: How late a look may be. Looking costs a walk along the queue, so looks are never closer together than this.
SLACK_S = 0.005


class WaitingRequests:
    """Serves the lowest priority number first, and within a priority whoever came first.

    Invariant: ``count`` is the number of members; ``rows`` and ``nbytes`` are the sums over them, never above
    ``max_rows`` and ``max_bytes``. ``row_limit`` is how many rows may wait at present: at most ``max_rows``, and fewer
    than wait already if it has just been lowered. Whatever it is, a request fits where nothing else waits. Not
    thread-safe: it is guarded by the lock of the `RequestQueue` that it is a part of.
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
        # Dictionaries keep the order and let a cancelled request leave from the middle.
        self._lines: dict[int, dict[InferenceRequest, None]] = {level: {} for level in range(1, priority_levels + 1)}

    def __iter__(self) -> Iterator[InferenceRequest]:
        """In the order of service."""
        return chain.from_iterable(self._lines.values())

    def victims(self) -> Iterator[InferenceRequest]:
        """In the order of shedding: the least important priority first, in it whoever has waited longest."""
        return chain.from_iterable(reversed(self._lines.values()))

    def fits(self, request: InferenceRequest) -> bool:
        """Whether there is room for ``request`` now."""
        rows = self.rows + request.rows
        return (rows <= self.row_limit or rows == request.rows) and self.nbytes + request.nbytes <= self.max_bytes

    def add(self, request: InferenceRequest) -> None:
        """Let ``request`` wait; the caller has seen that it fits."""
        self._lines[request.priority][request] = None
        self.count += 1
        self.rows += request.rows
        self._rows_of[request.priority - 1] += request.rows
        self.nbytes += request.nbytes

    def remove(self, request: InferenceRequest) -> bool:
        """Take ``request`` out; False if it does not wait here."""
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
        """Return how many rows are served before ``request``, which is not among them."""
        return sum(self._rows_of[: request.priority])

    def describe(self) -> str:
        """Say how full it is, for a message."""
        return f"{self.rows} of {self.row_limit} rows and {self.nbytes} of {self.max_bytes} bytes wait"


class Deadlines:
    """Keeps a timer armed for the earliest deadline without arming one for every request.

    Invariants: no watched request has a deadline before ``earliest``; a timer is armed for at most ``SLACK_S`` after
    ``earliest``, unless that is infinite. Every timer that is armed is for an earlier time than those armed before it,
    so the one that fires is always the last. Not thread-safe: guarded by the lock of the `RequestQueue` that it is a
    part of.
    """

    def __init__(self) -> None:
        self.earliest = math.inf
        self._armed = [math.inf]

    def watch(self, deadline: float) -> float | None:
        """Keep ``deadline`` in mind. Returns the time to arm a timer for, if one is needed."""
        self.earliest = min(self.earliest, deadline)
        return self._arm(deadline) if deadline + SLACK_S < self._armed[-1] else None

    def looked(self, earliest: float) -> None:
        """The expired requests have been dealt with; ``earliest`` is the earliest deadline of the others.

        The timer that was armed for the expired ones is still to fire, and `fired` then arms the next.
        """
        self.earliest = earliest

    def fired(self, now: float) -> float | None:
        """A timer has fired and the expired requests have been dealt with. Returns the time to arm the next for."""
        self._armed.pop()
        when = max(self.earliest, now + SLACK_S)
        return self._arm(when) if when < self._armed[-1] else None

    def _arm(self, when: float) -> float:
        self._armed.append(when)
        return when
