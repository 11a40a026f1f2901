"""Time limits for runs: a timer thread, and trial runs that end in time."""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from inferd.runtime.runners import Runner, RunStop
from inferd.runtime.signature import Array, Tensors

_log = logging.getLogger("inferd.runtime")

#: Limit of the first trial run, and of later ones relative to the longest run that finished.
_FIRST_S = 30.0
_TIMES_LONGER = 10.0
_LEAST_S = 1.0


class Watchdog:
    """A timer thread, so that a deadline is noticed even while other threads are blocked.

    `call_at` may be called from any thread. Callbacks run one after another in the watchdog's thread, must not block,
    and are not called after `stop`. The thread is a daemon and sleeps until the next timer.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the callback in progress."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the clock reaches ``when``."""
        with self._changed:
            heapq.heappush(self._timers, (when, next(self._order), callback))
            if self._timers[0][0] == when:
                self._changed.notify()

    def _run(self) -> None:
        while (callback := self._next()) is not None:
            try:
                callback()
            except Exception:  # noqa: BLE001  (the other timers must still fire)
                _log.exception("watchdog callback failed")

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next timer; None when stopped."""
        with self._changed:
            while not self._stopped:
                left_s = self._timers[0][0] - self._clock() if self._timers else None
                if left_s is not None and left_s <= 0:
                    return heapq.heappop(self._timers)[2]
                self._changed.wait(left_s)
        return None


class TrialTimeoutError(Exception):
    """A trial run was stopped because it took far longer than earlier ones."""


class TrialRunner:
    """Runs a model on trial inputs with a time limit: some models loop as often as an input says.

    A context manager; only the thread that entered it may run.
    """

    def __init__(self, runner: Runner, outputs: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._runner = runner
        self._outputs = outputs
        self._clock = clock
        self._longest_s: float | None = None
        self._watchdog = Watchdog("trial-watchdog", clock)

    def __enter__(self) -> Self:
        """Start the timer thread."""
        self._watchdog.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the timer thread."""
        self._watchdog.stop()

    @property
    def limit_s(self) -> float:
        """The time limit of the next run."""
        return _FIRST_S if self._longest_s is None else max(_LEAST_S, self._longest_s * _TIMES_LONGER)

    def run(self, inputs: Tensors) -> Mapping[str, Array]:
        """Return all outputs by name. Raises `TrialTimeoutError`, and whatever the model raises."""
        stop, limit_s = RunStop(), self.limit_s
        started_at = self._clock()
        self._watchdog.call_at(started_at + limit_s, stop.stop)
        try:
            arrays = self._runner.run(inputs, self._outputs, stop.options)
        except Exception as error:
            if stop.is_stopped:
                msg = f"a run was stopped after {limit_s:g} s"
                raise TrialTimeoutError(msg) from error
            raise
        self._longest_s = max(self._longest_s or 0.0, self._clock() - started_at)
        return dict(zip(self._outputs, arrays, strict=True))
