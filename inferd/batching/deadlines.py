"""When to look for expired requests. Pure."""

import math

#: How late a look may be. Looking costs a walk along the queue, so looks are never closer together than this.
SLACK_S = 0.005


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
