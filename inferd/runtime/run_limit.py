"""Ends trial runs that take far too long: some models loop as often as their inputs say, and any number is tried."""

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from inferd.runtime.row_comparison import Array
from inferd.runtime.run_stop import RunStop
from inferd.runtime.runners import Runner
from inferd.runtime.signature import Tensors
from inferd.runtime.watchdog import Watchdog

#: How long the first trial run may take, and the others relative to the longest one so far that ended by itself.
_FIRST_S = 30.0
_TIMES_LONGER = 10.0
_LEAST_S = 1.0


class TrialTooLongError(Exception):
    """A run was ended because it took far longer than the others."""


class RunLimit:
    """Runs a model with an eye on the time while its context is open. Only the thread that opened it runs."""

    def __init__(self, runner: Runner, outputs: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._runner = runner
        self._outputs = outputs
        self._clock = clock
        self._longest_s: float | None = None
        self._watchdog = Watchdog("trial-watchdog", clock)

    def __enter__(self) -> Self:
        """Begin to look at the clock."""
        self._watchdog.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread that looks at the clock."""
        self._watchdog.stop()

    @property
    def limit_s(self) -> float:
        """How long a run may take at present."""
        return _FIRST_S if self._longest_s is None else max(_LEAST_S, self._longest_s * _TIMES_LONGER)

    def run(self, inputs: Tensors) -> Mapping[str, Array]:
        """Return all outputs. Raises `TrialTooLongError`, and whatever the model raises."""
        stop, limit_s = RunStop(), self.limit_s
        started_at = self._clock()
        self._watchdog.call_at(started_at + limit_s, stop.stop)
        try:
            arrays = self._runner.run(inputs, self._outputs, stop.options)
        except Exception as error:
            if stop.is_stopped:
                msg = f"a run was ended after {limit_s:g} s"
                raise TrialTooLongError(msg) from error
            raise
        self._longest_s = max(self._longest_s or 0.0, self._clock() - started_at)
        return dict(zip(self._outputs, arrays, strict=True))
