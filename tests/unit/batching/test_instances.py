"""Changes of the number of instances."""

import pytest

from inferd.batching.instances import IDLE, LOAD, NO_GAIN, NO_THREAD, TUNING, Instances
from inferd.batching.request import Batch
from tests.fakes import Caller


class _Model:
    """Instances that are busy or idle. A run takes ``run_s`` alone, and ``slowdown`` times as long beside others."""

    def __init__(self, least=1, most=3, likely=3, slowdown=1.0):
        self.instances = Instances(least=least, most=most, likely=likely)
        self.run_s = 0.1
        self.slowdown = slowdown
        self.slowdown_of = {1: 1.0}
        self.now = 100.0
        self.reasons = []
        self.run(wait=0.0, times=4)

    @property
    def count(self):
        return self.instances.count

    def run(self, *, wait=2.0, times=1, would_share=False, rest_s=0.0):
        """Run as many batches at a time as there may be; the oldest request of each has waited ``wait`` run times."""
        for _ in range(times):
            self._note(self.instances.evaluate(self.now))
            batches = []
            for _ in range(self.count):
                request = Caller().request
                request.enqueued_at = self.now - wait * self.run_s
                batch = Batch(requests=[request], rows=1, started_at=self.now)
                batches.append(batch)
                idle_since = self.now - rest_s
                self._note(self.instances.dispatched(batch, self.now, idle_since, would_share=would_share))
            self.now += self.run_s * self.slowdown_of.get(len(batches), self.slowdown)
            for batch in batches:
                batch.run_s = self.now - batch.started_at
                self.instances.ended(batch, self.now)

    def rest(self, seconds):
        """Let ``seconds`` pass without load, with the evaluations that are due."""
        until = self.now + seconds
        while self.instances.evaluate_at <= until:
            self.now = self.instances.evaluate_at
            self._note(self.instances.evaluate(self.now))
        self.now = until

    def _note(self, change):
        if change is not None:
            self.reasons.append(change.reason)
            assert change.count == self.count
            while self.instances.has_spare_thread:
                self.instances.dismiss()


def test_waiting_requests_bring_more_instances():
    """Up to the maximum, in a few batches."""
    model = _Model()
    model.run(times=10)
    assert model.count == 3
    assert model.reasons == [LOAD, LOAD]


def test_fixed_number_never_changes():
    """Whatever waits."""
    model = _Model(least=2, most=2)
    model.run(times=50)
    model.rest(10_000)
    assert (model.count, model.reasons) == (2, [])
    assert not model.instances.may_change


def test_short_waits_bring_no_instance():
    """However many: a request that comes while a run is in progress waits for a part of it."""
    model = _Model()
    model.run(wait=TUNING.target_wait, times=500)
    assert model.count == 1


def test_one_long_wait_brings_no_instance():
    """It takes several batches."""
    model = _Model()
    for _ in range(50):
        model.run(wait=10.0)
        model.run(wait=0.0, times=10)
    assert model.count == 1


def test_batch_that_would_be_shared_brings_an_instance():
    """Callers that wait for their answers leave nothing in the queue; if the worker has no rest, it may still pay."""
    model = _Model()
    model.run(wait=0.0, would_share=True, rest_s=model.run_s, times=50)
    assert model.count == 1
    model.run(wait=0.0, would_share=True, rest_s=0.001, times=10)
    assert model.count == 3


def test_instance_that_does_not_pay_is_given_up():
    """Two take twice as long as one: after the trial, and not again until much later, then even later."""
    model = _Model(most=2, slowdown=2.0)
    model.run(times=50)
    assert model.reasons == [LOAD, NO_GAIN]
    model.run(times=int(0.8 * TUNING.refused_s / model.run_s))
    assert model.reasons == [LOAD, NO_GAIN]
    model.run(times=int(0.4 * TUNING.refused_s / model.run_s))
    assert model.reasons == [LOAD, NO_GAIN] * 2
    model.run(times=int(1.5 * TUNING.refused_s / model.run_s))
    assert model.reasons == [LOAD, NO_GAIN] * 2
    assert model.instances.may_be == 1


def test_instance_that_pays_a_little_stays():
    """Half as much again as one alone."""
    model = _Model(most=2, slowdown=1.33)
    model.run(times=50)
    assert model.reasons == [LOAD]


def test_unlikely_instance_is_not_tried_before_the_last_one_has_paid():
    """One cannot tell them apart; those with cores of their own come as fast as requests wait."""
    model = _Model(likely=2, slowdown=1.45)
    model.run(times=int(0.8 * TUNING.trial_runs / 2))
    assert model.reasons == [LOAD]
    model = _Model(slowdown=1.45)
    model.run(times=5)
    assert model.reasons == [LOAD, LOAD]


def test_instances_that_were_too_many_are_given_up_one_by_one():
    """Two pay, three are no faster than two."""
    model = _Model()
    model.slowdown_of = {1: 1.0, 2: 1.0, 3: 2.2}
    model.run(times=50)
    assert model.reasons == [LOAD, LOAD, NO_GAIN]
    assert model.count == 2


def test_instance_without_cores_of_its_own_needs_longer_waiting():
    """It mostly does not pay."""
    model = _Model(likely=1)
    model.run(times=int(0.8 * TUNING.unlikely_s / model.run_s))
    assert model.count == 1
    model.run(times=int(0.8 * TUNING.unlikely_s / model.run_s))
    assert model.count == 2


def test_idle_instances_end():
    """All that were not needed in a whole period, at once."""
    model = _Model()
    model.run(times=10)
    model.rest(TUNING.period_s / 2)
    assert model.count == 3
    model.rest(2 * TUNING.period_s)
    assert model.reasons == [LOAD, LOAD, IDLE]
    assert (model.count, model.instances.threads) == (1, 1)


def test_busy_instances_stay():
    """Nobody waits, but one instance fewer would be busy."""
    model = _Model()
    model.run(times=10)
    model.run(wait=0.0, times=int(5 * TUNING.period_s / model.run_s))
    assert model.count == 3


def test_each_shrinking_that_was_too_early_makes_the_next_one_later():
    """And a long time without one makes it earlier again."""
    model = _Model(most=2)
    lasted = []
    for _ in range(4):
        model.run(times=10)
        assert model.count == 2
        began = model.now
        while model.count == 2:
            model.rest(1.0)
        lasted.append(model.now - began)
    assert lasted == pytest.approx([TUNING.period_s * 2**number for number in range(4)], rel=0.1)
    model.rest(2 * TUNING.soon * lasted[-1])
    model.run(times=10)
    model.rest(lasted[-1])
    assert model.count == 1


def test_instances_that_have_paid_need_no_further_trial():
    """All instances come as fast as requests wait."""
    model = _Model()
    model.run(times=10)
    model.rest(10 * TUNING.period_s)
    assert model.count == 1
    model.run(times=3)
    assert model.count == 3


def test_no_thread_for_an_instance():
    """It is not tried again at once."""
    model = _Model(most=2)
    model.run(times=4)
    change = model.instances.no_thread(model.now)
    assert (change.count, change.reason, model.instances.threads) == (1, NO_THREAD, 1)
    model.run(times=100)
    assert model.count == 1


def test_no_thread_for_an_instance_that_is_not_needed_any_more():
    """As after the process was stopped for minutes while it started the thread: there is an instance in any case."""
    model = _Model(most=2)
    model.run(times=4)
    assert model.count == 2
    change = None
    while change is None:
        model.now += 30.0
        change = model.instances.evaluate(model.now)
    assert change.count == 1
    assert model.instances.no_thread(model.now) is None
    assert (model.count, model.instances.threads) == (1, 1)


def test_spare_thread_is_used_for_the_next_instance():
    """If it has not ended yet, no other one starts."""
    model = _Model(most=2)
    model.run(times=10)
    instances = model.instances
    while (change := instances.evaluate(model.now)) is None:
        model.now += 1.0
    assert (change.count, instances.has_spare_thread) == (1, True)
    grown = None
    while grown is None:
        request = Caller().request
        request.enqueued_at = model.now - 1.0
        batch = Batch(requests=[request], rows=1, started_at=model.now)
        grown = instances.dispatched(batch, model.now, model.now, would_share=False)
        model.now += model.run_s
        batch.run_s = model.run_s
        instances.ended(batch, model.now)
    assert not grown.starts_thread
    assert (instances.count, instances.threads) == (2, 2)


def test_number_under_load_leaves_out_what_does_not_pay():
    """For the capacity of a replica."""
    assert _Model(most=4, likely=3).instances.may_be == 3
    assert _Model(most=4, likely=8).instances.may_be == 4
    refused = _Model(slowdown=2.0)
    refused.run(times=50)
    assert refused.instances.may_be == 1
