"""Rules, forecast and limits of a queue after a change of its number of instances."""

import math

from inferd.batching.adaptive import AdaptiveRules
from inferd.batching.forecast import Forecast
from inferd.batching.instances import Instances
from inferd.batching.planner import NOTHING_WAITS, BatchRules
from inferd.batching.request import Batch, DispatchEffects
from inferd.batching.scaling import InstanceScaling
from inferd.batching.waiting import WaitingRequests
from tests.fakes import Caller


class _Queue:
    """The parts of a queue for batches of 8 rows, whose runs take 0.1 s on up to ``likely`` cores."""

    def __init__(self, *, most=3, likely=3, parallel_runs=2):
        self.instances = Instances(least=1, most=most, likely=likely)
        self.instances.slowdowns.alone.seed(8, 0.1)
        self.rules = AdaptiveRules(BatchRules(max_rows=8), parallel_runs=1)
        self.forecast = Forecast(self.rules.run_cost, max_rows=8, workers=1, max_delay_s=0.0)
        self.waiting = WaitingRequests(max_rows=1000, max_bytes=10**9, priority_levels=1)
        self.scaling = InstanceScaling(self.instances, self.rules, self.forecast, self.waiting, parallel_runs)
        self.now = 100.0

    def grow(self):
        """Run batches whose requests have waited until there is another instance; return that change."""
        while True:
            effects = DispatchEffects()
            request = Caller(rows=8).request
            request.enqueued_at = self.now - 0.2
            batch = Batch(requests=[request], rows=8, started_at=self.now)
            self.scaling.dispatched(batch, self.now, self.now, effects)
            if effects.instances:
                return effects.instances
            self.now += 0.1
            batch.run_s = 0.1
            self.instances.ended(batch, self.now)


def test_rows_that_may_wait_follow_the_instances_that_are_likely():
    """So that a load for which there will be workers at once is not rejected."""
    queue = _Queue(most=4, likely=3)
    assert queue.forecast.least_rows == queue.waiting.level_rows == 2 * 8 * 3


def test_as_many_workers_share_as_have_cores():
    """However many instances there are."""
    queue = _Queue(parallel_runs=2)
    assert not queue.rules.shares
    queue.grow()
    assert queue.rules.shares
    assert queue.grow().count == 3
    assert queue.rules.for_next_batch(1, rows=8, requests=8, further=0) is queue.rules.rules


def test_drain_rate_is_expected_to_follow():
    """In proportion, where another instance has cores of its own; otherwise it is measured first."""
    for likely, factor in ((2, 2.0), (1, 1.0)):
        queue = _Queue(likely=likely)
        queue.forecast.drain.rows_per_s = 80.0
        assert queue.grow().factor == factor
        assert queue.forecast.drain.rows_per_s == 80.0 * factor


def test_idle_worker_is_woken_when_the_number_may_fall():
    """It would wait forever otherwise; with the least number it does."""
    queue = _Queue()
    assert queue.scaling.until(NOTHING_WAITS).time == math.inf
    queue.grow()
    assert queue.scaling.until(NOTHING_WAITS).time == queue.instances.evaluate_at < math.inf


def test_short_runs_and_scavengers_need_no_instance():
    """The first are done by the poll thread, the others may wait."""
    queue = _Queue()
    for batch in (
        Batch(requests=[Caller().request], rows=1, started_at=queue.now, is_online=False),
        Batch(requests=[Caller().request], rows=1, started_at=queue.now),
    ):
        queue.rules.run_cost.short.are_short = batch.is_online
        queue.scaling.dispatched(batch, queue.now, queue.now, DispatchEffects())
    assert queue.instances.slowdowns.running == 0
