"""Time limit of the runs of a language model, and what happens when a run does not stop at it.

ONNX Runtime stops a run between two operators. A run that is stuck inside one operator keeps the engine's thread and
the cache, so no other thread can take over: no request is admitted until the run has ended.
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

    Invariant: while a run is in progress, the alarm is set for ``_check_at`` or earlier.

    | called | by | when |
    |---|---|---|
    | `begin`, `end` | the engine's thread | around each run |
    | ``stop_run``, then ``on_stopped`` with its sequences | the alarm's thread | a run is at its limit |
    | ``on_stuck(True)`` | the alarm's thread | it has not ended a second later |
    | ``on_stuck(False)`` | the engine's thread | a stuck run has ended |

    ``stop_run`` is called under the lock, so that it stops this run and not the next one.
    """

    def __init__(
        self,
        *,
        name: str,
        limit_s: float,
        clock: Clock,
        alarm: Alarm,
        stop_run: Callable[[], None],
        on_stopped: Callable[[Sequence[GeneratingSequence]], None],
        on_stuck: Callable[[bool], None],
    ) -> None:
        self._name = name
        self._limit_s = limit_s
        self._clock = clock
        self._alarm = alarm
        self._stop_run = stop_run
        self._on_stopped = on_stopped
        self._on_stuck = on_stuck
        self._lock = threading.Lock()
        # Held while `on_stuck` is called: both threads may call it, and its last call must report the present state.
        self._report_lock = threading.Lock()
        # The sequences of the run in progress, and when to check it next; infinite without a run, and once it is stuck.
        self._sequences: Sequence[GeneratingSequence] = ()
        self._check_at = math.inf
        self._alarm_at = math.inf
        # True once the run in progress was stopped at its limit.
        self._was_stopped = False

    def begin(self, sequences: Sequence[GeneratingSequence]) -> None:
        """Record that a run of ``sequences`` begins."""
        with self._lock:
            self._sequences = sequences
            self._check_at = self._clock() + self._limit_s
        self._set_alarm()

    def end(self) -> bool:
        """Record that the run has ended; return True if it was stopped at its limit: its outputs are invalid then."""
        with self._lock:
            was_stuck = self._is_stuck
            was_stopped, self._was_stopped = self._was_stopped, False
            self._check_at = math.inf
        if was_stuck:
            _logger.info("the run of model %s that did not end has ended", self._name)
            self._report_stuck()
        return was_stopped

    @property
    def _is_stuck(self) -> bool:
        return self._was_stopped and self._check_at == math.inf

    def _report_stuck(self) -> None:
        with self._report_lock:
            with self._lock:
                is_stuck = self._is_stuck
            self._on_stuck(is_stuck)

    def _set_alarm(self) -> None:
        with self._lock:
            when = self._check_at
            if when >= self._alarm_at:
                return
            self._alarm_at = when
        self._alarm.call_at(when, weak_callback(self._check))

    def _check(self) -> None:
        now = self._clock()
        with self._lock:
            self._alarm_at = math.inf
            sequences = self._sequences
            is_due = now >= self._check_at
            is_stuck = is_due and self._was_stopped
            if is_stuck:
                self._check_at = math.inf
            elif is_due:
                self._was_stopped, self._check_at = True, now + ENDING_S
                self._stop_run()
        if is_stuck:
            _logger.error("a run of model %s does not end; it takes no requests until it does", self._name)
            self._report_stuck()
        elif is_due:
            _logger.warning(
                "a run of model %s is terminated: it took longer than %g s (runtime.max_run_ms)",
                self._name,
                self._limit_s,
            )
            self._on_stopped(sequences)
        self._set_alarm()
