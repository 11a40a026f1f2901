"""Delay the refusals that a caller causes itself, if they come faster than others can be served beside them.

A refusal costs about as much as a small answer, so a client that sends what is refused as fast as it can would take the
poll thread from the callers of all other models. The next request of such a client comes only after its last answer.
"""

import random
from collections.abc import Callable
from functools import partial

from inferd.call_context import CallContext
from inferd.rpc.call_ends import REASONS
from inferd.rpc.poll_loop import PollLoop

#: Between two refusals of one principal, and in addition for each byte of the refused message, which was read in vain.
_INTERVAL_S = 0.001
_INTERVAL_PER_BYTE_S = 50e-9
_MAX_DELAY_S = 1.0

#: Refusals that wait, and the bytes that their messages count in the memory of the open calls.
_MAX_WAITING = 256
_MAX_WAITING_BYTES = 64 * 2**20

#: Principals that are remembered, until all are forgotten.
_MAX_PRINCIPALS = 1024

Refuse = Callable[[], object]


class Refusals:
    """Paces refusals: answers one of each principal per millisecond, and those in between up to a second late.

    Large messages take more than a millisecond each. A refusal is never delayed beyond half of the time that is left
    until the deadline of its call. At most 256 wait, with 64 MiB. On the poll thread only, except `end`, which any
    thread may call. ``random`` returns numbers from 0 to 1.
    """

    def __init__(self, loop: PollLoop, random: Callable[[], float] = random.random) -> None:
        self._loop = loop
        self._random = random
        self._waiting = 0
        self._waiting_bytes = 0
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
        latest = min(now + _MAX_DELAY_S, (now + deadline) / 2)
        due_at = self._next_due_at(context.principal, now, latest, _INTERVAL_S + held_bytes * _INTERVAL_PER_BYTE_S)
        bytes_then = self._waiting_bytes + held_bytes
        if due_at <= now or self._waiting >= _MAX_WAITING or bytes_then > _MAX_WAITING_BYTES:
            self._refuse(refuse)
            return
        self._waiting += 1
        self._waiting_bytes = bytes_then
        loop.call_at(due_at, partial(self._refuse_late, held_bytes, refuse))

    def _next_due_at(self, principal: str | None, now: float, latest: float, interval_s: float) -> float:
        """Return when this refusal of ``principal`` is due; the next one is ``interval_s`` later."""
        due_at = max(now, self._due_at.get(principal, now))
        if due_at > latest:
            # Spread, or the next requests of all of them would come together.
            return latest - self._random() * (latest - now) / 2
        if len(self._due_at) >= _MAX_PRINCIPALS:
            self._due_at.clear()
        self._due_at[principal] = due_at + interval_s
        return due_at

    def _refuse_late(self, held_bytes: int, refuse: Refuse) -> None:
        self._waiting -= 1
        self._waiting_bytes -= held_bytes
        self._refuse(refuse)

    def _refuse(self, refuse: Refuse) -> None:
        loop = self._loop
        # At this pace, gathering the rounds would save nothing, and delay the other callers.
        loop.may_gather = False
        try:
            refuse()
        finally:
            loop.may_gather = True
