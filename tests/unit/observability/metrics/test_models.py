"""Counts of one model version, for Prometheus and for ModelStatistics."""

import pytest

from inferd.observability.metrics.models import (
    BatchReport,
    BatchSizeStatistics,
    Durations,
    ModelStats,
    RunOutcome,
)

_MS = 1_000_000


def _run(rows, answered=1, outcome=RunOutcome.COMPLETED, **sums):
    return BatchReport(
        rows=rows,
        decode_s=(),
        queue_s=(),
        stack_s=0.001,
        run_s=0.01,
        split_s=0.002,
        outcome=outcome,
        answered=answered,
        **sums,
    )


def test_all_zero_at_first():
    """No batch sizes either."""
    counts = ModelStats().read()
    assert counts.success == counts.fail == counts.compute_infer == Durations(0, 0)
    assert (counts.inference_count, counts.execution_count, counts.last_inference_ms) == (0, 0, 0)
    assert counts.batch_sizes == {}


def test_batch_counts_each_request_and_one_run():
    """Each request's compute time is that of its whole batch, as the protocol defines it."""
    stats = ModelStats(epoch_s=lambda: 1234.5)
    stats.batch_done(_run(rows=5, answered=2, waited_s=0.004, success_s=0.05))
    counts = stats.read()
    assert counts.success == Durations(2, 50 * _MS)
    assert counts.queue == Durations(2, 4 * _MS)
    assert counts.compute_input == Durations(2, 2 * _MS)
    assert counts.compute_infer == Durations(2, 20 * _MS)
    assert counts.compute_output == Durations(2, 4 * _MS)
    assert (counts.inference_count, counts.execution_count, counts.last_inference_ms) == (5, 1, 1234500)


def test_runs_are_counted_by_batch_size():
    """One entry for each number of rows."""
    stats = ModelStats()
    for rows in (4, 1, 4):
        stats.batch_done(_run(rows))
    assert stats.read().batch_sizes == {
        1: BatchSizeStatistics(
            compute_input=Durations(1, 1 * _MS),
            compute_infer=Durations(1, 10 * _MS),
            compute_output=Durations(1, 2 * _MS),
        ),
        4: BatchSizeStatistics(
            compute_input=Durations(2, 2 * _MS),
            compute_infer=Durations(2, 20 * _MS),
            compute_output=Durations(2, 4 * _MS),
        ),
    }


def test_request_in_pieces_counts_once_with_the_time_of_all_runs():
    """A request that is larger than a batch."""
    stats = ModelStats()
    pieces = [_run(4, answered=0), _run(4, answered=0)]
    for piece in pieces:
        stats.batch_done(piece)
    stats.batch_done(_run(2, success_s=0.04, earlier=pieces))
    counts = stats.read()
    assert counts.compute_infer == Durations(1, 30 * _MS)
    assert (counts.inference_count, counts.execution_count) == (10, 3)
    assert list(counts.batch_sizes) == [2, 4]


@pytest.mark.parametrize("outcome", [RunOutcome.FAILED, RunOutcome.TERMINATED, RunOutcome.DISCARDED])
def test_run_without_answers_is_no_execution(outcome):
    """It took the model's time, which both the histogram and the load report count."""
    stats = ModelStats(epoch_s=lambda: 1234.5)
    stats.batch_done(_run(4, answered=0, outcome=outcome))
    counts = stats.read()
    assert (counts.inference_count, counts.execution_count, counts.last_inference_ms) == (0, 0, 0)
    assert (counts.success, counts.batch_sizes) == (Durations(0, 0), {})
    assert (counts.run_s.count, counts.batch_rows.count, stats.busy_s) == (1, 1, 0.01)
    assert counts.batch_failures == (outcome is RunOutcome.FAILED)
    assert counts.stack_s.count == (outcome is RunOutcome.DISCARDED)


def test_failed_requests_are_counted_from_arrival():
    """Nothing ran."""
    stats = ModelStats()
    stats.failed(0.25)
    counts = stats.read()
    assert counts.fail == Durations(1, 250 * _MS)
    assert (counts.success, counts.execution_count) == (Durations(0, 0), 0)


def test_counts_are_a_snapshot():
    """They do not change after they were read."""
    stats = ModelStats()
    before = stats.read()
    stats.batch_done(_run(1))
    assert (before.execution_count, before.batch_sizes) == (0, {})


def test_reports_do_not_accumulate_without_a_reader():
    """They are added up every so often, and hold no memory for longer."""
    stats = ModelStats()
    for _ in range(1000):
        stats.batch_done(_run(1))
        stats.answered(0.001)
    assert len(stats._pending) < 100
    assert len(stats._pending_encode_s) < 100
    counts = stats.read()
    assert (counts.execution_count, counts.encode_s.count) == (1000, 1000)


def test_activity_adds_up_what_has_not_been_counted_yet():
    """A run that was just reported is in it; rejections are among the failures."""
    stats = ModelStats()
    stats.batch_done(_run(rows=5, answered=2))
    stats.batch_done(_run(rows=1, outcome=RunOutcome.FAILED, answered=0))
    stats.failed(0.1)
    stats.failed(0.0, "QUEUE_FULL")
    activity = stats.activity()
    assert activity[:5] == (2, 2, 1, 5, 1)
    assert activity.batches == (1, 0, 0, 1, *[0] * 8)
