"""Who waits, who is refused and what runs next, without threads."""

import pytest

from inferd.batching.planner import WaitUntil
from inferd.batching.request import Batch, Effects
from inferd.config.settings import Backpressure
from inferd.errors import (
    DeadlineExceededError,
    InvalidInputError,
    ModelUnavailableError,
    OverloadedError,
)
from tests.fakes import Caller
from tests.unit.batching.queue_state import Queue, failed


def test_an_admitted_request_is_stamped_released_and_wakes_a_worker():
    """Its time in the queue begins at admission, and its producer may go on."""
    queue, caller = Queue(), Caller()
    effects = queue.offer(caller)
    assert (effects.admitted, effects.failed, effects.wake_worker) == ([caller.request], [], True)
    assert caller.request.enqueued_at == 100.0


def test_reject_refuses_beyond_the_bound_with_a_computed_hint():
    """40 rows a second drain, 4 wait: a retry is likely to be admitted in a tenth of a second."""
    queue = Queue(max_batch=4, max_rows=8)
    queue.offer(Caller(rows=4), Caller(rows=4))
    queue.take()
    queue.now += 0.1
    queue.take()
    queue.offer(Caller(rows=4), Caller(rows=4))
    ((_, error),) = queue.offer(Caller(rows=1)).failed
    assert isinstance(error, OverloadedError)
    assert (error.reason, error.retry_after_s) == ("QUEUE_FULL", pytest.approx(0.2))
    assert error.message == 'the queue of model "m" is full: 8 of 8 rows and 16 of 268435456 bytes wait'


def _draining(rows_per_s, **settings):
    """An empty queue that was drained at ``rows_per_s`` in batches of one row, whose runs took no time themselves."""
    queue = Queue(max_batch=1, max_rows=1000, **settings)
    queue.offer(*(Caller() for _ in range(21)))
    for _ in range(21):
        batch, _ = queue.take()
        queue.now += 1 / rows_per_s
        batch.run_s, batch.started_at = 0.0, queue.now
        queue.state.retire(batch, queue.now)
    return queue


def _sharing(**settings):
    """A queue that knows of runs that two workers do sooner together, and has 8 rows."""
    queue = Queue(max_batch=64, max_rows=64, **settings)
    for rows in range(1, 33):
        queue.state.rules.ran(rows, 0.001 + rows * 0.001)
    queue.offer(*(Caller() for _ in range(8)))
    return queue


@pytest.mark.parametrize(
    ("workers", "parallel_runs", "rows"), [(2, 2, [4, 4]), (2, 8, [4, 4]), (2, 1, [8]), (4, 4, [2, 2, 2, 2])]
)
def test_idle_workers_share_what_waits(workers, parallel_runs, rows):
    """As many as there are, and as can run at the same time without loss; each share wakes who takes the next."""
    queue = _sharing(workers=workers, parallel_runs=parallel_runs)
    for expected in rows:
        batch, effects = queue.take()
        assert batch.rows == expected
        assert effects.wake_worker == (queue.state.waiting.count > 0)
    assert queue.state.waiting.count == 0


@pytest.mark.parametrize(("answering", "rows"), [(False, 8), (True, 4)])
def test_a_share_is_left_to_a_worker_that_has_run_and_is_answering(answering, rows):
    """It comes for its next batch in no time; one that is still running gets nothing."""
    queue = _sharing(workers=2, parallel_runs=2)
    first, second = queue.take()[0], queue.take()[0]
    queue.offer(*(Caller() for _ in range(8)))
    second.answering = answering
    queue.state.retire(first, queue.now)
    batch, _ = queue.take()
    assert batch.rows == rows


def test_what_an_idle_worker_takes_next_is_not_taken_for_a_fast_queue():
    """40 rows a second drain, though two workers that were idle take 4 rows each in no time."""
    queue = Queue(max_batch=4, max_rows=16, workers=2, max_delay_ms=0)
    for _ in range(3):
        queue.offer(*(Caller(rows=4) for _ in range(4)))
        batches = [queue.take()[0], queue.take()[0]]
        for first in range(2):
            queue.now += 0.1
            queue.state.retire(batches[first], queue.now)
            batches.append(queue.take()[0])
        for batch in batches[2:]:
            queue.state.retire(batch, queue.now)
    queue.offer(*(Caller(rows=4) for _ in range(4)))
    ((_, error),) = queue.offer(Caller(rows=4)).failed
    assert error.retry_after_s == pytest.approx(16 / 40)


def test_what_waits_behind_short_runs_tells_how_fast_the_queue_drains():
    """The poll thread does them one after the other, though workers are idle: 40 rows a second."""
    queue = Queue(max_batch=4, max_rows=16, workers=2, max_delay_ms=0)
    for _ in range(16):
        queue.state.rules.ran(4, 0.0001)
    queue.offer(*(Caller(rows=4) for _ in range(4)))
    for _ in range(4):
        batch, _ = queue.take()
        queue.now += 0.1
        batch.run_s = 0.0001
        queue.state.retire(batch, queue.now)
    queue.offer(*(Caller(rows=4) for _ in range(4)))
    ((_, error),) = queue.offer(Caller(rows=4)).failed
    assert error.retry_after_s == pytest.approx(16 / 40)


@pytest.mark.parametrize(
    ("rows_per_s", "max_delay_ms", "room"),
    [(128, 250, 12), (128, 62.5, 8), (4, 250, 2), (128, 0, 1000), (2**20, 250, 1000)],
)
def test_queue_limit_is_what_drains_within_the_delay_limit(rows_per_s, max_delay_ms, room):
    """That is five batches, at least 100 ms and at most the setting; but two batches and max_rows bound it."""
    queue = _draining(rows_per_s, max_delay_ms=max_delay_ms)
    effects = queue.offer(*(Caller() for _ in range(1001)))
    assert len(effects.admitted) == room
    assert {error.reason for _, error in effects.failed} == {"QUEUE_FULL"}


def test_a_request_larger_than_the_present_limit_fits_an_empty_queue():
    """It would never be admitted otherwise, although it is within the bound."""
    queue = _draining(100)
    assert len(queue.offer(Caller(rows=900), Caller()).admitted) == 1


@pytest.mark.parametrize("policy", list(Backpressure))
def test_a_limit_that_falls_below_what_waits_leaves_that_alone(policy):
    """What was admitted stays admitted; only newcomers find the queue full."""
    queue = _draining(1000, policy=policy)
    queue.offer(*(Caller() for _ in range(100)))
    for _ in range(40):
        queue.take()
        queue.now += 0.05
    assert queue.state.waiting.row_limit < queue.state.waiting.count


def test_rejects_requests_that_would_expire_in_the_queue():
    """100 rows a second drain: behind 22 that are due as early, a request has to wait for 220 ms."""
    queue = _draining(100, max_delay_ms=0)
    effects = queue.offer(*(Caller(deadline=queue.now + 0.215) for _ in range(25)))
    assert len(effects.admitted) == 22
    assert {error.reason for _, error in effects.failed} == {"DEADLINE_TOO_CLOSE"}


def test_rejects_requests_that_would_make_others_expire():
    """20 wait and are due in 215 ms: there is room for one that goes first, and not for a second."""
    queue = _draining(100, max_delay_ms=0)
    queue.offer(*(Caller(deadline=queue.now + 0.215) for _ in range(20)))
    first, second = Caller(deadline=queue.now + 0.1), Caller(deadline=queue.now + 0.1)
    assert queue.offer(first).admitted == [first.request]
    ((request, error),) = queue.offer(second).failed
    assert (request, error.reason) == (second.request, "DEADLINE_TOO_CLOSE")
    assert next(iter(queue.state.waiting)) is first.request


def test_only_rows_that_are_served_before_count_against_a_deadline():
    """An urgent request does not wait for those that are less so."""
    queue = _draining(100)
    queue.offer(*(Caller(priority=3) for _ in range(20)))
    urgent = Caller(priority=1, deadline=queue.now + 0.05)
    assert queue.offer(urgent).admitted == [urgent.request]


def test_the_bound_holds_without_batching():
    """Rows are bounded whether or not they may be stacked."""
    queue = Queue(max_batch=1)
    effects = queue.offer(*[Caller() for _ in range(5)])
    assert (len(effects.admitted), len(effects.failed)) == (4, 1)


def test_a_withdrawn_request_is_not_admitted():
    """A cancel that overtakes the request leaves nothing behind."""
    queue, caller = Queue(), Caller()
    caller.request.reply.withdraw()
    queue.offer(caller)
    assert queue.state.present == 0


def test_a_cancelled_request_gives_its_place_back_at_once():
    """No worker has to come by first."""
    queue, caller = Queue(), Caller(rows=4)
    queue.offer(caller)
    queue.remove(caller)
    assert queue.offer(Caller(rows=4)).failed == []


def test_removing_a_running_request_changes_nothing():
    """Its rows run with the batch; its place was given back when it was taken."""
    queue, caller = Queue(), Caller(rows=4)
    queue.offer(caller)
    queue.take()
    queue.remove(caller)
    assert (queue.state.running_rows, queue.state.waiting.rows) == (4, 0)


def test_an_expired_request_is_failed_by_the_timer_and_its_place_comes_back():
    """Even if every worker is busy."""
    queue = Queue()
    hurried, patient = Caller(rows=3, deadline=101.0), Caller()
    assert queue.offer(hurried).timers_at == [101.0]
    queue.offer(patient)
    queue.now = 101.0
    assert failed(queue.expire()) == {hurried.request: DeadlineExceededError}
    assert queue.state.waiting.rows == 1


def test_the_timer_goes_on_to_the_next_deadline():
    """One timer at a time, from deadline to deadline."""
    queue = Queue()
    effects = [queue.offer(Caller(deadline=deadline)).timers_at for deadline in (101.0, 103.0, 102.0)]
    assert effects == [[101.0], [], []]
    queue.now = 101.0
    assert queue.expire().timers_at == [102.0]


def test_an_expired_request_is_never_taken():
    """Although the timer is late, and although a batch-mate is alive."""
    queue = Queue()
    late, alive = Caller(deadline=101.0), Caller()
    queue.offer(late, alive)
    queue.now = 101.0
    batch, effects = queue.take()
    assert batch.requests == [alive.request]
    assert failed(effects) == {late.request: DeadlineExceededError}


def test_expired_requests_make_room_before_a_new_one_is_refused():
    """The timer being late costs nobody a refusal."""
    queue = Queue()
    queue.offer(Caller(rows=4, deadline=101.0))
    queue.now = 101.0
    newcomer = Caller(rows=4)
    effects = queue.offer(newcomer)
    assert effects.admitted == [newcomer.request]
    assert list(failed(effects).values()) == [DeadlineExceededError]


def test_a_running_request_is_answered_at_its_deadline():
    """A request with a timeout need not wait for the model."""
    queue, caller = Queue(), Caller(deadline=101.0)
    queue.offer(caller)
    queue.take()
    queue.now = 101.0
    assert failed(queue.expire()) == {caller.request: DeadlineExceededError}
    assert queue.state.running_rows == 1


def test_block_admits_strictly_in_order_as_room_frees():
    """A small request does not overtake a large one that waits for room, and is not admitted past it either."""
    queue = Queue(policy=Backpressure.BLOCK)
    large, small = Caller(rows=3), Caller(rows=1)
    queue.offer(first := Caller(rows=2), second := Caller(rows=1))
    assert queue.offer(large, small).admitted == []
    assert queue.remove(second).admitted == []
    assert queue.remove(first).admitted == [large.request, small.request]


def test_a_blocked_request_is_admitted_when_a_batch_is_taken():
    """Its time in the queue begins then, and a worker has something to look at."""
    queue = Queue(policy=Backpressure.BLOCK, max_batch=4)
    queue.offer(Caller(rows=4))
    queue.offer(blocked := Caller(rows=4))
    queue.now = 105.0
    batch, effects = queue.take()
    assert isinstance(batch, Batch)
    assert (effects.admitted, effects.wake_worker) == ([blocked.request], True)
    assert (blocked.request.offered_at, blocked.request.enqueued_at) == (100.0, 105.0)


def test_a_blocked_request_is_failed_at_its_deadline():
    """It waits for room at most that long."""
    queue = Queue(policy=Backpressure.BLOCK)
    queue.offer(Caller(rows=4))
    assert queue.offer(blocked := Caller(deadline=101.0)).timers_at == [101.0]
    queue.now = 101.0
    assert failed(queue.expire()) == {blocked.request: DeadlineExceededError}
    assert queue.state.present == 1


def test_a_blocked_request_that_leaves_lets_the_next_one_in():
    """The large one at the head of the line is cancelled; the one behind it fits."""
    queue = Queue(policy=Backpressure.BLOCK)
    queue.offer(Caller(rows=2), large := Caller(rows=3), small := Caller(rows=2))
    assert queue.remove(large).admitted == [small.request]


def test_an_expired_request_makes_room_for_a_blocked_one():
    """The timer is enough; no worker has to come by."""
    queue = Queue(policy=Backpressure.BLOCK)
    queue.offer(Caller(rows=4, deadline=101.0), blocked := Caller(rows=4))
    queue.now = 101.0
    assert queue.expire().admitted == [blocked.request]


def test_the_bytes_of_blocked_requests_are_given_back():
    """When one leaves the line in front of the queue, another of its size may come."""
    queue = Queue(policy=Backpressure.BLOCK, max_bytes=1024)
    queue.offer(Caller(rows=4), blocked := Caller(nbytes=1000))
    assert len(queue.offer(Caller(nbytes=1000)).failed) == 1
    queue.remove(blocked)
    assert queue.offer(Caller(nbytes=1000)).failed == []


def test_block_refuses_beyond_max_blocked_and_takes_again_after_a_cancel():
    """The line in front of the queue is exact too."""
    queue = Queue(policy=Backpressure.BLOCK, max_blocked=1)
    queue.offer(Caller(rows=4), blocked := Caller())
    ((_, error),) = queue.offer(Caller()).failed
    assert isinstance(error, OverloadedError)
    assert error.reason == "BLOCKED_LIMIT"
    queue.remove(blocked)
    assert queue.offer(Caller()).failed == []


def test_caller_runs_gives_a_batch_of_its_own_up_to_the_limit():
    """The request runs alone; after it has been retired another may."""
    queue = Queue(policy=Backpressure.CALLER_RUNS, caller_runs_limit=1)
    queue.offer(Caller(rows=4))
    batch = queue.run_now(caller := Caller(rows=2))
    assert (batch.requests, batch.rows, batch.outside_queue) == ([caller.request], 2, True)
    ((_, error),) = queue.offer(Caller()).failed
    assert isinstance(error, OverloadedError)
    assert error.reason == "CALLER_RUNS_LIMIT"
    queue.state.retire(batch, queue.now)
    assert queue.run_now(Caller()) is not None


def test_caller_runs_are_no_part_of_the_drain_rate():
    """They do not make the queue look faster than it is."""
    queue = Queue(policy=Backpressure.CALLER_RUNS, caller_runs_limit=1)
    queue.offer(Caller(rows=4))
    batch = queue.run_now(Caller())
    queue.now += 0.001
    queue.state.retire(batch, queue.now)
    assert queue.run_now(Caller()) is not None
    ((_, error),) = queue.offer(Caller()).failed
    assert isinstance(error, OverloadedError)
    assert error.retry_after_s == 1.0


def test_shed_oldest_fails_the_victims_and_admits_the_new_one():
    """The victims are told to retry later, with a reason of their own."""
    queue = Queue(policy=Backpressure.SHED_OLDEST)
    queue.offer(oldest := Caller(), Caller(rows=3))
    effects = queue.offer(newcomer := Caller())
    assert effects.admitted == [newcomer.request]
    ((victim, error),) = effects.failed
    assert victim is oldest.request
    assert isinstance(error, OverloadedError)
    assert error.reason == "SHED"
    assert queue.state.waiting.rows == 4


def test_a_request_that_can_never_fit_is_invalid_under_every_policy():
    """It would block for ever, or shed everybody in vain."""
    for policy in Backpressure:
        queue = Queue(policy=policy)
        assert list(failed(queue.offer(Caller(rows=5))).values()) == [InvalidInputError]


def test_a_worker_is_woken_again_while_something_is_left():
    """One worker takes a batch, and another one can plan the rest."""
    queue = Queue(max_batch=2)
    queue.offer(*[Caller(rows=1) for _ in range(3)])
    assert queue.take()[1].wake_worker
    assert not queue.take()[1].wake_worker


def test_a_retired_batch_lets_go_of_its_tensors():
    """An idle worker does not keep the messages of its last batch in memory."""
    queue = Queue()
    queue.offer(Caller())
    batch, _ = queue.take()
    queue.state.retire(batch, queue.now)
    assert batch.requests == []


def test_failing_everything_leaves_nobody_out():
    """Waiting, blocked and running requests are all failed."""
    queue = Queue(policy=Backpressure.BLOCK, max_batch=4)
    callers = [Caller(rows=4) for _ in range(3)]
    queue.offer(callers[0])
    queue.take()
    queue.offer(*callers[1:])
    effects = Effects()
    queue.state.fail_waiting(ModelUnavailableError("gone"), effects)
    queue.state.fail_running(ModelUnavailableError("gone"), effects)
    assert set(failed(effects)) == {caller.request for caller in callers}
    assert queue.state.waiting.rows == 0


def _short(queue, *rows):
    """Learn that runs of ``rows`` are short."""
    for _ in range(16):
        for number in rows:
            queue.offer(Caller(rows=number))
            batch, _ = queue.take()
            queue.now += 0.0001
            queue.state.retire(batch, queue.now)


def test_only_runs_of_known_sizes_are_taken_for_their_shortness():
    """What is larger is left for a worker, and is still there."""
    queue = Queue(max_rows=100)
    _short(queue, 1)
    queue.offer(small := Caller(), large := Caller(rows=20))
    batch, _ = queue.take(only_short=True)
    assert batch.requests == [small.request]
    assert isinstance(queue.take(only_short=True)[0], WaitUntil)
    batch, _ = queue.take()
    assert batch.requests == [large.request]


def test_a_batch_that_was_cut_off_teaches_nothing():
    """How long it took was the limit's doing."""
    queue = Queue()
    queue.offer(Caller())
    batch, _ = queue.take()
    batch.cut_off = True
    queue.now += 60.0
    queue.state.retire(batch, queue.now)
    assert queue.state.rules.run_cost.most_rows_per_s == 0.0
    assert queue.state.running_rows == 0


def test_what_a_stuck_thread_has_is_handed_over_without_those_who_are_answered():
    """Their answers count as given, and what is left is running."""
    queue, callers = Queue(), [Caller(), Caller(), Caller()]
    queue.offer(*callers)
    batch, _ = queue.take()
    callers[1].request.reply.withdraw()
    rest = queue.state.hand_over(batch, queue.now, Effects())
    assert rest.requests == [callers[0].request, callers[2].request]
    assert rest.ran_before
    assert batch.requests == []
    assert queue.state.running_rows == 2


def test_a_batch_without_anybody_who_waits_is_not_handed_over():
    """It is just gone."""
    queue, caller = Queue(), Caller()
    queue.offer(caller)
    batch, _ = queue.take()
    caller.request.reply.withdraw()
    assert queue.state.hand_over(batch, queue.now, Effects()) is None
    assert queue.state.present == 0


def test_while_too_many_threads_are_stuck_nothing_is_let_in():
    """With a hint when to try again, for those who wait as well, until one comes back."""
    queue, waiting, running = Queue(), Caller(), Caller()
    queue.offer(running)
    batch, _ = queue.take()
    queue.offer(waiting)
    effects = Effects()
    queue.state.set_stuck(True, effects)
    (refused, error), *others = effects.failed
    assert (refused, error.reason, error.retry_after_s > 0, others) == (waiting.request, "RUNS_STUCK", True, [])
    (_, error), *_ = queue.offer(Caller()).failed
    assert isinstance(error, OverloadedError)
    assert queue.state.hand_over(batch, queue.now, effects) is None
    assert effects.failed[-1][0] is running.request
    queue.state.set_stuck(False, Effects())
    queue.offer(late := Caller())
    assert late.request in queue.state.waiting


@pytest.mark.parametrize("taken", [True, False])
def test_whether_one_who_leaves_may_be_running(taken):
    """Only then is it worth a look at the runs."""
    queue, caller = Queue(), Caller(deadline=101.0)
    queue.offer(caller)
    if taken:
        queue.take()
    queue.now = 102.0
    assert queue.expire().fails_running is taken
    assert queue.remove(caller).fails_running


@pytest.mark.parametrize("is_stuck", [True, False])
def test_a_batch_that_was_cut_off_leaves_the_others_their_room(is_stuck):
    """A queue that did not move for a minute because of one request is as fast as before."""
    queue = Queue(max_rows=1000, max_batch=1)
    queue.offer(*(Caller() for _ in range(100)))
    for _ in range(50):
        batch, _ = queue.take()
        queue.now += 0.01
        queue.state.retire(batch, queue.now)
    room = queue.state.waiting.row_limit
    batch, _ = queue.take()
    queue.now += 60.0
    batch.requests[0].reply.withdraw()
    if is_stuck:
        queue.state.hand_over(batch, queue.now, Effects())
    else:
        batch.cut_off = True
        queue.state.retire(batch, queue.now)
    queue.take()
    assert queue.state.waiting.row_limit == pytest.approx(room, abs=1)
