"""Running a batch: dropped requests, stacking, and the rows of each response."""

import logging

import numpy as np
import pytest

from inferd.batching.request import Batch
from inferd.errors import DeadlineExceededError, InferenceFailedError, ModelUnavailableError
from inferd.observability.metrics.models import RunOutcome
from tests.fakes import Caller, scale
from tests.unit.batching.executing import Model, poisoned, x


def test_each_request_gets_its_own_rows():
    """Stacked into one run and split again."""
    model, first, second = Model(), Caller(x=x(1, 2), factor=2), Caller(x=x(5), factor=2)
    model.run(first, second)
    assert model.session.runs == [3]
    np.testing.assert_array_equal(first.result.outputs["y"], x(2, 4))
    np.testing.assert_array_equal(second.result.outputs["y"], x(10))


def test_each_request_gets_its_outputs_in_its_order():
    """From one run; an output without rows is given to each request whole."""
    model = Model()
    first, second = Caller(outputs=("same", "sum")), Caller(outputs=("y",))
    model.run(first, second)
    assert model.session.wanted == [("y", "sum", "same")]
    assert list(first.result.outputs) == ["same", "sum"]
    assert list(second.result.outputs) == ["y"]
    assert first.result.outputs["same"] == 1.0


def test_computes_only_requested_outputs():
    """The session gets the names that the requests have."""
    model = Model()
    model.run(Caller(outputs=("sum",)), Caller(outputs=("sum",)))
    assert model.session.wanted == [("sum",)]


def test_timings_split_queue_and_run_time():
    """Queue time is per request, the rest per batch."""
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


def test_batch_is_reported_once_before_its_answers():
    """A caller with an answer finds its batch counted."""
    model = Model()
    seen = []
    look = lambda _: seen.append((len(model.stats.reports), model.stats.read().success.count))  # noqa: E731  shared by both
    model.run(Caller(rows=2, on_outcome=look), Caller(on_outcome=look))
    assert seen == [(1, 2), (1, 2)]
    (report,) = model.stats.reports
    assert (report.answered, report.rows, report.queue_s, report.outcome) == (2, 3, [1.0, 1.0], RunOutcome.COMPLETED)


def test_report_has_decode_and_answer_times():
    """Decoding ends when the request reaches the queue, not at admission; answering ends with the last answer."""
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


def test_reruns_do_not_count_requests_again():
    """Neither their decoding nor their queue time."""
    model = Model(poisoned)
    model.run(Caller(x=x(-1)), Caller(x=x(1)))
    assert [len(report.decode_s) for report in model.stats.reports] == [2, 0, 0]
    assert len(model.stats.encoded_s) == 1


def test_batch_is_marked_as_answering_before_the_first_answer():
    """Its callers may return before the last of them has been answered."""
    model, seen = Model(), []
    caller = Caller(on_outcome=lambda _: seen.append(batch.answering))
    batch = Batch(requests=[caller.request], rows=1, started_at=100.0)
    assert not batch.answering
    model.executor.execute(batch)
    assert seen == [True]


def test_drops_cancelled_and_expired_requests_before_stacking():
    """Other live requests of the batch do not make them run."""
    model = Model()
    cancelled, expired, alive = Caller(), Caller(deadline=100.0), Caller()
    cancelled.request.reply.withdraw()
    model.run(cancelled, expired, alive)
    assert model.session.runs == [1]
    assert isinstance(expired.error, DeadlineExceededError)
    assert cancelled.waits
    assert alive.result.timing.rows == 1


def test_does_not_run_an_empty_batch():
    """The model is not called."""
    model, cancelled = Model(), Caller()
    cancelled.request.reply.withdraw()
    model.run(cancelled)
    assert (model.session.runs, model.stats.reports) == ([], [])


def test_cancel_during_the_run_does_not_affect_other_requests():
    """The rows of the cancelled request are discarded, others keep theirs."""
    cancelled, alive = Caller(x=x(1)), Caller(x=x(2))

    def compute(inputs):
        cancelled.request.reply.withdraw()
        return scale(inputs)

    model = Model(compute)
    model.run(cancelled, alive)
    assert cancelled.waits
    np.testing.assert_array_equal(alive.result.outputs["y"], x(2))
    assert model.stats.read().success.count == 1


def test_request_larger_than_a_batch_runs_in_chunks():
    """Its answer equals that of one run; each chunk is reported as a run."""
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
def test_report_has_cpu_time_of_the_thread(on_accelerator, cpu_s):
    """The sum over all chunks; none where a device does the work."""

    def compute(inputs):
        model.clock.advance(1.0)
        model.thread_clock.advance(0.25)
        return scale(inputs)

    model = Model(compute, chunk_rows=4, on_accelerator=on_accelerator)
    batch = model.run(Caller(rows=10))
    assert (batch.run_s, batch.cpu_s) == (3.0, cpu_s)


def test_request_of_exactly_one_batch_is_not_split():
    """Without a chunk size no request is."""
    for chunk_rows in (4, None):
        model = Model(chunk_rows=chunk_rows)
        model.run(Caller(rows=4))
        assert model.session.runs == [4]


def test_cancelled_request_runs_no_further_chunks():
    """The client cancels after the first."""
    caller = Caller(rows=10)

    def compute(inputs):
        caller.request.reply.withdraw()
        return scale(inputs)

    model = Model(compute, chunk_rows=4)
    model.run(caller)
    assert model.session.runs == [4]
    snapshot = model.stats.read()
    assert (snapshot.inference_count, snapshot.success.count) == (4, 0)


def test_failed_chunk_fails_its_request():
    """There are no partial answers."""
    model, caller = Model(poisoned, chunk_rows=1), Caller(x=x(1, -1, 1))
    model.run(caller)
    assert isinstance(caller.error, InferenceFailedError)
    assert model.session.runs == [1, 1]


def test_single_request_runs_without_a_copy():
    """The model gets the request's own array."""
    seen = []

    def compute(inputs):
        seen.append(inputs["x"])
        return scale(inputs)

    caller = Caller()
    Model(compute).run(caller)
    assert seen[0] is caller.request.inputs["x"]


def test_does_not_replace_an_earlier_outcome():
    """A stop that timed out has answered; the result is discarded."""
    caller = Caller()

    def compute(inputs):
        caller.request.reply.deliver(ModelUnavailableError("stopped"))
        return scale(inputs)

    Model(compute).run(caller)
    assert isinstance(caller.error, ModelUnavailableError)


@pytest.mark.parametrize("number", [3, 40])
def test_poll_thread_delivers_answers_of_large_batches(number):
    """In one callback, after the batch has been counted."""
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
def test_worker_delivers_few_answers_itself(number):
    """Waking another thread would take longer."""
    model, callers = Model(), [Caller() for _ in range(number)]
    model.poll_thread.busy = True
    model.run(*callers)
    assert all(caller.result for caller in callers)
    assert model.poll_thread.soon == []


def test_only_unanswered_requests_make_a_batch_large():
    """Two of three callers cancel during the run, so the worker delivers the one answer."""
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


def test_cancel_before_delivery_does_not_affect_other_requests():
    """The answer waits for the poll thread when its request is cancelled."""
    model, callers = Model(), [Caller(), Caller(), Caller()]
    model.poll_thread.busy = True
    model.run(*callers)
    callers[1].request.reply.withdraw()
    model.poll_thread.run_soon()
    assert [caller.waits for caller in callers] == [False, True, False]


def test_batch_is_marked_as_answering_before_the_handover():
    """The poll thread may be quicker than the worker."""
    model, callers, seen = Model(), [Caller(), Caller(), Caller()], []
    batch = Batch(requests=[caller.request for caller in callers], rows=3, started_at=100.0)
    model.poll_thread.call_soon = lambda _give: seen.append(batch.answering)
    model.executor.execute(batch)
    assert seen == [True]


def test_failing_receiver_does_not_affect_other_answers(caplog):
    """One broken call must not fail the batch."""

    def broken(_):
        raise RuntimeError("the connection is in pieces")

    model, callers = Model(), [Caller(on_outcome=broken), Caller(), Caller()]
    with caplog.at_level(logging.ERROR, "inferd.batching"):
        model.run(*callers)
    assert all(caller.result for caller in callers)
    assert "in pieces" in caplog.text
