"""Running a batch: who is left out, what is run, and who gets what."""

import logging

import numpy as np
import pytest

from inferd.batching.request import Batch
from inferd.errors import DeadlineExceededError, InferenceFailedError, ModelUnavailableError
from inferd.observability.metrics.models import RunOutcome
from tests.fakes import Caller, scale
from tests.unit.batching.executing import Model, poisoned, x


def test_each_request_gets_its_own_rows():
    """Stacked into one run and cut apart again."""
    model, first, second = Model(), Caller(x=x(1, 2), factor=2), Caller(x=x(5), factor=2)
    model.run(first, second)
    assert model.session.runs == [3]
    np.testing.assert_array_equal(first.result.outputs["y"], x(2, 4))
    np.testing.assert_array_equal(second.result.outputs["y"], x(10))


def test_each_request_gets_the_outputs_it_asked_for_in_its_order():
    """One run for all; an output that has no rows goes to everyone whole."""
    model = Model()
    first, second = Caller(outputs=("same", "sum")), Caller(outputs=("y",))
    model.run(first, second)
    assert model.session.wanted == [("y", "sum", "same")]
    assert list(first.result.outputs) == ["same", "sum"]
    assert list(second.result.outputs) == ["y"]
    assert first.result.outputs["same"] == 1.0


def test_outputs_that_nobody_wants_are_not_computed():
    """The session is asked for what the requests name."""
    model = Model()
    model.run(Caller(outputs=("sum",)), Caller(outputs=("sum",)))
    assert model.session.wanted == [("sum",)]


def test_timings_say_where_the_time_went():
    """Queue time is each request's own, the rest the batch's."""
    model = Model()

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
    """One report, and a caller with an answer finds it counted."""
    model = Model()
    seen = []
    look = lambda _: seen.append((len(model.stats.reports), model.stats.read().success.count))  # noqa: E731  shared by both
    model.run(Caller(rows=2, on_outcome=look), Caller(on_outcome=look))
    assert seen == [(1, 2), (1, 2)]
    (report,) = model.stats.reports
    assert (report.answered, report.rows, report.queue_s, report.outcome) == (2, 3, [1.0, 1.0], RunOutcome.COMPLETED)


def test_a_batch_reports_how_long_decoding_and_answering_took():
    """Decoding ends when the request reaches the queue, not when it is let in; answering with the last handing over."""
    model = Model()
    model.poll_thread.busy = True
    callers = [Caller(received_at=98.0, on_outcome=lambda _: model.clock.advance(0.25)) for _ in range(3)]
    for caller in callers:
        caller.request.offered_at = 98.5
    model.run(*callers)
    assert model.stats.reports[0].decode_s == [0.5] * 3
    assert model.stats.reports[0].queue_s == [1.0] * 3
    assert model.stats.encoded_s == []
    model.clock.advance(1.0)
    model.poll_thread.run_soon()
    assert model.stats.encoded_s == [1.75]


def test_requests_that_run_again_are_not_counted_again():
    """Neither their decoding nor their wait."""
    model = Model(poisoned)
    model.run(Caller(x=x(-1)), Caller(x=x(1)))
    assert [len(report.decode_s) for report in model.stats.reports] == [2, 0, 0]
    assert len(model.stats.encoded_s) == 1


def test_a_batch_says_that_it_is_answering_before_it_does():
    """Its callers may be back before the last of them has been answered."""
    model, seen = Model(), []
    caller = Caller(on_outcome=lambda _: seen.append(batch.answering))
    batch = Batch(requests=[caller.request], rows=1, started_at=100.0)
    assert not batch.answering
    model.executor.execute(batch)
    assert seen == [True]


def test_cancelled_and_expired_requests_are_dropped_before_stacking():
    """One living batch-mate does not make them run."""
    model = Model()
    cancelled, expired, alive = Caller(), Caller(deadline=100.0), Caller()
    cancelled.request.reply.withdraw()
    model.run(cancelled, expired, alive)
    assert model.session.runs == [1]
    assert isinstance(expired.error, DeadlineExceededError)
    assert cancelled.waits
    assert alive.result.timing.rows == 1


def test_nothing_runs_when_nobody_is_left():
    """The model is not called for an empty batch."""
    model, cancelled = Model(), Caller()
    cancelled.request.reply.withdraw()
    model.run(cancelled)
    assert (model.session.runs, model.stats.reports) == ([], [])


def test_a_cancel_during_the_run_discards_the_rows_and_hurts_no_one_else():
    """A cancelled member leaves its batch-mates their own rows."""
    cancelled, alive = Caller(x=x(1)), Caller(x=x(2))

    def compute(inputs):
        cancelled.request.reply.withdraw()
        return scale(inputs)

    model = Model(compute)
    model.run(cancelled, alive)
    assert cancelled.waits
    np.testing.assert_array_equal(alive.result.outputs["y"], x(2))
    assert model.stats.read().success.count == 1


def test_a_request_larger_than_a_batch_runs_in_chunks_and_is_joined():
    """Its answer is that of one run; its pieces are reported as the runs they are."""
    model, caller = Model(chunk_rows=4), Caller(x=x(*range(10)), factor=3, outputs=("y", "same"))
    model.run(caller)
    assert model.session.runs == [4, 4, 2]
    np.testing.assert_array_equal(caller.result.outputs["y"], 3 * x(*range(10)))
    assert caller.result.outputs["same"] == 3
    assert caller.result.timing.rows == 10
    assert [(report.rows, len(report.queue_s)) for report in model.stats.reports] == [(4, 1), (4, 0), (2, 0)]
    assert model.stats.read().execution_count == 3
    assert model.stats.read().success.count == 1


@pytest.mark.parametrize(("on_accelerator", "cpu_s"), [(False, 0.75), (True, None)])
def test_a_run_tells_of_its_threads_processor_time(on_accelerator, cpu_s):
    """That of all its pieces; where a device does the work, it says nothing."""

    def compute(inputs):
        model.clock.advance(1.0)
        model.thread_clock.advance(0.25)
        return scale(inputs)

    model = Model(compute, chunk_rows=4, on_accelerator=on_accelerator)
    batch = model.run(Caller(rows=10))
    assert (batch.run_s, batch.cpu_s) == (3.0, cpu_s)


def test_a_request_of_exactly_one_batch_is_not_cut():
    """And without a chunk size nothing is."""
    for chunk_rows in (4, None):
        model = Model(chunk_rows=chunk_rows)
        model.run(Caller(rows=4))
        assert model.session.runs == [4]


def test_the_chunks_that_nobody_waits_for_are_not_run():
    """The client has gone after the first."""
    caller = Caller(rows=10)

    def compute(inputs):
        caller.request.reply.withdraw()
        return scale(inputs)

    model = Model(compute, chunk_rows=4)
    model.run(caller)
    assert model.session.runs == [4]
    snapshot = model.stats.read()
    assert (snapshot.inference_count, snapshot.success.count) == (4, 0)


def test_a_chunk_that_fails_fails_its_request():
    """There is no half of an answer."""
    model, caller = Model(poisoned, chunk_rows=1), Caller(x=x(1, -1, 1))
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
    Model(compute).run(caller)
    assert seen[0] is caller.request.inputs["x"]


def test_an_answer_given_meanwhile_is_left_alone():
    """A stop that ran out of patience has answered; the result is discarded."""
    caller = Caller()

    def compute(inputs):
        caller.request.reply.deliver(ModelUnavailableError("stopped"))
        return scale(inputs)

    Model(compute).run(caller)
    assert isinstance(caller.error, ModelUnavailableError)


@pytest.mark.parametrize("number", [3, 40])
def test_the_answers_of_a_large_batch_are_left_to_the_poll_thread(number):
    """In one go, and everything that is counted of the batch is counted by then."""
    model, callers = Model(), [Caller(x=x(value)) for value in range(number)]
    model.poll_thread.busy = True
    model.run(*callers)
    assert all(caller.waits for caller in callers)
    assert len(model.poll_thread.soon) == 1
    assert (len(model.stats.reports), model.stats.read().success.count) == (1, number)
    model.poll_thread.run_soon()
    for value, caller in enumerate(callers):
        np.testing.assert_array_equal(caller.result.outputs["y"], x(value))


@pytest.mark.parametrize("number", [1, 2])
def test_few_answers_are_given_at_once(number):
    """Waking another thread would take longer."""
    model, callers = Model(), [Caller() for _ in range(number)]
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

    model = Model(compute)
    model.poll_thread.busy = True
    model.run(*callers)
    assert callers[2].result
    assert model.poll_thread.soon == []


def test_a_cancel_before_the_poll_thread_gets_to_it_hurts_no_one_else():
    """The answer is on its way, but nobody waits for it any more."""
    model, callers = Model(), [Caller(), Caller(), Caller()]
    model.poll_thread.busy = True
    model.run(*callers)
    callers[1].request.reply.withdraw()
    model.poll_thread.run_soon()
    assert [caller.waits for caller in callers] == [False, True, False]


def test_a_batch_is_answering_before_its_answers_are_handed_over():
    """The poll thread may be quicker than the worker."""
    model, callers, seen = Model(), [Caller(), Caller(), Caller()], []
    batch = Batch(requests=[caller.request for caller in callers], rows=3, started_at=100.0)
    model.poll_thread.call_soon = lambda _give: seen.append(batch.answering)
    model.executor.execute(batch)
    assert seen == [True]


def test_a_receiver_that_fails_leaves_its_batch_mates_their_answers(caplog):
    """One call that is in pieces must not take the others along."""

    def broken(_):
        raise RuntimeError("the connection is in pieces")

    model, callers = Model(), [Caller(on_outcome=broken), Caller(), Caller()]
    with caplog.at_level(logging.ERROR, "inferd.batching"):
        model.run(*callers)
    assert all(caller.result for caller in callers)
    assert "in pieces" in caplog.text
