"""How far the poll thread is behind."""

import time
from collections.abc import Callable

from inferd.rpc.poll_loop import PollLoop

_INTERVAL_S = 1.0


class PollLag:
    """Sends a probe through the loop now and then and times it.

    A probe is due at a time, put behind the events that are ready then, and has arrived when it is its turn. So a
    timer that is late, a callback that blocks and events that pile up all count.

    Threads: ``lag_s`` any; the rest is for the poll thread. ``_due_at`` is when the probe under way was due, or else
    when the next one is.
    """

    def __init__(self, loop: PollLoop, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._clock = clock
        self._lag_s = 0.0
        self._due_at = float("inf")

    def start(self) -> None:
        """Plan the first probe; before the loop runs, or in it."""
        self._due_at = self._clock() + _INTERVAL_S
        self._loop.call_at(self._due_at, self._send)

    @property
    def lag_s(self) -> float:
        """How long the last probe took, or the one under way has taken so far if that is longer. Seconds."""
        return max(self._lag_s, self._clock() - self._due_at)

    def _send(self) -> None:
        self._loop.call_after_queued(self._arrived)

    def _arrived(self) -> None:
        self._lag_s = self._clock() - self._due_at
        self.start()
