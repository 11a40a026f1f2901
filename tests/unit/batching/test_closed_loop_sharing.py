"""Two workers and callers who wait for an answer before they ask again, seen over time."""

import heapq
import itertools
from dataclasses import dataclass, field

import pytest

from inferd.batching.planner import BatchRules
from inferd.batching.policies import policy_for
from inferd.batching.request import Batch, Effects
from inferd.batching.state import QueueState
from inferd.config.settings import QueueSettings
from tests.fakes import Caller

_RETURN_S = 0.00005


@dataclass
class _Loop:
    """Plays callers against workers on a fake clock; ``ran`` has the rows of each batch in the order of starting."""

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
        """Go on until so many more batches have started; returns their rows and the requests answered in a second."""
        began, known = self.now, len(self.ran)
        while len(self.ran) < known + batches:
            self._step()
        rows = self.ran[known:]
        return rows, sum(rows) / (self.now - began)

    def _step(self):
        next_times = [wake for wake in map(self._take, list(self._idle_since)) if wake is not None]
        self.now = min([*next_times, *self._arrivals[:1], *[end for end, _, _ in self._ends[:1]]])
        while self._arrivals and self._arrivals[0] <= self.now:
            self._state.offer(Caller().request, heapq.heappop(self._arrivals), Effects())
        while self._ends and self._ends[0][0] <= self.now:
            self._finish(heapq.heappop(self._ends)[2])

    def _take(self, idle_since):
        planned = self._state.next_batch(self.now, idle_since, Effects())
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


def test_callers_who_could_all_run_together_are_shared_between_idle_workers():
    """Half of them in each batch, but for a few trials, and half as many again are answered as by one worker."""
    both = _Loop(64, fixed_s=0.005, row_s=0.0003)
    one = _Loop(64, fixed_s=0.005, row_s=0.0003, workers=1, parallel_runs=1)
    both.run(100)
    one.run(100)
    rows, per_s = both.run(100)
    assert rows.count(32) > 90
    assert per_s > 1.5 * one.run(100)[1]


def test_with_callers_enough_for_both_batches_are_full():
    """Sharing is for workers who would be idle."""
    loop = _Loop(140, fixed_s=0.005, row_s=0.0003)
    loop.run(100)
    assert loop.run(100)[0] == [64] * 100


@pytest.mark.parametrize(("fixed_s", "row_s"), [(0.025, 0.0), (0.02, 0.0001)])
def test_a_model_that_gains_nothing_runs_all_in_one(fixed_s, row_s):
    """Two runs would be done hardly sooner, and hold back the callers of the one that ends first."""
    loop = _Loop(32, fixed_s=fixed_s, row_s=row_s)
    loop.run(100)
    assert loop.run(50)[0] == [32] * 50


def test_runs_that_take_each_others_time_are_not_made_of_shares():
    """As on a GPU, or with fewer cores than threads: one worker takes what there is."""
    loop = _Loop(32, fixed_s=0.005, row_s=0.0003, parallel_runs=1)
    loop.run(100)
    assert loop.run(50)[0] == [32] * 50


def test_a_caller_alone_is_answered_at_once_beside_an_idle_worker():
    """Each time, in the time of its own run."""
    loop = _Loop(1, fixed_s=0.005, row_s=0.0003)
    _, per_s = loop.run(50)
    assert per_s == pytest.approx(1 / (0.0053 + _RETURN_S), rel=0.05)
