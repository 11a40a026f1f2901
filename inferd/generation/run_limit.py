"""Ends runs of a language model that take too long, and notices those that do not end even then.

ONNX Runtime ends a run between two operators. One that goes on inside a long operator keeps the engine's thread and the
cache, so there is nothing to replace: no request is admitted until it has ended.
"""

import logging
import math
import threading
from collections.abc import Callable, Sequence

from inferd.batching.ports import Alarm, Clock, weak_callback
from inferd.batching.run_guard import ENDING_S
from inferd.generation.sequence import GeneratingSequence

_logger = logging.getLogger("inferd.generation")


class RunLimit:
    """Watches the runs of one thread, one at a time.

    Invariant: while a run is in progress, an alarm is set for ``_look_at`` or earlier. `begin` and `end` are called by
    the engine's thread. In the alarm's thread, ``stop_run`` is called for a run at its limit, ``on_ended`` with its
    sequences, and ``on_stuck`` with True if it has not ended a second later; with False when it has, by the engine's.
    ``stop_run`` is called under the lock, so that it ends this run and not the next one.
    """

    def __init__(
        self,
        *,
        name: str,
        limit_s: float,
        clock: Clock,
        alarm: Alarm,
        stop_run: Callable[[], None],
        on_ended: Callable[[Sequence[GeneratingSequence]], None],
        on_stuck: Callable[[bool], None],
    ) -> None:
        self._name = name
        self._limit_s = limit_s
        self._clock = clock
        self._alarm = alarm
        self._stop_run = stop_run
        self._on_ended = on_ended
        self._on_stuck = on_stuck
        self._lock = threading.Lock()
        # Held while `on_stuck` is called: both threads may call it, and what it hears last must be how it is.
        self._telling = threading.Lock()
        # The sequences of the run in progress, and when it is looked at; infinite without one.
        self._sequences: Sequence[GeneratingSequence] = ()
        self._look_at = math.inf
        # The time of the alarm that is set.
        self._alarm_at = math.inf
        # Whether the run in progress was ended; once it is stuck, there is no time to look at it again.
        self._was_ended = False

    def begin(self, sequences: Sequence[GeneratingSequence]) -> None:
        """Record that a run of ``sequences`` begins."""
        with self._lock:
            self._sequences = sequences
            self._look_at = self._clock() + self._limit_s
        self._ring()

    def end(self) -> bool:
        """Record that the run has ended; return whether it was ended early, so that its outputs are not used."""
        with self._lock:
            was_stuck = self._is_stuck
            was_ended, self._was_ended = self._was_ended, False
            self._look_at = math.inf
        if was_stuck:
            _logger.info("the run of model %s that did not end has ended", self._name)
            self._tell()
        return was_ended

    @property
    def _is_stuck(self) -> bool:
        return self._was_ended and self._look_at == math.inf

    def _tell(self) -> None:
        with self._telling:
            with self._lock:
                is_stuck = self._is_stuck
            self._on_stuck(is_stuck)

    def _ring(self) -> None:
        with self._lock:
            when = self._look_at
            if when >= self._alarm_at:
                return
            self._alarm_at = when
        self._alarm.call_at(when, weak_callback(self._look))

    def _look(self) -> None:
        now = self._clock()
        with self._lock:
            self._alarm_at = math.inf
            sequences = self._sequences
            is_due = now >= self._look_at
            is_stuck = is_due and self._was_ended
            if is_stuck:
                self._look_at = math.inf
            elif is_due:
                self._was_ended, self._look_at = True, now + ENDING_S
                self._stop_run()
        if is_stuck:
            _logger.error("a run of model %s does not end; it takes no requests until it does", self._name)
            self._tell()
        elif is_due:
            _logger.warning(
                "a run of model %s is terminated: it took longer than %g s (runtime.max_run_ms)",
                self._name,
                self._limit_s,
            )
            self._on_ended(sequences)
        self._ring()
