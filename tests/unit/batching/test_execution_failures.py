"""Failed runs: the failing request, the statuses, and the log."""

import logging

import numpy as np
import pytest

from inferd.errors import InferenceFailedError, InvalidInputError
from inferd.observability.metrics.models import RunOutcome
from tests.fakes import Caller, scale
from tests.unit.batching.executing import Model, poisoned, x


def test_bisects_failing_batch():
    """Of eight requests one fails, and seven are answered."""
    model = Model(poisoned)
    callers = [Caller(x=x(value)) for value in (1, 2, 3, 4, 5, -6, 7, 8)]
    model.run(*callers)
    bad = callers.pop(5)
    assert isinstance(bad.error, InferenceFailedError)
    for caller in callers:
        np.testing.assert_array_equal(caller.result.outputs["y"], caller.request.inputs["x"])
    assert model.session.runs == [8, 4, 4, 2, 2, 1, 1]


def test_failing_request_has_queue_and_run_time():
    """Of its own last run, not of the batches it was bisected from."""

    def slow(inputs):
        model.clock.advance(0.1 * len(inputs["x"]))
        return poisoned(inputs)

    model, bad = Model(slow), Caller(x=x(-1))
    model.run(bad, Caller(x=x(1)))
    timing = bad.error.timing
    assert (bad.error.queue_s, timing.stack_s, timing.rows) == (1.0, 0.0, 1)
    assert (timing.started_at, timing.run_s) == (pytest.approx(100.2), pytest.approx(0.1))


def test_error_has_a_fixed_text_and_the_log_the_cause(caplog):
    """No exception text or path reaches a client."""
    model, bad = Model(poisoned), Caller(x=x(-1))
    with caplog.at_level(logging.ERROR, "inferd.batching"):
        model.run(bad)
    assert bad.error.message == "the model failed to run this request"
    assert "secret.onnx" in caplog.text
    assert "model m" in caplog.text


def test_log_has_only_the_cause(caplog):
    """Without the failures of the batches it was bisected from."""
    model = Model(poisoned)
    with caplog.at_level(logging.ERROR, "inferd.batching"):
        model.run(*[Caller(x=x(value)) for value in (1, 2, 3, -4)])
    (told,) = caplog.records
    _, cause, _ = told.exc_info
    assert cause.__context__ is None


def test_public_error_of_the_session_reaches_the_caller():
    """A session that detects an invalid input may say so."""

    def picky(inputs):
        if (inputs["x"] < 0).any():
            raise InvalidInputError('input "x": expected valid UTF-8')
        return scale(inputs)

    bad, good = Caller(x=x(-1)), Caller(x=x(1))
    Model(picky).run(bad, good)
    assert bad.error.message == 'input "x": expected valid UTF-8'
    assert good.result


def test_queue_time_is_reported_once_despite_reruns():
    """The histogram of queue times has one entry per request."""
    model = Model(poisoned)
    model.run(*[Caller(x=x(value)) for value in (1, 2, 3, -4)])
    reports = model.stats.reports
    assert [(report.rows, report.outcome is RunOutcome.FAILED, len(report.queue_s)) for report in reports] == [
        (4, True, 4), (2, False, 0), (2, True, 0), (1, False, 0), (1, True, 0),
    ]  # fmt: skip


def test_wrong_number_of_output_rows_stops_batching():
    """No caller gets another's rows; alone, each request is answered with exactly the output."""

    def pooled(inputs):
        return {"y": inputs["x"].mean(axis=0, keepdims=True)}

    model, callers = Model(pooled), [Caller(), Caller(), Caller(rows=2)]
    model.run(*callers)
    assert [caller.result.outputs["y"].shape for caller in callers] == [(1, 2)] * 3
    assert model.stops == ["batching"]
    assert "expected 4 rows along axis 0, got shape [1, 2]" in model.session.stopped_for[0]


def test_missing_output_is_a_failure():
    """The session returns fewer outputs than requested."""
    model, caller = Model(), Caller(outputs=("y", "sum"))
    model.session.run = lambda inputs, outputs, stop: [inputs["x"]]
    model.run(caller)
    assert isinstance(caller.error, InferenceFailedError)


@pytest.mark.parametrize("escape", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_any_exception_is_answered(escape, caplog):
    """A BaseException too, and it does not end the thread."""

    def compute(inputs):
        raise escape

    callers = [Caller(), Caller()]
    with caplog.at_level(logging.ERROR, "inferd.batching"):
        Model(compute).run(*callers)
    assert [type(caller.error) for caller in callers] == [InferenceFailedError] * 2
    assert escape.__name__ in caplog.text
