"""Two workers and closed-loop callers over time."""

import heapq
import itertools
from dataclasses import dataclass, field

import pytest

from inferd.batching.planner import BatchRules
from inferd.batching.policies import policy_for
from inferd.batching.request import Batch, DispatchEffects
from inferd.batching.state import QueueState
from inferd.config.settings import QueueSettings
from tests.fakes import Caller

_RETURN_S = 0.00005


@dataclass
class _Loop:
    """Simulates callers and workers on a fake clock; ``ran`` has the rows of each batch in order of start."""

    callers: int
    fixed_s: float
    row_s: float
    workers: int = 2
    parallel_runs: int = 2
    now: float = 0.0
    ran: list[int] = field(default_factory=list)

    def __post_init__(self):
        settings = QueueSettings()
        self._state = QueueState(
            name="m",
            settings=settings,
            policy=policy_for(settings),
            rules=BatchRules(max_rows=64, max_wait_s=0.01),
            workers=self.workers,
            parallel_runs=self.parallel_runs,
        )
        self._arrivals = [number * 0.001 for number in range(self.callers)]
        self._idle_since = [0.0] * self.workers
        self._ends: list[tuple[float, int, Batch]] = []
        self._number = itertools.count()

    def run(self, batches):
        """Simulate until ``batches`` more have started; return their rows and the requests answered per second."""
        began, known = self.now, len(self.ran)
        while len(self.ran) < known + batches:
            self._step()
        rows = self.ran[known:]
        return rows, sum(rows) / (self.now - began)

    def _step(self):
        next_times = [wake for wake in map(self._take, list(self._idle_since)) if wake is not None]
        self.now = min([*next_times, *self._arrivals[:1], *[end for end, _, _ in self._ends[:1]]])
        while self._arrivals and self._arrivals[0] <= self.now:
            self._state.offer(Caller().request, heapq.heappop(self._arrivals), DispatchEffects())
        while self._ends and self._ends[0][0] <= self.now:
            self._finish(heapq.heappop(self._ends)[2])

    def _take(self, idle_since):
        planned = self._state.next_batch(self.now, idle_since, DispatchEffects())
        if not isinstance(planned, Batch):
            return planned.time
        self._idle_since.remove(idle_since)
        self.ran.append(planned.rows)
        planned.run_s = self.fixed_s + planned.rows * self.row_s
        heapq.heappush(self._ends, (self.now + planned.run_s, next(self._number), planned))
        return None

    def _finish(self, batch):
        batch.answering = True
        for number in range(batch.rows):
            heapq.heappush(self._arrivals, self.now + (number + 1) * _RETURN_S)
        self._state.retire(batch, self.now)
        self._idle_since.append(self.now)


def test_idle_workers_share_callers_that_fit_one_batch():
    """Half of the callers per batch, but for a few trials: 1.5 times the throughput of one worker."""
    both = _Loop(64, fixed_s=0.005, row_s=0.0003)
    one = _Loop(64, fixed_s=0.005, row_s=0.0003, workers=1, parallel_runs=1)
    both.run(100)
    one.run(100)
    rows, per_s = both.run(100)
    assert rows.count(32) > 90
    assert per_s > 1.5 * one.run(100)[1]


def test_batches_are_full_with_enough_callers():
    """Only otherwise idle workers get shares."""
    loop = _Loop(140, fixed_s=0.005, row_s=0.0003)
    loop.run(100)
    assert loop.run(100)[0] == [64] * 100


@pytest.mark.parametrize(("fixed_s", "row_s"), [(0.025, 0.0), (0.02, 0.0001)])
def test_does_not_share_if_runs_end_no_sooner(fixed_s, row_s):
    """Two runs would also hold back the callers of the first to end."""
    loop = _Loop(32, fixed_s=fixed_s, row_s=row_s)
    loop.run(100)
    assert loop.run(50)[0] == [32] * 50


def test_does_not_share_runs_that_slow_each_other_down():
    """As on a GPU, or with fewer cores than threads: one worker takes everything."""
    loop = _Loop(32, fixed_s=0.005, row_s=0.0003, parallel_runs=1)
    loop.run(100)
    assert loop.run(50)[0] == [32] * 50


def test_single_caller_waits_for_its_own_run_only():
    """An idle second worker does not delay it."""
    loop = _Loop(1, fixed_s=0.005, row_s=0.0003)
    _, per_s = loop.run(50)
    assert per_s == pytest.approx(1 / (0.0053 + _RETURN_S), rel=0.05)
