"""Wait for the times of an open loop, as much earlier as requests take from then to the network."""

import asyncio
from collections.abc import Callable

from inferd.bench.attempt import Attempt

# The lead follows the median of what it makes up for, in these steps: twenty late requests add 0.4 ms.
_STEP_S = 20e-6
#: A generator that takes longer has too much to do, which starting earlier does not change.
_MOST_LEAD_S = 0.001


class Pace:
    """Waits for one time after another.

    Timers are late, and a request must be prepared, which takes a few tenths of a millisecond where caches are cold.
    Both are much the same from one request to the next, so the next one starts that much earlier.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lead_s = 0.0
        self._is_waited_for = False
        self._last: tuple[Attempt, float] | None = None

    async def wait(self, due_s: float) -> None:
        """Wait until a request that is due at ``due_s`` should be prepared."""
        left_s = due_s - self._lead_s - self._clock()
        self._is_waited_for = left_s > 0
        # Also when late: the event loop so sends earlier requests.
        await asyncio.sleep(max(0.0, left_s))
        if self._last is not None:
            attempt, last_due_s = self._last
            self._learn(attempt.sent_s - last_due_s)

    def begun(self, attempt: Attempt, due_s: float) -> None:
        """Say which attempt was made for ``due_s``. One that came late anyway teaches nothing."""
        self._last = (attempt, due_s) if self._is_waited_for else None

    def _learn(self, lag_s: float) -> None:
        if lag_s > _STEP_S:
            self._lead_s = min(self._lead_s + _STEP_S, _MOST_LEAD_S)
        elif lag_s < 0:
            self._lead_s = max(self._lead_s - _STEP_S, 0.0)
