"""Scavengers of one model and regular requests of another, through their queues."""

import threading

import pytest

from inferd.batching.idle_cores import IdleCores
from inferd.batching.planner import BatchRules, rules_for_scavengers
from inferd.batching.policies import policy_for
from inferd.batching.queue import RequestQueue
from inferd.batching.request import Batch, DispatchEffects, ReplyDispatcher
from inferd.batching.state import QueueState
from inferd.config.settings import QueueSettings
from tests.fakes import Caller, FakeClock, ManualPollThread, RecordingStats
from tests.patience import PATIENCE_S

_SETTINGS = QueueSettings()
_SCAVENGER = _SETTINGS.priority_levels + 1
_NOW = 100.0


def _state(cores):
    return QueueState(
        name="m",
        settings=_SETTINGS,
        policy=policy_for(_SETTINGS),
        rules=BatchRules(max_rows=4),
        workers=2,
        parallel_runs=1,
        cores=cores.register(),
    )


@pytest.fixture
def states():
    """Return the queues of two models that share the processors."""
    cores = IdleCores()
    return _state(cores), _state(cores)


def _offer(state, **request):
    state.offer(Caller(**request).request, _NOW, DispatchEffects())


def _take(state):
    return state.next_batch(_NOW, _NOW, DispatchEffects())


def test_scavengers_wait_for_regular_runs_of_another_model(states):
    """They run once those have ended."""
    other, state = states
    _offer(other)
    running = _take(other)
    _offer(state, priority=_SCAVENGER)
    assert not isinstance(_take(state), Batch)
    other.retire(running, _NOW)
    assert isinstance(_take(state), Batch)


def test_regular_requests_do_not_wait_for_another_model(states):
    """Nor for scavengers queued with them."""
    other, state = states
    _offer(other)
    _take(other)
    _offer(state, priority=_SCAVENGER)
    _offer(state)
    batch = _take(state)
    assert [request.priority for request in batch.requests] == [1]


def test_scavengers_run_beside_those_of_another_model(states):
    """They yield to regular requests only."""
    other, state = states
    for each in states:
        _offer(each, priority=_SCAVENGER)
    assert isinstance(_take(other), Batch)
    assert isinstance(_take(state), Batch)


def test_stuck_run_does_not_delay_scavengers(states):
    """Its requests were answered when it was given up."""
    other, state = states
    caller = Caller()
    other.offer(caller.request, _NOW, DispatchEffects())
    hanging = _take(other)
    caller.request.reply.withdraw()
    _offer(state, priority=_SCAVENGER)
    assert not isinstance(_take(state), Batch)
    assert other.hand_over(hanging, _NOW, DispatchEffects()) is None
    assert isinstance(_take(state), Batch)


def test_closing_model_runs_its_scavengers(states):
    """Whatever others run, it must end."""
    other, state = states
    _offer(other)
    _take(other)
    _offer(state, priority=_SCAVENGER)
    state.close()
    assert isinstance(_take(state), Batch)


def _queue(state):
    clock = FakeClock(_NOW)
    return RequestQueue(
        state=state,
        replies=ReplyDispatcher(clock=clock, stats=RecordingStats()),
        clock=clock,
        poll_thread=ManualPollThread(clock),
        run_here=lambda _: None,
        run_outside=lambda _: None,
        on_running_settled=lambda: None,
    )


def test_end_of_a_run_wakes_a_worker_with_scavengers(states, monkeypatch):
    """The worker that ran waits for its next batch meanwhile."""
    asked = threading.Event()
    may_scavenge = IdleCores.may_scavenge

    def asks(cores, share):
        may = may_scavenge(cores, share)
        asked.set()
        return may

    monkeypatch.setattr(IdleCores, "may_scavenge", asks)
    other, queue = map(_queue, states)
    other.submit([Caller().request])
    running = other.take(None)
    queue.submit([Caller(priority=_SCAVENGER).request])
    taken = []
    scavenger = threading.Thread(target=lambda: taken.append(queue.take(None)), daemon=True)
    scavenger.start()
    assert asked.wait(PATIENCE_S)
    assert not taken
    worker = threading.Thread(target=other.take, args=(running,), daemon=True)
    worker.start()
    scavenger.join(PATIENCE_S)
    assert [len(batch.requests) for batch in taken] == [1]
    other.close()
    worker.join(PATIENCE_S)
    assert not worker.is_alive()


def test_end_of_a_run_outside_the_queue_wakes_scavengers(states):
    """Its thread retires it without taking another batch."""
    other, queue = map(_queue, states)
    woken = []
    other.submit([Caller().request])
    running = other.take(None)
    states[1].cores.wake = lambda: woken.append(queue)
    _offer(states[1], priority=_SCAVENGER)
    _take(states[1])
    other.retire(running)
    assert woken == [queue]


@pytest.mark.parametrize(
    ("others_wait", "others_ran", "rows"), [(False, False, 32), (True, False, 28), (False, True, 16), (True, True, 16)]
)
def test_scavenger_batches_are_smaller_if_they_delay_others(others_wait, others_ran, rows):
    """Smallest where other models run at the same time."""
    rules = rules_for_scavengers(BatchRules(max_rows=32), others_wait=others_wait, others_ran=others_ran)
    assert rules.max_rows == rows


def test_scavenger_runs_are_short_while_another_model_is_busy(states):
    """Its next run may overlap with them, and then takes longer."""
    other, state = states
    for _ in range(8):
        _offer(state, priority=_SCAVENGER)
    _offer(other)
    other.retire(_take(other), _NOW)
    assert [_take(state).rows, _take(state).rows] == [2, 4]
