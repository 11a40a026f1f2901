"""The rules for batches, as far as they follow from how long runs have taken."""

import math
from dataclasses import replace

from inferd.batching.planner import BatchRules
from inferd.batching.run_cost import RunCost
from inferd.batching.sharing import parts

#: A shorter hold is not worth the wake-up that ends it.
_SHORTEST_WAIT_S = 0.0002
#: Once in so many runs of each worker, what is shared is not, and what nearly pays to share is shared: sizes that never
#: run would be judged for ever by how long they took when the server had just started.
_RUNS_PER_TRIAL = 32
#: What nearly pays; see `MOST_TIME`.
_MOST_TIME_IN_TRIAL = 1.75


class LearnedRules:
    """Bounds the rules that were set by what running together saves, and by what running side by side does.

    So many as ``parallel_runs`` at a time take no longer than one alone. Not thread-safe: guarded by the lock of the
    `RequestQueue` that it is a part of.
    """

    def __init__(self, rules: BatchRules, *, parallel_runs: int, runs_are_bounded: bool = True) -> None:
        self._longest_wait_s = rules.max_wait_s
        self._parallel_runs = parallel_runs
        self.run_cost = RunCost(are_bounded=runs_are_bounded)
        #: The rules at present. ``max_wait_s`` is never above that of the start.
        self.rules = rules

    def ran(self, rows: int, seconds: float, cpu_s: float | None = None) -> None:
        """A batch of ``rows`` took ``seconds``; see `RunCost.ran`."""
        self.run_cost.ran(rows, seconds, cpu_s)
        if self._longest_wait_s > 0:
            self._limit_wait(self.run_cost.fixed_s)

    def run_alone(self) -> None:
        """Put no requests together any longer: each is one run, however many rows it has."""
        self.run_cost.never_short()
        self.rules = replace(self.rules, max_rows=1, max_wait_s=0.0)
        self._longest_wait_s = 0.0

    def _limit_wait(self, saved_s: float | None) -> None:
        """Hold no batch for longer than running it together with the next one saves."""
        wait_s = self._longest_wait_s if saved_s is None else min(self._longest_wait_s, saved_s)
        if wait_s < _SHORTEST_WAIT_S:
            wait_s = 0.0
        if wait_s != self.rules.max_wait_s:
            self.rules = replace(self.rules, max_wait_s=wait_s)

    def beside(self, running: int, *, rows: int, requests: int, further: int) -> BatchRules:
        """Return the rules for the next batch of a worker while so many are ``running``.

        ``rows`` of ``requests`` wait, and so many ``further`` requests are to be expected. If one batch could have all
        of them, a worker leaves the idle ones their shares.
        """
        idle = self._parallel_runs - running
        if idle < 2 or requests == 0 or self.run_cost.is_short:
            return self.rules
        expected = rows + math.ceil(further * rows / requests)
        if expected > self.rules.max_rows:
            return self.rules
        found = self._parts(expected, idle)
        return self.rules if found == 1 else replace(self.rules, max_rows=math.ceil(expected / found))

    def _parts(self, rows: int, idle: int) -> int:
        fixed_s, row_s = self.run_cost.fixed_s, self.run_cost.row_s
        if fixed_s is None:
            return 1
        found = parts(rows, most=idle, fixed_s=fixed_s, row_s=row_s)
        # A trial is as many runs long as there are workers: several may come between two looks of one of them.
        if self.run_cost.runs % (_RUNS_PER_TRIAL * self._parallel_runs) >= self._parallel_runs:
            return found
        if found > 1:
            return 1
        return parts(rows, most=idle, fixed_s=fixed_s, row_s=row_s, most_time=_MOST_TIME_IN_TRIAL)
