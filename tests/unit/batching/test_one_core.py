"""Whether batches run on all cores, one at a time, or on one core each."""

import math

import pytest

from inferd.batching.one_core import TUNING
from inferd.batching.planner import WaitUntil
from inferd.batching.request import Batch
from tests.fakes import Caller
from tests.unit.batching.queue_state import Queue, failed

_ROWS = 4
_ALL_S = 0.04
_ONE_S = 0.06


class _Session:
    """A session for two runs, that is open or not."""

    runs = 2
    is_open = False


class _OneCore(Queue):
    """A queue with batches of four rows, two workers, and a session for runs on one core each."""

    def __init__(self, all_s=_ALL_S, one_s=_ONE_S, **settings):
        super().__init__(max_batch=_ROWS, **({"max_rows": 1000, "max_delay_ms": 0} | settings))
        self.session = _Session()
        self.opened = 0
        self.late_at = -math.inf
        self.state.run_on_one_core(self.session, self._open, lambda: self.late_at)
        self.state.rules.run_cost.seed(_ROWS, all_s)
        self.one_s = one_s

    def _open(self):
        self.opened += 1

    def open(self):
        self.session.is_open = True
        self.state.one_core.opened([(_ROWS, self.one_s)])

    def wait(self, batches, **caller):
        """Have the rows of full ``batches`` wait."""
        self.callers = [Caller(**caller) for _ in range(int(batches * _ROWS))]
        return self.offer(*self.callers)

    def start(self):
        """Take a batch, which there must be."""
        batch, self.effects = self.take(self.now)
        assert isinstance(batch, Batch)
        return batch

    def end(self, batch, run_s=0.01):
        batch.answering, batch.run_s = True, run_s
        self.state.retire(batch, self.now)

    def run(self, batches):
        """Run ``batches`` one after another, each for 0.1 s."""
        for _ in range(batches):
            batch = self.start()
            self.now += 0.1
            self.end(batch, _ALL_S)


@pytest.fixture
def queue():
    made = _OneCore()
    made.open()
    return made


def test_runs_on_all_cores_until_the_session_is_open():
    """Whatever waits, and several at a time if there are as many workers."""
    queue = _OneCore()
    queue.wait(5)
    assert not any(queue.start().on_one_core for _ in range(2))


def test_session_is_opened_when_full_batches_keep_waiting():
    """Once, after some batches in a row that left two full ones, and some time."""
    queue = _OneCore()
    queue.wait(20)
    asked = []
    for _ in range(TUNING.backlogs + 2):
        queue.run(1)
        asked.append(queue.effects.opens_one_core)
    assert asked == [False] * (TUNING.backlogs - 1) + [True] + [False] * 2


def test_session_is_not_opened_for_less():
    """A moment with little in between begins the count again."""
    queue = _OneCore()
    for _ in range(3):
        queue.wait(TUNING.backlogs + 1)
        queue.run(TUNING.backlogs + 1)
        assert not queue.effects.opens_one_core


def test_session_that_was_released_is_opened_again(queue):
    """It has been opened before, so its answers are known to be the same."""
    queue.session.is_open = False
    queue.wait(20)
    asked = []
    for _ in range(TUNING.backlogs):
        queue.run(1)
        asked.append(queue.effects.opens_one_core)
    assert asked[-1]


def test_two_full_batches_run_on_one_core_each(queue):
    """Another worker is to take the second one."""
    queue.wait(2)
    first = queue.start()
    assert (first.on_one_core, first.rows) == (True, _ROWS)
    assert queue.effects.wake_worker
    assert queue.start().on_one_core


def test_less_runs_on_all_cores_alone(queue):
    """Other workers wait until it has ended, and are not woken for what arrives meanwhile."""
    queue.wait(1.5)
    batch = queue.start()
    assert not batch.on_one_core
    assert not queue.effects.wake_worker
    assert not queue.wait(1).wake_worker
    plan, _ = queue.take()
    assert isinstance(plan, WaitUntil)
    assert plan.time == math.inf
    queue.end(batch)
    assert queue.start().rows == _ROWS


def test_runs_on_one_core_go_on_while_a_full_batch_waits(queue):
    """Then what is left waits for all cores; a worker is woken if it becomes a full batch again before."""
    queue.wait(3.5)
    first, second = queue.start(), queue.start()
    queue.end(first)
    third = queue.start()
    assert third.on_one_core
    queue.end(second)
    plan, _ = queue.take()
    assert (plan.time, plan.rows) == (math.inf, _ROWS // 2)
    assert queue.wait(0.5).wake_worker
    assert queue.start().on_one_core


def test_rest_runs_on_all_cores_when_the_others_have_ended(queue):
    """The worker that ends the last of them takes it."""
    queue.wait(2.5)
    first, second = queue.start(), queue.start()
    queue.end(first)
    assert isinstance(queue.take()[0], WaitUntil)
    queue.end(second)
    assert not queue.start().on_one_core


def test_costs_are_learned_apart(queue):
    """The forecast is that of the runs that go on."""
    queue.wait(2)
    first, second = queue.start(), queue.start()
    assert queue.state.forecast.cost is queue.state.one_core.cost
    for batch in (first, second):
        queue.end(batch, 0.05)
    assert queue.state.forecast.cost is queue.state.rules.run_cost
    assert queue.state.one_core.cost.predict(_ROWS) == pytest.approx(0.05)
    assert queue.state.rules.run_cost.predict(_ROWS) == pytest.approx(_ALL_S)


def test_another_priority_ends_runs_on_one_core(queue):
    """Higher priorities would wait for them. They come back when there has been one priority for long."""
    queue.wait(1, priority=2)
    queue.end(queue.start())
    queue.wait(6, priority=2)
    queue.offer(Caller(priority=1))
    queue.end(queue.start())
    batch = queue.start()
    assert not batch.on_one_core
    queue.end(batch)
    queue.now += TUNING.one_priority_s + 1
    assert queue.start().on_one_core


def test_one_core_is_left_to_a_late_poll_thread(queue):
    """While more calls come than it can read, and a moment longer."""
    queue.late_at = queue.now
    queue.wait(3)
    first = queue.start()
    assert first.on_one_core
    assert isinstance(queue.take()[0], WaitUntil)
    queue.end(first)
    second = queue.start()
    assert second.on_one_core
    queue.now += TUNING.late_s
    assert queue.start().on_one_core


def test_near_deadlines_run_on_all_cores(queue):
    """A run on one core would end after them."""
    queue.wait(3, deadline=queue.now + (_ALL_S + _ONE_S) / 2 * 1.3)
    batch, effects = queue.take(queue.now)
    assert not failed(effects)
    assert not batch.on_one_core


def test_far_deadlines_run_on_one_core(queue):
    """They leave time for it."""
    queue.wait(3, deadline=queue.now + 10)
    assert queue.start().on_one_core


def test_tries_again_now_and_then_if_it_does_not_pay():
    """Two runs on one core that take longer than two on all cores one after another."""
    queue = _OneCore(one_s=3 * _ALL_S)
    queue.open()
    on_one = []
    for _ in range(TUNING.trial_batches + TUNING.batches_until_trial + 2):
        queue.wait(3 - queue.state.waiting.rows / _ROWS)
        batch = queue.start()
        on_one.append(batch.on_one_core)
        queue.end(batch, 3 * _ALL_S if batch.on_one_core else _ALL_S)
    assert all(on_one[: TUNING.trial_batches])
    later = on_one[TUNING.trial_batches :]
    assert not any(later[: TUNING.batches_until_trial - 1])
    assert later[TUNING.batches_until_trial - 1]


def test_scavengers_run_on_all_cores(queue):
    """Others would wait for them for longer."""
    queue.wait(3, priority=4)
    assert not queue.start().on_one_core


def test_closed_queue_waits_for_no_run(queue):
    """Nothing would wake the worker that waits."""
    queue.wait(2.5)
    queue.start()
    queue.state.close()
    queue.start()
    assert queue.start().rows == _ROWS / 2


def test_hanging_run_is_not_waited_for(queue):
    """Its rest runs on all cores."""
    queue.wait(2)
    batch = queue.start()
    rest = queue.state.hand_over(batch, queue.now, queue.effects)
    assert not rest.on_one_core
    queue.end(rest)
    assert queue.start().rows == _ROWS
