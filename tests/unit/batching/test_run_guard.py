"""Ending runs: at their limit, when nobody waits for them, and what comes after that."""

import logging

from inferd.batching.run_guard import ENDING_S, EndReason
from inferd.errors import DeadlineExceededError, InferenceFailedError, RunTooLongError
from inferd.observability.metrics.models import END_REASONS, RunOutcome
from tests.fakes import Caller, scale
from tests.unit.batching.executing import Model, poisoned, x

_LIMIT_S = 60.0


class _LongRun:
    """A model whose runs take as long as the test says, and in which something happens after each second."""

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


def test_a_run_within_its_limit_is_left_alone():
    """And nobody looks at it before."""
    run = _LongRun(59)
    run.model.run(caller := Caller())
    assert caller.result
    assert run.model.stats.ended == []
    assert run.model.alarm.armed == [100.0 + _LIMIT_S]


def test_a_run_at_its_limit_is_ended_and_its_callers_are_told():
    """All of them, and that it is counted by then."""
    counted = []
    run = _LongRun(1000)
    callers = [Caller(on_outcome=lambda _: counted.append(list(run.model.stats.ended))) for _ in range(2)]
    run.model.run(*callers)
    assert [type(caller.error) for caller in callers] == [RunTooLongError] * 2
    assert callers[0].error.message == "the model ran for longer than the 60 s that a run may take"
    assert run.model.clock() == 100.0 + _LIMIT_S
    assert counted == [["time_limit"]] * 2
    assert run.model.stuck == []


def test_an_ended_run_is_no_failure(caplog):
    """It does not run again in parts, is not counted among the failures, and one line says what happened."""
    run = _LongRun(1000)
    with caplog.at_level(logging.WARNING, "inferd.batching"):
        batch = run.model.run(Caller(), Caller())
    assert run.model.session.runs == [2]
    assert [report.outcome for report in run.model.stats.reports] == [RunOutcome.TERMINATED]
    assert [record.getMessage() for record in caplog.records] == [
        "a run of model m is terminated: it took longer than 60 s (runtime.max_run_ms)"
    ]
    assert batch.cut_off


def test_a_run_that_nobody_waits_for_is_ended():
    """When the last of its callers has gone, and not before."""
    callers = [Caller(), Caller()]

    def leave(model):
        if model.clock() == 105.0:
            callers[0].request.reply.withdraw()
        if model.clock() == 110.0:
            callers[1].request.reply.deliver(DeadlineExceededError("too late"))
        model.guard.look_for_abandoned()

    run = _LongRun(1000, leave)
    run.model.run(*callers)
    assert run.model.clock() == 110.0
    assert run.model.stats.ended == ["abandoned"]


def test_a_caller_who_leaves_just_before_the_run_is_not_missed():
    """Between the look at who still waits and the run: it does not begin."""
    caller, model = Caller(), Model()
    live = [caller.request]
    model.executor._live = lambda requests: live
    caller.request.reply.withdraw()
    model.run(caller)
    assert model.session.runs == []


def test_a_run_that_does_not_end_is_given_up():
    """A while after it was told to, and once."""

    def stubborn(inputs):
        for _ in range(70):
            model.clock.advance(1.0)
            model.alarm.fire_due()
        return scale(inputs)

    model, caller = Model(stubborn), Caller()
    batch = model.run(caller)
    assert model.stuck == [batch]
    assert isinstance(caller.error, RunTooLongError)


def test_how_long_it_takes_until_a_run_is_given_up():
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


def test_each_piece_and_each_part_has_a_time_of_its_own():
    """What several runs take together is no matter of the limit."""
    run = _LongRun(40, chunk_rows=1)
    run.model.run(caller := Caller(rows=3))
    assert caller.result
    assert run.model.clock() == 220.0


def test_a_piece_that_takes_too_long_ends_its_request():
    """The further ones do not run."""
    run = _LongRun(70, chunk_rows=1)
    run.model.run(caller := Caller(rows=3))
    assert isinstance(caller.error, RunTooLongError)
    assert run.model.session.runs == [1]


def test_a_part_of_a_failed_batch_that_takes_too_long_leaves_the_others_alone():
    """Of two halves, one fails for its callers and the other is answered."""

    def compute(inputs):
        if len(inputs["x"]) == 1 and inputs["x"][0, 0] == 1:
            model.clock.advance(_LIMIT_S)
            model.alarm.fire_due()
        return poisoned(inputs)

    model, callers = Model(compute), [Caller(x=x(1)), Caller(x=x(-1))]
    model.run(*callers)
    assert isinstance(callers[0].error, RunTooLongError)
    assert isinstance(callers[1].error, InferenceFailedError)


def test_a_self_check_that_takes_too_long_is_ended():
    """Nobody waits for longer because of it."""

    def compute(inputs):
        if len(inputs["x"]) == 1:
            model.clock.advance(_LIMIT_S)
            model.alarm.fire_due()
        return scale(inputs)

    model, callers = Model(compute, check_share=0.01), [Caller(), Caller()]
    model.run(*callers)
    assert model.session.runs == [2, 1]
    assert [type(caller.error) for caller in callers] == [RunTooLongError] * 2


def test_runs_one_after_the_other_share_an_alarm():
    """So that a run costs no timer and wakes no thread."""
    model = Model()
    for _ in range(100):
        model.clock.advance(0.1)
        model.run(Caller())
    assert len(model.alarm.armed) == 1


def test_a_look_while_nothing_runs_is_the_last_until_something_does():
    """A model that nobody asks for costs nothing."""
    model = Model()
    model.run(Caller())
    model.clock.advance(_LIMIT_S)
    model.alarm.fire_due()
    assert model.alarm.armed == []
    model.run(Caller())
    assert model.alarm.armed == [model.clock() + _LIMIT_S]


def test_a_run_that_began_meanwhile_keeps_its_own_time():
    """The alarm of an earlier run rings; the look that follows is for the later one."""
    run = _LongRun(1000)
    run.seconds = 0
    run.model.run(Caller())
    run.model.clock.advance(30.0)
    run.seconds = 1000
    run.model.run(late := Caller())
    assert isinstance(late.error, RunTooLongError)
    assert run.model.clock() == 130.0 + _LIMIT_S


def test_the_metric_knows_each_reason():
    """The two lists are in rooms that do not know each other."""
    assert {each.value for each in EndReason} == set(END_REASONS)
