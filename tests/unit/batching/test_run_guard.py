"""Ending runs: at their limit, when all callers have left, and giving up those that do not end."""

import gc
import logging
import weakref

from inferd.batching.run_guard import ENDING_S, EndReason
from inferd.errors import DeadlineExceededError, InferenceFailedError, RunTooLongError
from inferd.observability.metrics.models import END_REASONS, RunOutcome
from tests.fakes import Caller, scale
from tests.unit.batching.executing import Model, poisoned, x

_LIMIT_S = 60.0


class _LongRun:
    """A model whose runs take as long as configured, with a callback after each second."""

    def __init__(self, seconds, during=lambda model: None, **model):
        self.seconds = seconds
        self._during = during
        self.model = Model(self._compute, **model)

    def _compute(self, inputs):
        for _ in range(self.seconds):
            self.model.clock.advance(1.0)
            self._during(self.model)
            self.model.alarm.fire_due()
            if self.model.session.stops[-1].is_stopped:
                raise RuntimeError("Exiting due to terminate flag being set to true.")
        return scale(inputs)


def test_does_not_end_run_within_its_limit():
    """Nor is it checked before."""
    run = _LongRun(59)
    run.model.run(caller := Caller())
    assert caller.result
    assert run.model.stats.ended == []
    assert run.model.alarm.armed == [100.0 + _LIMIT_S]


def test_ends_run_at_its_limit_and_fails_its_requests():
    """All of them, after the end has been counted."""
    counted = []
    run = _LongRun(1000)
    callers = [Caller(on_outcome=lambda _: counted.append(list(run.model.stats.ended))) for _ in range(2)]
    run.model.run(*callers)
    assert [type(caller.error) for caller in callers] == [RunTooLongError] * 2
    assert callers[0].error.message == "the model ran for longer than the 60 s that a run may take"
    assert run.model.clock() == 100.0 + _LIMIT_S
    assert counted == [["time_limit"]] * 2
    assert run.model.stuck == []


def test_ended_run_is_no_failure(caplog):
    """It is not bisected or counted as a failure, and one line is logged."""
    run = _LongRun(1000)
    with caplog.at_level(logging.WARNING, "inferd.batching"):
        batch = run.model.run(Caller(), Caller())
    assert run.model.session.runs == [2]
    assert [report.outcome for report in run.model.stats.reports] == [RunOutcome.TERMINATED]
    assert [record.getMessage() for record in caplog.records] == [
        "a run of model m is terminated: it took longer than 60 s (runtime.max_run_ms)"
    ]
    assert batch.cut_off


def test_ends_run_without_callers():
    """When the last of its callers has left, and not before."""
    callers = [Caller(), Caller()]

    def leave(model):
        if model.clock() == 105.0:
            callers[0].request.reply.withdraw()
        if model.clock() == 110.0:
            callers[1].request.reply.deliver(DeadlineExceededError("too late"))
        model.guard.end_abandoned()

    run = _LongRun(1000, leave)
    run.model.run(*callers)
    assert run.model.clock() == 110.0
    assert run.model.stats.ended == ["abandoned"]


def test_cancel_just_before_the_run_prevents_it():
    """Between the check for live requests and the start."""
    caller, model = Caller(), Model()
    live = [caller.request]
    model.executor._live = lambda requests: live
    caller.request.reply.withdraw()
    model.run(caller)
    assert model.session.runs == []


def test_gives_up_run_that_does_not_end():
    """Some time after it was terminated, and once."""

    def stubborn(inputs):
        for _ in range(70):
            model.clock.advance(1.0)
            model.alarm.fire_due()
        return scale(inputs)

    model, caller = Model(stubborn), Caller()
    batch = model.run(caller)
    assert model.stuck == [batch]
    assert isinstance(caller.error, RunTooLongError)


def test_time_until_a_run_is_given_up():
    """Long enough for an ordinary operator to end."""
    looks = []

    def stubborn(inputs):
        for _ in range(2):
            model.clock.now = model.alarm.armed[0]
            model.alarm.fire_due()
            looks.append((model.clock(), len(model.stuck)))
        return scale(inputs)

    model = Model(stubborn)
    model.run(Caller())
    assert looks == [(160.0, 0), (160.0 + ENDING_S, 1)]


def test_each_chunk_and_each_group_has_its_own_limit():
    """Their total duration is not limited."""
    run = _LongRun(40, chunk_rows=1)
    run.model.run(caller := Caller(rows=3))
    assert caller.result
    assert run.model.clock() == 220.0


def test_chunk_over_the_limit_fails_its_request():
    """Further chunks do not run."""
    run = _LongRun(70, chunk_rows=1)
    run.model.run(caller := Caller(rows=3))
    assert isinstance(caller.error, RunTooLongError)
    assert run.model.session.runs == [1]


def test_group_of_a_failed_batch_over_the_limit_does_not_affect_others():
    """Of two halves, one fails and the other is answered."""

    def compute(inputs):
        if len(inputs["x"]) == 1 and inputs["x"][0, 0] == 1:
            model.clock.advance(_LIMIT_S)
            model.alarm.fire_due()
        return poisoned(inputs)

    model, callers = Model(compute), [Caller(x=x(1)), Caller(x=x(-1))]
    model.run(*callers)
    assert isinstance(callers[0].error, RunTooLongError)
    assert isinstance(callers[1].error, InferenceFailedError)


def test_ends_self_check_over_the_limit():
    """It does not delay the answers further."""

    def compute(inputs):
        if len(inputs["x"]) == 1:
            model.clock.advance(_LIMIT_S)
            model.alarm.fire_due()
        return scale(inputs)

    model, callers = Model(compute, check_share=0.01), [Caller(), Caller()]
    model.run(*callers)
    assert model.session.runs == [2, 1]
    assert [type(caller.error) for caller in callers] == [RunTooLongError] * 2


def test_sequential_runs_share_a_timer():
    """So a run costs no timer and wakes no thread."""
    model = Model()
    for _ in range(100):
        model.clock.advance(0.1)
        model.run(Caller())
    assert len(model.alarm.armed) == 1


def test_idle_model_has_no_timer():
    """The check that finds no run arms no further one."""
    model = Model()
    model.run(Caller())
    model.clock.advance(_LIMIT_S)
    model.alarm.fire_due()
    assert model.alarm.armed == []
    model.run(Caller())
    assert model.alarm.armed == [model.clock() + _LIMIT_S]


def test_timer_of_an_earlier_run_does_not_shorten_a_later_one():
    """The next check is at the limit of the later run."""
    run = _LongRun(1000)
    run.seconds = 0
    run.model.run(Caller())
    run.model.clock.advance(30.0)
    run.seconds = 1000
    run.model.run(late := Caller())
    assert isinstance(late.error, RunTooLongError)
    assert run.model.clock() == 130.0 + _LIMIT_S


def test_metric_declares_each_reason():
    """The two lists are in packages that do not import each other."""
    assert {each.value for each in EndReason} == set(END_REASONS)


def test_alarm_keeps_nothing_of_an_unloaded_model():
    """It may be due after hours, and models may be loaded and unloaded every second."""
    run = _LongRun(1)
    run.model.run(Caller())
    alarm, clock, guard = run.model.alarm, run.model.clock, weakref.ref(run.model.guard)
    del run
    gc.collect()
    assert guard() is None
    clock.advance(_LIMIT_S)
    alarm.fire_due()
    assert alarm.armed == []
