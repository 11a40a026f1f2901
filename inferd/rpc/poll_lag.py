"""A probe that measures how late the poll thread is."""

import math
import time
from collections.abc import Callable

from inferd.rpc.poll_loop import PollLoop

_LAG_INTERVAL_S = 1.0


class PollLag:
    """Measures how late the poll thread is, with a timed probe once a second.

    A probe is due at a time, queued behind the events that are ready then, and has arrived when it is handled. So late
    timers, callbacks that block and queued events all count.

    Threads: ``lag_s`` any; the rest on the poll thread. ``_due_at`` is when the current probe was due, or the next one
    is.
    """

    def __init__(self, loop: PollLoop, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._clock = clock
        self._lag_s = 0.0
        self._due_at = math.inf

    def start(self) -> None:
        """Schedule the next probe; on the poll thread, or before it runs."""
        self._due_at = self._clock() + _LAG_INTERVAL_S
        self._loop.call_at(self._due_at, self._send)

    @property
    def lag_s(self) -> float:
        """The lag of the last probe, or of the one under way if that is longer. Seconds."""
        return max(self._lag_s, self._clock() - self._due_at)

    def _send(self) -> None:
        self._loop.call_after_queued(self._arrived)

    def _arrived(self) -> None:
        self._lag_s = self._clock() - self._due_at
        self.start()
