"""Delay the refusals that a caller causes itself, if they come faster than others can be served beside them.

A refusal costs about as much as a small answer, so a client that sends what is refused as fast as it can would take the
poll thread from the callers of all other models. The next request of such a client comes only after its last answer.
"""

import math
from collections.abc import Callable
from functools import partial

from inferd.call_context import CallContext
from inferd.rpc.call_ends import REASONS
from inferd.rpc.poll_loop import PollLoop

#: Between two refusals of one principal.
_INTERVAL_S = 0.001
_MAX_DELAY_S = 0.1

#: Refusals that wait, and the largest message that one of them may keep in memory.
_MAX_WAITING = 256
_MAX_BYTES = 65_536

#: Principals that are remembered, until all are forgotten.
_MAX_PRINCIPALS = 1024

Refuse = Callable[[], object]


class Refusals:
    """Paces refusals: answers one of each principal per millisecond, and those in between up to 0.1 s late.

    A refusal is never delayed beyond half of the time that is left until the deadline of its call. More than 256 do not
    wait. On the poll thread only, except `end`, which any thread may call.
    """

    def __init__(self, loop: PollLoop) -> None:
        self._loop = loop
        self._waiting = 0
        #: Calls that were rejected before a handler saw them, by reason; may be read in any thread.
        self.counts = dict.fromkeys(REASONS, 0)
        #: When the next refusal of a principal is due.
        self._due_at: dict[str | None, float] = {}

    def end(self, context: CallContext, deadline: float, held_bytes: int, refuse: Refuse) -> None:
        """Call ``refuse`` on the poll thread, now or later. It must do nothing if the call has ended meanwhile."""
        loop = self._loop
        if not loop.in_poll_thread:
            loop.call_soon(partial(self.end, context, deadline, held_bytes, refuse))
            return
        now = loop.now()
        due_at = self._next_due_at(context.principal, now, min(now + _MAX_DELAY_S, (now + deadline) / 2))
        if due_at <= now or self._waiting >= _MAX_WAITING or held_bytes > _MAX_BYTES:
            self._refuse(refuse)
            return
        self._waiting += 1
        loop.call_at(due_at, partial(self._refuse_late, refuse))

    def _next_due_at(self, principal: str | None, now: float, latest: float) -> float:
        """Return when the next refusal of ``principal`` is due, ``latest`` at the latest."""
        due_at = min(max(now, self._due_at.get(principal, -math.inf)), latest)
        if len(self._due_at) >= _MAX_PRINCIPALS:
            self._due_at.clear()
        self._due_at[principal] = due_at + _INTERVAL_S
        return due_at

    def _refuse_late(self, refuse: Refuse) -> None:
        self._waiting -= 1
        self._refuse(refuse)

    def _refuse(self, refuse: Refuse) -> None:
        loop = self._loop
        # At this pace, gathering the rounds would save nothing, and delay the other callers.
        loop.may_gather = False
        try:
            refuse()
        finally:
            loop.may_gather = True
