"""Predicts the duration of a run from its rows, with a bound on the error. Pure; not thread-safe.

**Predictions.** Runs are averaged by size, in four classes per octave, so that steps in the cost (padding, cache sizes)
show and rare sizes are not forgotten. A size that has not run is interpolated between its neighbours. Warm-up seeds the
classes; the first real run of a class replaces its seed. `upper` scales the prediction by the 95th percentile of
"actual over predicted", which is learned online, so that noise widens it and quiet narrows it again.

**Parts.** A weighted line through averages by octave gives the fixed part of a run, which is what batching saves, and
the part per row.

**Robustness.** A single run far above its prediction was held up by the machine and counts little. Two in a row are
believed: runs have become slow, and the averages follow within a few runs.

**Processor time.** A run that took longer than its thread's processor time was delayed by the interpreter lock or by
another process. Wall time decides when a run ends; processor time is what a request is charged for, and what decides
whether runs are *short*, so that the poll thread runs them itself.

Measurements behind the constants: docs/decisions/batching-*.md.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass

from inferd.observability.metrics.run_cost import PredictedRun, RunCost


@dataclass(frozen=True, slots=True)
class CostTuning:
    """The constants of the cost model."""

    #: The most runs that an average counts for, and the factor by which it fades at each fit, to no less than one run:
    #: recent runs count more than those at start, and a size that comes back is soon known again.
    average_runs: float = 8.0
    average_fade: float = 0.9
    #: Runs between two fits.
    runs_per_fit: int = 16
    #: A run that took more than `outlier` times the prediction counts as `outlier_counts` times the prediction, unless
    #: the run before it was such an outlier too. Not before the first `outlier_runs` runs.
    outlier: float = 2.0
    outlier_counts: float = 1.25
    outlier_runs: int = 4
    #: Step of the learned percentile and of the learned error, per run.
    percentile: float = 0.95
    step: float = 0.05
    #: Bounds of the factor between prediction and percentile, and its value before anything is known.
    start_factor: float = 1.3
    largest_factor: float = 8.0
    #: A size is sure after this many runs, and for this long after the last of them: a time and a number of run times.
    sure_runs: int = 3
    sure_s: float = 1.0
    sure_run_times: float = 4.0
    #: Runs up to this are short: about what it takes to wake a thread that then has to get the interpreter lock.
    short_run_s: float = 0.0003
    #: If a larger share of the latest runs took longer, whatever delayed them, runs do not count as short.
    max_long_share: float = 0.5
    #: After a run with this much processor time, none counts as short for as many runs: the run time of some models
    #: depends on the values of their inputs.
    far_from_short_s: float = 0.01
    runs_until_trusted: int = 10_000


COST = CostTuning()


@dataclass(slots=True)
class _Average:
    """Rows and durations averaged over runs of similar size; ``runs`` is how many it counts for, 0 for a seed.

    ``seconds`` is wall time, ``own_s`` processor time, ``at`` when the last of them ended.
    """

    rows: float = 0.0
    seconds: float = 0.0
    own_s: float = 0.0
    runs: float = 0.0
    at: float = 0.0

    def predict(self, rows: int, row_s: float) -> float:
        """Return the time of a run of ``rows`` of this size, if a row more takes ``row_s``."""
        return max(self.seconds + row_s * (rows - self.rows), self.seconds / 2)

    def add(self, rows: int, seconds: float, own_s: float) -> None:
        self.runs = min(self.runs + 1, COST.average_runs)
        self.rows += (rows - self.rows) / self.runs
        self.seconds += (seconds - self.seconds) / self.runs
        self.own_s += (own_s - self.own_s) / self.runs


class ShortRuns:
    """Decides whether the runs of a model are short, from the processor time of each and the wall time of most.

    Only models whose run time is bounded by the number of rows (``are_bounded``) can have short runs: for others, past
    runs say nothing about the next one.
    """

    def __init__(self, *, are_bounded: bool) -> None:
        self._are_bounded = are_bounded
        self._runs = 0
        self._trusted_from = 0
        self._long_share = 0.0
        #: Whether runs of all sizes seen so far are short.
        self.are_short = False

    def ran(self, seconds: float, own_s: float) -> None:
        """Record a run."""
        self._runs += 1
        self._long_share += ((seconds > COST.short_run_s) - self._long_share) / COST.runs_per_fit
        if own_s >= COST.far_from_short_s:
            self._trusted_from = self._runs + COST.runs_until_trusted
            self.are_short = False

    def judge(self, averages: Iterable[_Average]) -> None:
        """Decide again from the averages of all sizes."""
        slowest_s = max(average.own_s for average in averages)
        is_trusted = self._long_share < COST.max_long_share and self._runs >= self._trusted_from
        self.are_short = self._are_bounded and slowest_s <= COST.short_run_s and is_trusted

    def never(self) -> None:
        """Stop assuming that the run time follows from the number of rows."""
        self._are_bounded = self.are_short = False


class CostModel:
    """The cost of a run in seconds by its number of rows; see above."""

    def __init__(self, *, are_bounded: bool = True) -> None:
        self.are_bounded = are_bounded
        self.short = ShortRuns(are_bounded=are_bounded)
        self._octaves: dict[int, _Average] = {}
        self._sizes: dict[int, _Average] = {}
        # The sizes in order, for neighbours.
        self._keys: list[int] = []
        self._predicted: dict[int, float] = {}
        #: The 95th percentile of actual over predicted run times.
        self.factor = COST.start_factor
        self._after_outlier = False
        self._ran_at = -math.inf
        #: Number of runs so far.
        self.runs = 0
        #: The fixed part in seconds; None while all runs were of similar size.
        self.fixed_s: float | None = None
        #: The part per row in seconds; 0 until the fixed part is known.
        self.row_s = 0.0
        #: Typical relative error of the latest predictions, 0.1 for 10 %; None before the second run.
        self.error: float | None = None

    def seed(self, rows: int, seconds: float) -> None:
        """Record that a run of ``rows`` took ``seconds`` before the model was ready; real runs replace it."""
        average = self._average_of(rows)
        if average.runs == 0 and (average.rows == 0 or seconds < average.seconds):
            average.rows, average.seconds, average.own_s = rows, seconds, seconds
            self._predicted.clear()

    def ran(self, rows: int, seconds: float, cpu_s: float | None = None, now: float = 0.0) -> None:
        """Record a run of ``rows`` that took ``seconds`` and ended at ``now``.

        ``cpu_s`` is the processor time of its thread, or None where that says nothing, as on an accelerator.
        """
        own_s = seconds if cpu_s is None else min(cpu_s, seconds)
        self.short.ran(seconds, own_s)
        average = self._sizes.get(_size(rows))
        predicted_s = average.predict(rows, self.row_s) if average is not None else self.predict(rows)
        if average is None:
            average = self._average_of(rows)
        if self.runs and predicted_s > 0.0:
            seconds = self._judge(seconds, predicted_s)
        average.add(rows, seconds, own_s)
        octave = self._octaves.get(rows.bit_length())
        if octave is None:
            octave = self._octaves[rows.bit_length()] = _Average()
        octave.add(rows, seconds, own_s)
        average.at = self._ran_at = now
        self._predicted.clear()
        self.runs += 1
        if self.runs % COST.runs_per_fit == 0:
            self._fit()
            self.short.judge(self._octaves.values())

    def is_short_of(self, rows: int) -> bool:
        """Return whether a run of ``rows`` is short: runs of about this size have been seen, and all runs are short."""
        return self.short.are_short and rows.bit_length() in self._octaves

    def never_short(self) -> None:
        """Stop assuming that the run time follows from the number of rows."""
        self.short.never()

    @property
    def most_rows_per_s(self) -> float:
        """Rows per second at the cheapest batch size; 0 before the first run. May be read without the lock."""
        averages = list(self._octaves.values())
        return max((average.rows / average.seconds for average in averages if average.seconds > 0), default=0.0)

    def predict(self, rows: int) -> float:
        """Return how long a run of ``rows`` takes; 0 while nothing is known."""
        seconds = self._predicted.get(rows)
        if seconds is None:
            seconds = self._predicted[rows] = self._interpolate(rows)
        return seconds

    def upper(self, rows: int) -> float:
        """Return a duration that 95 % of the runs of ``rows`` do not exceed; 0 while nothing is known."""
        return self.predict(rows) * self.factor

    def row_processor_s(self, rows: int) -> float:
        """Return the processor time of a run of about ``rows``, per row; 0 while nothing is known."""
        average = self._sizes.get(_size(rows)) or self._octaves.get(rows.bit_length())
        return average.own_s / average.rows if average is not None else self.predict(rows) / rows

    def is_sure(self, rows: int, now: float) -> bool:
        """Return whether several runs of about this size, or of smaller and larger ones, have been seen lately.

        A prediction that is not sure must not be the reason to reject a request: nothing would ever correct it. None is
        if the run time depends on the values of the inputs.
        """
        if not self.are_bounded:
            return False
        at = bisect_left(self._keys, _size(rows))
        # The size itself is among those not below and, where it has run, also among those not above.
        above = any(self._is_fresh(self._sizes[key], now) for key in self._keys[at:])
        below = self._keys[: at + 1] if at < len(self._keys) and self._keys[at] == _size(rows) else self._keys[:at]
        return above and any(self._is_fresh(self._sizes[key], now) for key in below)

    def is_current(self, rows: int, now: float) -> bool:
        """Return whether the model has run within a few times the duration of a run of ``rows``.

        Its predictions are then being corrected.
        """
        return self.are_bounded and now - self._ran_at <= COST.sure_s + COST.sure_run_times * self.predict(rows)

    @staticmethod
    def _is_fresh(average: _Average, now: float) -> bool:
        fresh_s = COST.sure_s + COST.sure_run_times * average.seconds
        return average.runs >= COST.sure_runs and now - average.at <= fresh_s

    def snapshot(self, largest: int) -> RunCost | None:
        """Return the predictions for batches of up to ``largest`` rows; None while nothing is known."""
        if not self._keys:
            return None
        sizes = [*(1 << shift for shift in range((largest - 1).bit_length())), largest]
        return RunCost(
            sizes=tuple(PredictedRun(rows, self.predict(rows), self.upper(rows)) for rows in sizes),
            error=self.error,
            runs=self.runs,
        )

    def _judge(self, seconds: float, predicted_s: float) -> float:
        """Learn how far off the prediction was, and return what the run counts as; see `CostTuning.outlier`."""
        ratio = seconds / predicted_s
        # A step up is as much larger than a step down as runs above the percentile are rarer.
        step = COST.step * (COST.percentile if ratio > self.factor else COST.percentile - 1.0)
        self.factor = min(max(self.factor * (1.0 + step), 1.0), COST.largest_factor)
        error = min(abs(ratio - 1.0), 1.0)
        self.error = error if self.error is None else self.error + (error - self.error) * COST.step
        is_outlier = ratio > COST.outlier and self.runs >= COST.outlier_runs
        is_first, self._after_outlier = is_outlier and not self._after_outlier, is_outlier
        return COST.outlier_counts * predicted_s if is_first else seconds

    def _average_of(self, rows: int) -> _Average:
        key = _size(rows)
        average = self._sizes.get(key)
        if average is None:
            average = self._sizes[key] = _Average()
            insort(self._keys, key)
        return average

    def _interpolate(self, rows: int) -> float:
        if not self._keys:
            return 0.0
        key = _size(rows)
        at = bisect_left(self._keys, key)
        if at < len(self._keys) and self._keys[at] == key:
            return self._sizes[key].predict(rows, self.row_s)
        if at == 0:
            smallest = self._sizes[self._keys[0]]
            return max(smallest.seconds - self.row_s * (smallest.rows - rows), smallest.seconds * rows / smallest.rows)
        below = self._sizes[self._keys[at - 1]]
        if at == len(self._keys):
            # Without a known fixed part all of the largest run is taken for the part of its rows.
            row_s = below.seconds / below.rows if self.fixed_s is None else self.row_s
            return below.seconds + row_s * (rows - below.rows)
        above = self._sizes[self._keys[at]]
        share = (rows - below.rows) / (above.rows - below.rows)
        return below.seconds + share * (above.seconds - below.seconds)

    def _fit(self) -> None:
        """Fit a weighted straight line through the averages; neither part is below zero."""
        if len(self._octaves) < 2:
            return
        averages = self._octaves.values()
        runs = sum(average.runs for average in averages)
        mean_rows = sum(average.rows * average.runs for average in averages) / runs
        mean_s = sum(average.seconds * average.runs for average in averages) / runs
        spread = slope = 0.0
        for average in averages:
            from_mean = (average.rows - mean_rows) * average.runs
            spread += (average.rows - mean_rows) * from_mean
            slope += (average.seconds - mean_s) * from_mean
            average.runs = max(average.runs * COST.average_fade, 1.0)
        slope /= spread
        self.fixed_s = max(mean_s - slope * mean_rows, 0.0)
        self.row_s = max(slope, 0.0)


def _size(rows: int) -> int:
    """Return the class of a batch size: exact up to 7, then four classes per octave, in order of size."""
    shift = max(rows.bit_length() - 3, 0)
    return (shift << 3) | (rows >> shift)
