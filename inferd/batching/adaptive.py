"""Adaptive batching: what the server learns about a model's runs and its callers, and what follows for the next batch.

Three questions are answered from measurements, none of them by a setting:

**What does a run cost?** `RunCost` fits the run time as a fixed part plus a part per row, over runs averaged by size in
powers of two, so that rare sizes are not forgotten. The fixed part is what batching saves. It also tells whether runs
are *short*: then the poll thread runs them itself, because waking a worker would take longer.

**Will more requests arrive soon?** `ArrivalPredictor` expects as many requests as were recently present at a time, if
arrivals have mostly come within the longest wait. Closed-loop callers come back after an answer, so their number is the
peak; one caller alone has a peak of 1 and never waits. The usual measure, arrivals per window, fails at both ends: one
quick caller looks like many, and eight callers of a slow model look like none.

**How large should the next batch be?** `AdaptiveRules` bounds the configured rules: a batch is held no longer than it
saves, and if several instances can run at the same time without slowing each other down, the worker that asks first
leaves the idle ones their share (`sub_batches`).

Everything here is pure: functions of the times and counts that are passed in. None of it is thread-safe: the lock of
the `RequestQueue` guards it. Measurements behind the constants: docs/decisions/batching-*.md.
"""

import math
from dataclasses import dataclass, replace

from inferd.batching.planner import BatchRules


@dataclass(frozen=True, slots=True)
class Tuning:
    """The constants of adaptive batching."""

    #: The most runs that an average counts for, and the factor by which it fades at each fit, to no less than one run:
    #: recent runs count more than those at start, and a size that comes back is soon known again.
    average_runs: float = 8.0
    average_fade: float = 0.9
    #: Runs between two fits.
    runs_per_fit: int = 16
    #: Runs up to this are short: about what it takes to wake a thread that then has to get the interpreter lock.
    short_run_s: float = 0.0003
    #: If a larger share of the latest runs took longer, whatever delayed them, runs do not count as short.
    max_long_share: float = 0.5
    #: After a run with this much processor time, none counts as short for as many runs: the run time of some models
    #: depends on the values of their inputs.
    far_from_short_s: float = 0.01
    runs_until_trusted: int = 10_000
    #: A peak of present requests is remembered for one to two windows, each of at least this length and of this many
    #: times the longest wait. A window ends with the first arrival after it, so a pause does not erase the peak.
    window_s: float = 1.0
    window_waits: int = 4
    #: Weight of one decision in the share of decisions that were followed by an arrival in time, and the least share
    #: for which waiting pays.
    arrival_weight: float = 1 / 8
    min_arrival_share: float = 1 / 2
    #: A shorter hold is not worth the wake-up that ends it.
    min_wait_s: float = 0.0002
    #: Sub-batches may take this much of the time of one run of all rows, as each repeats the fixed part; and must save
    #: at least this long, or waking other workers is not worth it.
    max_shared_time: float = 1.5
    min_shared_saving_s: float = 0.0003
    #: Once in this many runs of each worker the opposite is tried, and what nearly pays to share is shared: sizes that
    #: never run would be judged for ever by how long they took when the server had just started.
    runs_per_trial: int = 32
    max_shared_time_in_trial: float = 1.75


TUNING = Tuning()


@dataclass(slots=True)
class _Average:
    """Rows and durations averaged over runs of similar size; ``runs`` is how many it counts for."""

    rows: float = 0.0
    seconds: float = 0.0
    own_s: float = 0.0
    runs: float = 0.0

    def add(self, rows: int, seconds: float, own_s: float) -> None:
        self.runs = min(self.runs + 1, TUNING.average_runs)
        self.rows += (rows - self.rows) / self.runs
        self.seconds += (seconds - self.seconds) / self.runs
        self.own_s += (own_s - self.own_s) / self.runs


class RunCost:
    """Learns the duration of a run as a fixed part plus a part per row.

    Only models whose run time is bounded by the number of rows (``are_bounded``) can have short runs: for others, past
    runs say nothing about the next one.
    """

    def __init__(self, *, are_bounded: bool = True) -> None:
        self._are_bounded = are_bounded
        self._averages: dict[int, _Average] = {}
        #: Number of runs so far.
        self.runs = 0
        #: The fixed part in seconds; None while all runs were of similar size.
        self.fixed_s: float | None = None
        #: The part per row in seconds; 0 until the fixed part is known.
        self.row_s = 0.0
        #: Whether runs of all sizes seen so far are short.
        self.is_short = False
        self._distrusted_until = 0
        self._long_share = 0.0

    def ran(self, rows: int, seconds: float, cpu_s: float | None = None) -> None:
        """Record a run of ``rows`` that took ``seconds``, and ``cpu_s`` of processor time of its thread.

        ``cpu_s`` is None where it says nothing, as on an accelerator. A run that took longer than its processor time
        was delayed by the interpreter lock or by another process, which happens to any model, however short its runs.
        """
        own_s = seconds if cpu_s is None else min(cpu_s, seconds)
        self._averages.setdefault(rows.bit_length(), _Average()).add(rows, seconds, own_s)
        self.runs += 1
        self._long_share += ((seconds > TUNING.short_run_s) - self._long_share) / TUNING.runs_per_fit
        if own_s >= TUNING.far_from_short_s:
            self._distrusted_until = self.runs + TUNING.runs_until_trusted
            self.is_short = False
        if self.runs % TUNING.runs_per_fit == 0:
            self._fit()
            slowest_s = max(average.own_s for average in self._averages.values())
            is_trusted = self._long_share < TUNING.max_long_share and self.runs >= self._distrusted_until
            self.is_short = self._are_bounded and slowest_s <= TUNING.short_run_s and is_trusted

    def is_short_of(self, rows: int) -> bool:
        """Whether a run of ``rows`` is short: runs of about this size have been seen, and all runs are short."""
        return self.is_short and rows.bit_length() in self._averages

    def never_short(self) -> None:
        """Stop assuming that the run time follows from the number of rows."""
        self._are_bounded = self.is_short = False

    @property
    def most_rows_per_s(self) -> float:
        """Rows per second at the cheapest batch size; 0 before the first run. May be read without the lock."""
        averages = list(self._averages.values())
        return max((average.rows / average.seconds for average in averages if average.seconds > 0), default=0.0)

    def _fit(self) -> None:
        """Fit a weighted straight line through the averages; neither part is below zero."""
        if len(self._averages) < 2:
            return
        averages = self._averages.values()
        runs = sum(average.runs for average in averages)
        mean_rows = sum(average.rows * average.runs for average in averages) / runs
        mean_s = sum(average.seconds * average.runs for average in averages) / runs
        spread = slope = 0.0
        for average in averages:
            from_mean = (average.rows - mean_rows) * average.runs
            spread += (average.rows - mean_rows) * from_mean
            slope += (average.seconds - mean_s) * from_mean
            average.runs = max(average.runs * TUNING.average_fade, 1.0)
        slope /= spread
        self.fixed_s = max(mean_s - slope * mean_rows, 0.0)
        self.row_s = max(slope, 0.0)


class ArrivalPredictor:
    """Predicts how many more requests will arrive within the longest wait.

    A request is present from its admission until its batch is being answered.
    """

    def __init__(self, *, max_wait_s: float) -> None:
        #: The longest hold at present; never above that of the start.
        self.max_wait_s = max_wait_s
        self._window_s = max(TUNING.window_s, TUNING.window_waits * max_wait_s)
        self._window_start = -math.inf
        self._peak = 0
        self._previous_peak = 0
        self._arrival_share = 0.0
        self._decided_at: float | None = None

    def arrived(self, now: float, present: int) -> None:
        """Record an arrival at ``now``; ``present`` includes it."""
        if self._decided_at is not None:
            self._learn(came_in_time=now - self._decided_at <= self.max_wait_s)
        if now - self._window_start >= self._window_s:
            self._previous_peak, self._peak = self._peak, 0
            self._window_start = now
        self._peak = max(self._peak, present)

    def expected_arrivals(self, now: float, present: int) -> int:
        """Return how many requests to expect, for a worker that is about to run an incomplete batch at ``now``."""
        missing = max(self._peak, self._previous_peak) - present
        if missing <= 0:
            return 0
        self._expire_decision(now)
        if self._decided_at is None:
            self._decided_at = now
        return missing if self._arrival_share >= TUNING.min_arrival_share else 0

    def answering(self, now: float) -> None:
        """Record that a batch is being answered: the next arrival may be from one of its callers, not a missing one."""
        self._expire_decision(now)
        self._decided_at = None

    def _expire_decision(self, now: float) -> None:
        if self._decided_at is not None and now - self._decided_at >= self.max_wait_s:
            self._learn(came_in_time=False)

    def _learn(self, *, came_in_time: bool) -> None:
        self._arrival_share += (came_in_time - self._arrival_share) * TUNING.arrival_weight
        self._decided_at = None


class AdaptiveRules:
    """Bounds the configured batch rules by what batching saves, and by what parallel runs save.

    ``parallel_runs`` runs at a time take no longer than one alone.
    """

    def __init__(self, rules: BatchRules, *, parallel_runs: int, runs_are_bounded: bool = True) -> None:
        self._longest_wait_s = rules.max_wait_s
        self._parallel_runs = parallel_runs
        #: Whether workers share the waiting rows; then `for_next_batch` has the rules.
        self.shares = parallel_runs > 1
        self.run_cost = RunCost(are_bounded=runs_are_bounded)
        #: The rules at present. ``max_wait_s`` is never above that of the start.
        self.rules = rules

    def ran(self, rows: int, seconds: float, cpu_s: float | None = None) -> None:
        """Record a run; see `RunCost.ran`."""
        self.run_cost.ran(rows, seconds, cpu_s)
        if self._longest_wait_s > 0:
            self._limit_wait(self.run_cost.fixed_s)

    def stop_batching(self) -> None:
        """Run each request alone from now on, however many rows it has."""
        self.run_cost.never_short()
        self.rules = replace(self.rules, max_rows=1, max_wait_s=0.0)
        self._longest_wait_s = 0.0

    def _limit_wait(self, saved_s: float | None) -> None:
        """Hold no batch longer than one run for both saves over two runs."""
        wait_s = self._longest_wait_s if saved_s is None else min(self._longest_wait_s, saved_s)
        if wait_s < TUNING.min_wait_s:
            wait_s = 0.0
        if wait_s != self.rules.max_wait_s:
            self.rules = replace(self.rules, max_wait_s=wait_s)

    def for_next_batch(self, running: int, *, rows: int, requests: int, further: int) -> BatchRules:
        """Return the rules for the next batch of a worker while ``running`` others are in a run.

        ``rows`` of ``requests`` wait, and ``further`` requests are expected. If all of them fit into one batch, the
        worker leaves idle ones their share.
        """
        idle = self._parallel_runs - running
        if idle < 2 or requests == 0 or self.run_cost.is_short:
            return self.rules
        expected = rows + math.ceil(further * rows / requests)
        if expected > self.rules.max_rows:
            return self.rules
        parts = self._parts(expected, idle)
        return self.rules if parts == 1 else replace(self.rules, max_rows=math.ceil(expected / parts))

    def _parts(self, rows: int, idle: int) -> int:
        fixed_s, row_s = self.run_cost.fixed_s, self.run_cost.row_s
        if fixed_s is None:
            return 1
        parts = sub_batches(rows, most=idle, fixed_s=fixed_s, row_s=row_s)
        # A trial is as many runs long as there are workers: several may come between two looks of one of them.
        if self.run_cost.runs % (TUNING.runs_per_trial * self._parallel_runs) >= self._parallel_runs:
            return parts
        if parts > 1:
            return 1
        return sub_batches(rows, most=idle, fixed_s=fixed_s, row_s=row_s, max_time=TUNING.max_shared_time_in_trial)


def sub_batches(rows: int, *, most: int, fixed_s: float, row_s: float, max_time: float = TUNING.max_shared_time) -> int:
    """Return into how many even parts, up to ``most``, to split ``rows`` so that parallel runs finish them soonest.

    A run takes ``fixed_s`` plus ``row_s`` for each row, whatever runs beside it. All parts together may take
    ``max_time`` of the time of one run.
    """
    rows_s = rows * row_s
    parts = min(rows, most)
    if fixed_s * (parts - max_time) > rows_s * (max_time - 1):
        parts = int(max_time + rows_s * (max_time - 1) / fixed_s)
    return parts if rows_s - rows_s / parts > TUNING.min_shared_saving_s else 1
