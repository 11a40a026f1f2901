"""Sessions that no longer run: detected, closed to requests, and opened again with growing delays."""

import logging

import pytest

from inferd.errors import InferenceFailedError, ModelUnavailableError
from inferd.runtime.errors import ModelLoadError, RunFailedError, SessionClosedError
from tests.fakes import Caller, scale
from tests.unit.batching.executing import Model, poisoned, x

_DEVICE = RunFailedError(RuntimeError("CUDA failure 700: an illegal memory access was encountered ; GPU=0"))
_OTHER = RunFailedError(RuntimeError("no"))
_GONE = ModelLoadError("cannot load model.onnx")


class _Device:
    """A model on a device that fails while ``error`` is set."""

    def __init__(self, **session):
        self.error = None
        self.model = Model(self._compute, **session)
        self.clock = self.model.clock

    def _compute(self, inputs):
        if self.error is not None:
            raise self.error
        return scale(inputs)

    def break_(self):
        """Fail once, which begins the recovery."""
        self.error = _DEVICE
        self.model.run(caller := Caller())
        self.error = None
        return caller

    def attempt(self):
        """Let the next attempt begin when it is due; return the delay until then, and whether it worked."""
        delay_s = self.model.attempts.armed[-1] - self.clock()
        self.clock.advance(delay_s)
        self.model.attempts.fire_due()
        while self.model.threads:
            self.model.threads.pop(0)()
        return delay_s, not self.model.recovery.reason


def test_device_error_answers_all_requests_with_unavailable():
    """None of them is at fault, so there is nothing to bisect; the hint says when to come back."""
    device = _Device()
    device.error = _DEVICE
    callers = [Caller() for _ in range(4)]
    device.model.run(*callers)
    assert device.model.session.runs == [4]
    for caller in callers:
        assert isinstance(caller.error, ModelUnavailableError)
        assert caller.error.reason == "MODEL_RECOVERING"
        assert caller.error.retry_after_s == pytest.approx(1.0)
    assert device.model.works == [False]
    assert "the device failed" in device.model.recovery.reason


def test_session_is_opened_again_at_once_and_tried():
    """Then requests are answered as before."""
    device = _Device()
    device.break_()
    assert device.attempt() == (0.0, True)
    session = device.model.session
    assert (session.reopenings, session.trials, device.model.works) == (1, 1, [False, True])
    device.model.run(caller := Caller())
    assert caller.result
    assert device.model.stats.read().reopened == {True: 1, False: 0}


def test_delays_grow_while_it_cannot_be_opened(caplog):
    """Up to a minute; the retry hint grows with them, and the log has the reason."""
    device = _Device()
    device.break_()
    device.model.session.reopen_errors = [_GONE] * 9
    with caplog.at_level(logging.ERROR, "inferd.batching"):
        delays = [device.attempt()[0] for _ in range(9)]
    assert delays == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert "cannot load model.onnx" in caplog.text
    assert device.model.recovery.unavailable().retry_after_s == pytest.approx(60.0)
    assert device.attempt() == (60, True)
    assert device.model.works == [False, True]


def test_retry_hint_includes_the_time_to_open():
    """As the last attempt took; the hint shrinks as the next one comes near."""
    device = _Device()
    reopen = device.model.session.reopen

    def slow():
        device.clock.advance(7.0)
        reopen()

    device.model.session.reopen = slow
    device.model.session.reopen_errors = [_GONE]
    device.break_()
    device.attempt()
    assert device.model.recovery.unavailable().retry_after_s == pytest.approx(8.0)
    device.clock.advance(5.0)
    assert device.model.recovery.unavailable().retry_after_s == pytest.approx(3.0)
    device.clock.advance(5.0)
    assert device.model.recovery.unavailable().retry_after_s == pytest.approx(0.1)


def test_session_that_opens_but_does_not_run_stays_closed():
    """Opening proves little: one row must run."""
    device = _Device()
    device.break_()
    device.model.session.trial_errors = [_DEVICE]
    assert device.attempt() == (0.0, False)
    assert device.attempt() == (1.0, True)


def test_unexpected_error_does_not_end_the_attempts(caplog):
    """A runtime may raise anything."""
    device = _Device()
    device.break_()
    device.model.session.reopen_errors = [KeyError("planted")]
    assert device.attempt() == (0.0, False)
    assert "planted" in caplog.text
    assert device.attempt() == (1.0, True)


def test_session_that_breaks_again_soon_is_not_opened_at_once():
    """A model whose every request breaks the device must not load all the time; after a calm time it may."""
    device = _Device()
    delays = []
    for calm_s in (1, 1, 1, 600):
        device.break_()
        delays.append(device.attempt()[0])
        device.clock.advance(calm_s)
    device.break_()
    delays.append(device.attempt()[0])
    assert delays == [0, 1, 2, 4, 0]


def test_runs_in_progress_fail_the_same_way_meanwhile():
    """Other instances find the session closed, which is no fault of their requests; nothing is begun twice."""
    device = _Device()
    device.break_()
    device.error = RuntimeError("the session is closed")
    device.model.run(caller := Caller(), Caller())
    assert caller.error.reason == "MODEL_RECOVERING"
    assert device.model.works == [False]
    assert len(device.model.attempts.armed) == 1


def test_runs_that_found_the_session_closed_are_not_at_fault_when_it_is_open_again():
    """A thread may get to its answers only then; the callers may come back at once."""
    device = _Device()
    device.error = SessionClosedError()
    callers = [Caller(), Caller()]
    device.model.run(*callers)
    assert [caller.error.reason for caller in callers] == ["MODEL_RECOVERING"] * 2
    assert device.model.works == []


def test_reports_lost_device_after_several_attempts(caplog):
    """The context of a process does not come back; on the processor nothing is ever lost."""
    for on_accelerator in (True, False):
        device = _Device(on_accelerator=on_accelerator)
        device.break_()
        device.model.session.reopen_errors = [_GONE] * 6
        hopeless = [device.model.recovery.is_hopeless for _ in range(6) if device.attempt()]
        assert hopeless == [False] * 4 + [on_accelerator] * 2
        assert device.model.works == [False, False][: 1 + on_accelerator]
        assert device.attempt()[1]
        assert not device.model.recovery.is_hopeless
    assert caplog.text.count("the process must be restarted") == 1


def test_process_at_the_limit_of_its_memory_is_lost_after_several_attempts(caplog):
    """On the processor too: neither a thread nor an arena gets memory any more; not if there is room again."""
    device = _Device()
    device.break_()
    device.model.has_room = False
    device.model.session.reopen_errors = [_GONE] * 7
    hopeless = [device.model.recovery.is_hopeless for _ in range(6) if device.attempt()]
    assert hopeless == [False] * 4 + [True] * 2
    assert device.model.works == [False, False]
    assert caplog.text.count("the memory for model m does not come back: the process must be restarted") == 1
    device.model.has_room = True
    device.attempt()
    assert not device.model.recovery.is_hopeless
    assert device.model.works == [False, False, False]


def test_stopped_recovery_begins_nothing():
    """Neither an attempt that is due nor a new one: the model is unloaded."""
    device = _Device()
    device.break_()
    device.model.recovery.stop()
    device.attempt()
    assert device.model.session.reopenings == 0
    other = _Device()
    other.model.recovery.stop()
    other.break_()
    assert (other.model.works, other.model.recovery.reason) == ([], "")


def test_attempts_go_on_if_the_system_gives_no_thread(caplog):
    """As where the memory for its stack is what lacks: otherwise the model would be broken for good."""
    device = _Device()
    device.break_()
    device.model.no_thread = True
    assert device.attempt() == (0.0, False)
    assert "can't start new thread" in caplog.text
    device.model.no_thread = False
    assert device.attempt() == (1.0, True)
    assert device.model.stats.read().reopened == {True: 1, False: 1}


def test_answers_other_requests_if_no_check_can_start():
    """The system gives no thread for the check; only the request fails that fails alone."""
    model = Model(poisoned)
    model.no_thread = True
    callers = [Caller(x=x(value)) for value in (-1, 1, 2, 3)]
    model.run(*callers)
    assert isinstance(callers.pop(0).error, InferenceFailedError)
    assert all(caller.result for caller in callers)


def test_attempt_that_ends_after_the_unload_tells_nothing(caplog):
    """What it has opened is closed; health and the log have the unload."""
    device = _Device()
    device.break_()
    device.model.session.reopen = device.model.recovery.stop
    device.attempt()
    assert device.model.works == [False]
    assert "opened again and runs" not in caplog.text


def test_failing_requests_start_a_check_of_the_session():
    """If three rows in turn fail that are known to run, the session is opened again."""
    model = Model(poisoned)
    model.session.trial_errors = [_OTHER, _OTHER, _OTHER]
    model.run(bad := Caller(x=x(-1)))
    assert isinstance(bad.error, InferenceFailedError)
    assert model.works == []
    model.threads.pop()()
    assert (model.session.trials, model.works) == (3, [False])
    assert "a row that ran when the model was loaded fails" in model.recovery.reason


def test_bad_requests_alone_change_nothing():
    """The model still runs, which is checked every ten seconds only, however many requests fail."""
    model = Model(poisoned)
    for _ in range(3):
        model.run(Caller(x=x(-1)))
    (check,) = model.threads
    check()
    assert (model.session.trials, model.works) == (1, [])
    model.clock.advance(10.0)
    model.run(Caller(x=x(-1)))
    assert len(model.threads) == 2


def test_row_that_fails_by_chance_changes_nothing():
    """Three in a row must fail."""
    model = Model(poisoned)
    model.session.trial_errors = [_OTHER, _OTHER]
    model.run(Caller(x=x(-1)))
    model.threads.pop()()
    assert (model.session.trials, model.works) == (3, [])


def test_successful_runs_start_no_check():
    """The path of requests that are answered is as before."""
    model = Model()
    model.run(Caller(), Caller())
    assert (model.session.trials, model.threads, model.session.reopenings) == (0, [], 0)
