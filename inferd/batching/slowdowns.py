"""Measures how many times longer parallel runs of a model take than single ones. Pure; not thread-safe.

On cores that all runs need, two take twice as long as one, and nothing is gained; on cores of their own, or if runs
wait for something else, each takes as long as alone. Only runs with about the same number of others beside them all the
time count. What the same rows take alone is the measure, so that the size of the batches does not matter.
"""

import math
from dataclasses import dataclass

from inferd.batching.cost_model import CostModel
from inferd.batching.request import Batch


@dataclass(frozen=True, slots=True)
class SlowdownTuning:
    """The constants of the measurement."""

    #: A run counts for a number of batches at a time if their average number during it is at most this far from it.
    impurity: float = 0.25
    #: Runs from which on something is known of a number.
    known_runs: int = 2
    #: How long a measurement counts: a time, and a number of run times.
    fresh_s: float = 30.0
    fresh_runs: float = 4.0
    #: Weight of a run in the average of a number, once there are several.
    weight: float = 1 / 8


MEASURING = SlowdownTuning()


@dataclass(slots=True)
class _Slowdown:
    """The average factor by which parallel runs take longer than single ones."""

    factor: float = 1.0
    runs: int = 0
    known_until: float = -math.inf

    def add(self, ratio: float, seconds: float, now: float) -> None:
        if now > self.known_until:
            self.runs = 0
        self.runs += 1
        self.factor += (ratio - self.factor) * max(1 / self.runs, MEASURING.weight)
        self.known_until = now + MEASURING.fresh_s + MEASURING.fresh_runs * seconds

    def is_known(self, now: float) -> bool:
        return self.runs >= MEASURING.known_runs and now <= self.known_until


class Slowdowns:
    """Measures how much longer batches take beside others, by how many run at a time.

    The end of a batch whose begin was not recorded is ignored.
    """

    def __init__(self) -> None:
        #: Durations of batches alone, from their dispatch until their worker is free again.
        self.alone = CostModel()
        #: The number of running batches, summed up over time.
        self.running_s = 0.0
        self._at = 0.0
        self._begun: dict[Batch, float] = {}
        self._levels: dict[int, _Slowdown] = {}

    @property
    def running(self) -> int:
        """Batches that run."""
        return len(self._begun)

    def begun(self, batch: Batch, now: float) -> None:
        """Record that ``batch`` was dispatched."""
        self.advance(now)
        self._begun[batch] = self.running_s

    def ended(self, batch: Batch, now: float) -> None:
        """Record that the worker of ``batch`` is free again."""
        self.advance(now)
        before = self._begun.pop(batch, None)
        seconds = now - batch.started_at
        if before is None or seconds <= 0 or batch.cut_off or batch.run_s is None:
            return
        beside = (self.running_s - before) / seconds
        level = round(beside)
        if abs(beside - level) > MEASURING.impurity:
            return
        expected_s = self.alone.predict(batch.rows)
        if level == 1 or expected_s == 0:
            self.alone.ran(batch.rows, seconds, now=now)
        if expected_s > 0:
            ratio = min(seconds / expected_s, 2.0 * (level + 1))
            self._levels.setdefault(level, _Slowdown()).add(ratio, seconds, now)

    def advance(self, now: float) -> None:
        """Bring ``running_s`` up to ``now``."""
        self.running_s += len(self._begun) * (now - self._at)
        self._at = now

    def restart(self, level: int) -> None:
        """Measure ``level`` from the beginning."""
        self._levels[level] = _Slowdown()

    def known(self, level: int, now: float) -> float | None:
        """Return how many times longer runs take at ``level``; None if that has not been measured lately."""
        measured = self._levels.get(level)
        return measured.factor if measured is not None and measured.is_known(now) else None

    def of_trial(self, level: int) -> tuple[int, float]:
        """Return the runs at ``level``, and how many times longer they took."""
        measured = self._levels[level]
        return measured.runs, measured.factor
