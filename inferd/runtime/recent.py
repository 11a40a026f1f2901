"""Values that are measured again after a while only."""

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """Calls ``measure``, at most once in ``period_s`` for the same arguments: its result is at most that old.

    Only that of the last arguments is kept. Any thread: none waits for another, so that several may measure at the same
    time. Errors are not kept.
    """

    def __init__(
        self, measure: Callable[..., Value], *, period_s: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._measure = measure
        self._period_s = period_s
        self._clock = clock
        # Replaced as a whole.
        self._last: tuple[tuple[Hashable, ...], float, Value] | None = None

    def __call__(self, *arguments: Hashable) -> Value:
        """Return what ``measure`` returned for ``arguments``, now or a moment ago."""
        now, last = self._clock(), self._last
        if last is not None and last[0] == arguments and now - last[1] < self._period_s:
            return last[2]
        value = self._measure(*arguments)
        self._last = (arguments, now, value)
        return value
