"""Adaptive batching: what the server learns about a model's runs and its callers, and what follows for the next batch.

Three questions are answered from measurements, none of them by a setting:

**What does a run cost?** `CostModel` (cost_model.py) knows a fixed part, which is what batching saves, and a part per
row. It also tells whether runs are *short*: then the poll thread runs them itself, because waking a worker would take
longer.

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

from inferd.batching.cost_model import CostModel
from inferd.batching.planner import BatchRules


@dataclass(frozen=True, slots=True)
class Tuning:
    """The constants of adaptive batching."""

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
    #: never run would be judged forever by how long they took when the server had just started.
    runs_per_trial: int = 32
    max_shared_time_in_trial: float = 1.75


TUNING = Tuning()


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
        if self._decided_at is not None:
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
        self._most_rows = rules.max_rows
        self.set_parallel_runs(parallel_runs)
        self.run_cost = CostModel(are_bounded=runs_are_bounded)
        self.arrivals = ArrivalPredictor(max_wait_s=rules.max_wait_s)
        #: The rules at present. ``max_wait_s`` is never above that of the start.
        self.rules = rules

    def set_parallel_runs(self, parallel_runs: int) -> None:
        """Let at most this many parallel runs share waiting rows."""
        self._parallel_runs = parallel_runs
        #: Whether workers share the waiting rows; then `for_next_batch` has the rules.
        self.shares = parallel_runs > 1

    def ran(self, rows: int, seconds: float, cpu_s: float | None = None, now: float = 0.0) -> None:
        """Record a run; see `CostModel.ran`."""
        self.run_cost.ran(rows, seconds, cpu_s, now)
        if self._longest_wait_s > 0:
            self._limit_wait(self.run_cost.fixed_s)

    def limit_rows(self, max_rows: int) -> None:
        """Have at most ``max_rows`` in a batch from now on, but no more than at the start."""
        self.rules = replace(self.rules, max_rows=min(max_rows, self._most_rows))

    def stop_batching(self) -> None:
        """Run each request alone from now on, however many rows it has."""
        self.run_cost.never_short()
        self._most_rows = 1
        self.rules = replace(self.rules, max_rows=1, max_wait_s=0.0)
        self._longest_wait_s = self.arrivals.max_wait_s = 0.0

    def _limit_wait(self, saved_s: float | None) -> None:
        """Hold no batch longer than one run for both saves over two runs."""
        wait_s = self._longest_wait_s if saved_s is None else min(self._longest_wait_s, saved_s)
        if wait_s < TUNING.min_wait_s:
            wait_s = 0.0
        if wait_s != self.rules.max_wait_s:
            self.rules = replace(self.rules, max_wait_s=wait_s)
            self.arrivals.max_wait_s = wait_s

    def for_next_batch(self, running: int, *, rows: int, requests: int, further: int) -> BatchRules:
        """Return the rules for the next batch of a worker while ``running`` others are in a run.

        ``rows`` of ``requests`` wait, and ``further`` requests are expected. If all of them fit into one batch, the
        worker leaves idle ones their share.
        """
        idle = self._parallel_runs - running
        if idle < 2 or requests == 0 or self.run_cost.short.are_short:
            return self.rules
        expected = rows + math.ceil(further * rows / requests)
        if expected > self.rules.max_rows:
            return self.rules
        parts = self._parts(expected, idle)
        return self.rules if parts == 1 else replace(self.rules, max_rows=math.ceil(expected / parts))

    def would_share(self, rows: int, requests: int) -> bool:
        """Return whether a worker would leave some of the ``rows`` of ``requests`` to another one that is idle."""
        fixed_s = self.run_cost.fixed_s
        if fixed_s is None or requests == 1:
            return False
        return sub_batches(rows, most=2, fixed_s=fixed_s, row_s=self.run_cost.row_s) > 1

    def _parts(self, rows: int, idle: int) -> int:
        fixed_s, row_s = self.run_cost.fixed_s, self.run_cost.row_s
        if fixed_s is None:
            return 1
        parts = sub_batches(rows, most=idle, fixed_s=fixed_s, row_s=row_s)
        # A trial is as many runs long as there are workers: several runs may begin between two batches of one of them.
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
