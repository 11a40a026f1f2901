"""Held batches over time: closed-loop callers and one worker."""

import heapq
from dataclasses import dataclass

import pytest

from inferd.batching.planner import BatchRules
from inferd.batching.policies import policy_for
from inferd.batching.request import Batch, DispatchEffects
from inferd.batching.state import QueueState
from inferd.config.settings import QueueSettings
from tests.fakes import Caller

_RETURN_S = 0.0001


@dataclass
class _Run:
    """A batch: its rows, and the time from when its worker could have run it until its start."""

    rows: int
    held_s: float


def _simulate(callers, *, run_s, max_wait_s, runs):
    """Simulate ``callers`` and one worker on a fake clock for ``runs`` runs."""
    settings = QueueSettings()
    state = QueueState(
        name="m",
        settings=settings,
        policy=policy_for(settings),
        rules=BatchRules(max_rows=64, max_wait_s=max_wait_s),
        workers=1,
        parallel_runs=1,
    )
    arrivals = [number * run_s / 3 for number in range(callers)]
    now, done = 0.0, []

    def come_until(time):
        while arrivals and arrivals[0] <= time:
            state.offer(Caller().request, heapq.heappop(arrivals), DispatchEffects())

    while len(done) < runs:
        idle_since = now
        while not isinstance(planned := state.next_batch(now, idle_since, DispatchEffects()), Batch):
            now = min([planned.time, *arrivals[:1]])
            come_until(now)
        oldest = min(request.enqueued_at for request in planned.requests)
        done.append(_Run(planned.rows, now - max(idle_since, oldest)))
        now += run_s
        come_until(now)
        planned.answering = True
        for number in range(planned.rows):
            heapq.heappush(arrivals, now + (number + 1) * _RETURN_S)
        state.retire(planned, now)
    return done


@pytest.mark.parametrize(
    ("callers", "run_s"), [(2, 0.001), (3, 0.001), *((n, s) for n in (2, 3, 16) for s in (0.01, 5.0))]
)
def test_batches_converge_to_all_callers(callers, run_s):
    """Callers that begin apart soon share each batch, which is held no longer than they take to return."""
    runs = _simulate(callers, run_s=run_s, max_wait_s=0.004, runs=60)[20:]
    assert [run.rows for run in runs] == [callers] * 40
    assert max(run.held_s for run in runs) <= callers * _RETURN_S + 1e-9


def test_does_not_hold_batches_longer_than_that_saves():
    """Sixteen callers take 1.6 ms to return, and one run less saves 1 ms: separate batches are faster."""
    runs = _simulate(16, run_s=0.001, max_wait_s=0.004, runs=200)[100:]
    assert max(run.held_s for run in runs) <= 0.001 + 1e-9
    assert sum(run.rows for run in runs) / sum(0.001 + run.held_s for run in runs) > 16 / 0.0026


@pytest.mark.parametrize("run_s", [0.0001, 0.001, 0.1])
def test_single_caller_never_waits(run_s):
    """Not once, whatever wait is configured."""
    runs = _simulate(1, run_s=run_s, max_wait_s=1.0, runs=200)
    assert all(run.held_s == 0 for run in runs)


def test_without_a_wait_no_batch_is_held():
    """An idle worker takes what is queued."""
    runs = _simulate(5, run_s=0.01, max_wait_s=0.0, runs=50)
    assert all(run.held_s == 0 for run in runs)
