"""Running a batch: who is left out, what is run, who gets what, and whose fault a failure is."""

import logging

import numpy as np
import pytest

from inferd.batching.answers import Answers
from inferd.batching.execution import Executor
from inferd.batching.request import Batch
from inferd.batching.statistics import Statistics
from inferd.errors import DeadlineExceededError, InferenceFailedError, InvalidInputError, ModelUnavailableError
from tests.fakes import Caller, FakeClock, FakeSession, ManualPollThread, RecordingObserver, scale


class _Model:
    def __init__(self, compute=scale, chunk_rows=None):
        self.clock = FakeClock()
        self.session = FakeSession(compute)
        self.observer = RecordingObserver()
        self.statistics = Statistics()
        self.poll_thread = ManualPollThread(self.clock)
        self.executor = Executor(
            name="m",
            session=self.session,
            chunk_rows=chunk_rows,
            clock=self.clock,
            answers=Answers(clock=self.clock, observer=self.observer, statistics=self.statistics),
            statistics=self.statistics,
            poll_thread=self.poll_thread,
        )

    def run(self, *callers):
        for caller in callers:
            caller.request.enqueued_at = 99.0
        rows = sum(caller.request.rows for caller in callers)
        self.executor.execute(
            Batch(requests=[caller.request for caller in callers], rows=rows, started_at=self.clock())
        )


def _x(*values):
    return np.array([[value, value] for value in values], dtype=np.float32)


def _poisoned(inputs):
    if (inputs["x"] < 0).any():
        raise RuntimeError("/models/secret.onnx: negative value")
    return scale(inputs)


def test_each_request_gets_its_own_rows():
    """Stacked into one run and cut apart again."""
    model, first, second = _Model(), Caller(x=_x(1, 2), factor=2), Caller(x=_x(5), factor=2)
    model.run(first, second)
    assert model.session.runs == [3]
    np.testing.assert_array_equal(first.result.outputs["y"], _x(2, 4))
    np.testing.assert_array_equal(second.result.outputs["y"], _x(10))


def test_each_request_gets_the_outputs_it_asked_for_in_its_order():
    """One run for all; an output that has no rows goes to everyone whole."""
    model = _Model()
    first, second = Caller(outputs=("same", "sum")), Caller(outputs=("y",))
    model.run(first, second)
    assert model.session.wanted == [("y", "sum", "same")]
    assert list(first.result.outputs) == ["same", "sum"]
    assert list(second.result.outputs) == ["y"]
    assert first.result.outputs["same"] == 1.0


def test_outputs_that_nobody_wants_are_not_computed():
    """The session is asked for what the requests name."""
    model = _Model()
    model.run(Caller(outputs=("sum",)), Caller(outputs=("sum",)))
    assert model.session.wanted == [("sum",)]


def test_timings_say_where_the_time_went():
    """Queue time is each request's own, the rest the batch's."""
    model = _Model()

    def slow(inputs):
        model.clock.advance(0.5)
        return scale(inputs)

    model.session._compute = slow
    caller, other = Caller(rows=2), Caller(rows=1)
    model.run(caller, other)
    timing = caller.result.timing
    assert (timing.started_at, timing.run_s, timing.rows) == (100.0, 0.5, 3)
    assert caller.result.queue_s == 1.0
    assert other.result.timing is timing


def test_a_batch_is_reported_once_before_its_answers():
    """One call of the observer and one of the statistics, and whoever has an answer finds it counted."""
    model = _Model()
    seen = []
    look = lambda _: seen.append((len(model.observer.reports), model.statistics.snapshot().success.count))  # noqa: E731  shared by both
    model.run(Caller(rows=2, on_outcome=look), Caller(on_outcome=look))
    assert seen == [(1, 2), (1, 2)]
    (report,) = model.observer.reports
    assert (report.requests, report.rows, report.queue_s, report.failed) == (2, 3, [1.0, 1.0], False)


def test_a_batch_reports_how_long_decoding_and_answering_took():
    """Decoding ends when the request reaches the queue, not when it is let in; answering with the last handing over."""
    model = _Model()
    model.poll_thread.busy = True
    callers = [Caller(received_at=98.0, on_outcome=lambda _: model.clock.advance(0.25)) for _ in range(3)]
    for caller in callers:
        caller.request.offered_at = 98.5
    model.run(*callers)
    assert model.observer.reports[0].decode_s == [0.5] * 3
    assert model.observer.reports[0].queue_s == [1.0] * 3
    assert model.observer.encoded_s == []
    model.clock.advance(1.0)
    model.poll_thread.run_soon()
    assert model.observer.encoded_s == [1.75]


def test_requests_that_run_again_are_not_counted_again():
    """Neither their decoding nor their wait."""
    model = _Model(_poisoned)
    model.run(Caller(x=_x(-1)), Caller(x=_x(1)))
    assert [len(report.decode_s) for report in model.observer.reports] == [2, 0, 0]
    assert len(model.observer.encoded_s) == 1


def test_a_batch_says_that_it_is_answering_before_it_does():
    """Its callers may be back before the last of them has been answered."""
    model, seen = _Model(), []
    caller = Caller(on_outcome=lambda _: seen.append(batch.answering))
    batch = Batch(requests=[caller.request], rows=1, started_at=100.0)
    assert not batch.answering
    model.executor.execute(batch)
    assert seen == [True]


def test_cancelled_and_expired_requests_are_dropped_before_stacking():
    """One living batch-mate does not make them run."""
    model = _Model()
    cancelled, expired, alive = Caller(), Caller(deadline=100.0), Caller()
    cancelled.request.reply.withdraw()
    model.run(cancelled, expired, alive)
    assert model.session.runs == [1]
    assert isinstance(expired.error, DeadlineExceededError)
    assert cancelled.waits
    assert alive.result.timing.rows == 1


def test_nothing_runs_when_nobody_is_left():
    """The model is not called for an empty batch."""
    model, cancelled = _Model(), Caller()
    cancelled.request.reply.withdraw()
    model.run(cancelled)
    assert (model.session.runs, model.observer.reports) == ([], [])


def test_a_cancel_during_the_run_discards_the_rows_and_hurts_no_one_else():
    """A cancelled member leaves its batch-mates their own rows."""
    cancelled, alive = Caller(x=_x(1)), Caller(x=_x(2))

    def compute(inputs):
        cancelled.request.reply.withdraw()
        return scale(inputs)

    model = _Model(compute)
    model.run(cancelled, alive)
    assert cancelled.waits
    np.testing.assert_array_equal(alive.result.outputs["y"], _x(2))
    assert model.statistics.snapshot().success.count == 1


def test_a_failing_batch_is_split_until_only_the_culprit_fails():
    """Seven good requests and a bad one: seven answers."""
    model = _Model(_poisoned)
    callers = [Caller(x=_x(value)) for value in (1, 2, 3, 4, 5, -6, 7, 8)]
    model.run(*callers)
    bad = callers.pop(5)
    assert isinstance(bad.error, InferenceFailedError)
    for caller in callers:
        np.testing.assert_array_equal(caller.result.outputs["y"], caller.request.inputs["x"])
    assert model.session.runs == [8, 4, 4, 2, 1, 1, 2]


def test_the_error_text_is_fixed_and_the_log_has_the_cause(caplog):
    """No exception text or path reaches a client."""
    model, bad = _Model(_poisoned), Caller(x=_x(-1))
    with caplog.at_level(logging.ERROR, "inferd.batching"):
        model.run(bad)
    assert bad.error.message == "the model failed to run this request"
    assert "secret.onnx" in caplog.text
    assert "model m" in caplog.text


def test_the_cause_is_told_alone(caplog):
    """Without the failures of the batches that it was found in."""
    model = _Model(_poisoned)
    with caplog.at_level(logging.ERROR, "inferd.batching"):
        model.run(*[Caller(x=_x(value)) for value in (1, 2, 3, -4)])
    (told,) = caplog.records
    _, cause, _ = told.exc_info
    assert cause.__context__ is None


def test_an_error_made_for_the_caller_is_given_to_it():
    """A session that finds out what is wrong with an input may say so."""

    def picky(inputs):
        if (inputs["x"] < 0).any():
            raise InvalidInputError('input "x": expected valid UTF-8')
        return scale(inputs)

    bad, good = Caller(x=_x(-1)), Caller(x=_x(1))
    _Model(picky).run(bad, good)
    assert bad.error.message == 'input "x": expected valid UTF-8'
    assert good.result


def test_a_queue_time_is_reported_once_although_the_halves_run_again():
    """The histogram of queue times has one entry for each request."""
    model = _Model(_poisoned)
    model.run(*[Caller(x=_x(value)) for value in (1, 2, 3, -4)])
    reports = model.observer.reports
    assert [(report.rows, report.failed, len(report.queue_s)) for report in reports] == [
        (4, True, 4), (2, False, 0), (2, True, 0), (1, False, 0), (1, True, 0),
    ]  # fmt: skip


def test_an_output_with_the_wrong_number_of_rows_is_a_failure():
    """Nobody is given the rows of another; alone, each request's rows are its own again."""

    def pooled(inputs):
        return {"y": inputs["x"].mean(axis=0, keepdims=True)}

    model, callers = _Model(pooled), [Caller(), Caller(), Caller(rows=2)]
    model.run(*callers)
    assert [type(caller.outcome).__name__ for caller in callers] == [
        "InferenceResult", "InferenceResult", "InferenceFailedError",
    ]  # fmt: skip


def test_an_output_that_is_missing_is_a_failure():
    """A session that returns fewer outputs than it was asked for."""
    model, caller = _Model(), Caller(outputs=("y", "sum"))
    model.session.run = lambda inputs, outputs: [inputs["x"]]
    model.run(caller)
    assert isinstance(caller.error, InferenceFailedError)


@pytest.mark.parametrize("escape", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_nothing_that_is_raised_leaves_a_request_unanswered(escape, caplog):
    """Not even what is no ordinary exception, and it does not end the thread."""

    def compute(inputs):
        raise escape

    callers = [Caller(), Caller()]
    with caplog.at_level(logging.ERROR, "inferd.batching"):
        _Model(compute).run(*callers)
    assert [type(caller.error) for caller in callers] == [InferenceFailedError] * 2
    assert escape.__name__ in caplog.text


def test_a_request_larger_than_a_batch_runs_in_chunks_and_is_joined():
    """Its answer is that of one run; its pieces are reported as the runs they are."""
    model, caller = _Model(chunk_rows=4), Caller(x=_x(*range(10)), factor=3, outputs=("y", "same"))
    model.run(caller)
    assert model.session.runs == [4, 4, 2]
    np.testing.assert_array_equal(caller.result.outputs["y"], 3 * _x(*range(10)))
    assert caller.result.outputs["same"] == 3
    assert caller.result.timing.rows == 10
    assert [(report.rows, len(report.queue_s)) for report in model.observer.reports] == [(4, 1), (4, 0), (2, 0)]
    assert model.statistics.snapshot().execution_count == 3
    assert model.statistics.snapshot().success.count == 1


def test_a_request_of_exactly_one_batch_is_not_cut():
    """And without a chunk size nothing is."""
    for chunk_rows in (4, None):
        model = _Model(chunk_rows=chunk_rows)
        model.run(Caller(rows=4))
        assert model.session.runs == [4]


def test_the_chunks_that_nobody_waits_for_are_not_run():
    """The client has gone after the first."""
    caller = Caller(rows=10)

    def compute(inputs):
        caller.request.reply.withdraw()
        return scale(inputs)

    model = _Model(compute, chunk_rows=4)
    model.run(caller)
    assert model.session.runs == [4]
    snapshot = model.statistics.snapshot()
    assert (snapshot.inference_count, snapshot.success.count) == (4, 0)


def test_a_chunk_that_fails_fails_its_request():
    """There is no half of an answer."""
    model, caller = _Model(_poisoned, chunk_rows=1), Caller(x=_x(1, -1, 1))
    model.run(caller)
    assert isinstance(caller.error, InferenceFailedError)
    assert model.session.runs == [1, 1]


def test_a_single_request_is_run_without_a_copy():
    """The model sees the very array that came in."""
    seen = []

    def compute(inputs):
        seen.append(inputs["x"])
        return scale(inputs)

    caller = Caller()
    _Model(compute).run(caller)
    assert seen[0] is caller.request.inputs["x"]


def test_an_answer_given_meanwhile_is_left_alone():
    """A stop that ran out of patience has answered; the result is discarded."""
    caller = Caller()

    def compute(inputs):
        caller.request.reply.deliver(ModelUnavailableError("stopped"))
        return scale(inputs)

    _Model(compute).run(caller)
    assert isinstance(caller.error, ModelUnavailableError)


@pytest.mark.parametrize("number", [3, 40])
def test_the_answers_of_a_large_batch_are_left_to_the_poll_thread(number):
    """In one go, and everything that is counted of the batch is counted by then."""
    model, callers = _Model(), [Caller(x=_x(value)) for value in range(number)]
    model.poll_thread.busy = True
    model.run(*callers)
    assert all(caller.waits for caller in callers)
    assert len(model.poll_thread.soon) == 1
    assert (len(model.observer.reports), model.statistics.snapshot().success.count) == (1, number)
    model.poll_thread.run_soon()
    for value, caller in enumerate(callers):
        np.testing.assert_array_equal(caller.result.outputs["y"], _x(value))


@pytest.mark.parametrize("number", [1, 2])
def test_few_answers_are_given_at_once(number):
    """Waking another thread would take longer."""
    model, callers = _Model(), [Caller() for _ in range(number)]
    model.poll_thread.busy = True
    model.run(*callers)
    assert all(caller.result for caller in callers)
    assert model.poll_thread.soon == []


def test_only_requests_that_are_still_to_be_answered_make_a_batch_large():
    """Two callers have gone during the run, and there is no need to hand one answer over."""
    callers = [Caller(), Caller(), Caller()]

    def compute(inputs):
        for caller in callers[:2]:
            caller.request.reply.withdraw()
        return scale(inputs)

    model = _Model(compute)
    model.poll_thread.busy = True
    model.run(*callers)
    assert callers[2].result
    assert model.poll_thread.soon == []


def test_a_cancel_before_the_poll_thread_gets_to_it_hurts_no_one_else():
    """The answer is on its way, but nobody waits for it any more."""
    model, callers = _Model(), [Caller(), Caller(), Caller()]
    model.poll_thread.busy = True
    model.run(*callers)
    callers[1].request.reply.withdraw()
    model.poll_thread.run_soon()
    assert [caller.waits for caller in callers] == [False, True, False]


def test_a_batch_is_answering_before_its_answers_are_handed_over():
    """The poll thread may be quicker than the worker."""
    model, callers, seen = _Model(), [Caller(), Caller(), Caller()], []
    batch = Batch(requests=[caller.request for caller in callers], rows=3, started_at=100.0)
    model.poll_thread.call_soon = lambda _give: seen.append(batch.answering)
    model.executor.execute(batch)
    assert seen == [True]


def test_a_receiver_that_fails_leaves_its_batch_mates_their_answers(caplog):
    """One call that is in pieces must not take the others along."""

    def broken(_):
        raise RuntimeError("the connection is in pieces")

    model, callers = _Model(), [Caller(on_outcome=broken), Caller(), Caller()]
    with caplog.at_level(logging.ERROR, "inferd.batching"):
        model.run(*callers)
    assert all(caller.result for caller in callers)
    assert "in pieces" in caplog.text
