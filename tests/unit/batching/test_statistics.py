"""What a model has done, in the terms of ModelStatistics."""

from inferd.batching.ports import BatchReport
from inferd.batching.statistics import BatchSizeStatistics, Durations, Statistics

_MS = 1_000_000


def _run(rows, requests=1):
    return BatchReport(
        requests=requests,
        rows=rows,
        decode_s=(),
        queue_s=(),
        stack_s=0.001,
        run_s=0.01,
        split_s=0.002,
        failed=False,
    )


def test_nothing_has_happened_at_first():
    """Zeros, and no batch sizes."""
    snapshot = Statistics().snapshot()
    assert snapshot.success == snapshot.fail == snapshot.compute_infer == Durations(0, 0)
    assert (snapshot.inference_count, snapshot.execution_count, snapshot.last_inference_ms) == (0, 0, 0)
    assert snapshot.batch_sizes == {}


def test_a_batch_counts_each_of_its_requests_and_one_run():
    """Each request's compute time is that of its whole batch, as the protocol has it."""
    statistics = Statistics(epoch_s=lambda: 1234.5)
    statistics.ran([_run(rows=5, requests=2)], queue_s=[0.001, 0.003], success_s=[0.02, 0.03])
    snapshot = statistics.snapshot()
    assert snapshot.success == Durations(2, 50 * _MS)
    assert snapshot.queue == Durations(2, 4 * _MS)
    assert snapshot.compute_input == Durations(2, 2 * _MS)
    assert snapshot.compute_infer == Durations(2, 20 * _MS)
    assert snapshot.compute_output == Durations(2, 4 * _MS)
    assert (snapshot.inference_count, snapshot.execution_count, snapshot.last_inference_ms) == (5, 1, 1234500)


def test_batches_are_told_apart_by_their_rows():
    """One entry for each size, counted in runs."""
    statistics = Statistics()
    for rows in (4, 1, 4):
        statistics.ran([_run(rows)], queue_s=[0.0], success_s=[0.0])
    assert statistics.snapshot().batch_sizes == {
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


def test_a_request_in_several_runs_counts_once_with_all_of_their_time():
    """A request that is larger than a batch."""
    statistics = Statistics()
    statistics.ran([_run(4), _run(4), _run(2)], queue_s=[0.0], success_s=[0.04])
    snapshot = statistics.snapshot()
    assert snapshot.compute_infer == Durations(1, 30 * _MS)
    assert (snapshot.inference_count, snapshot.execution_count) == (10, 3)
    assert list(snapshot.batch_sizes) == [2, 4]


def test_failures_are_counted_apart():
    """From arrival to the error; nothing ran."""
    statistics = Statistics()
    statistics.failed(0.25)
    snapshot = statistics.snapshot()
    assert snapshot.fail == Durations(1, 250 * _MS)
    assert (snapshot.success, snapshot.execution_count) == (Durations(0, 0), 0)


def test_a_snapshot_does_not_change_any_more():
    """It is what was true when it was taken."""
    statistics = Statistics()
    before = statistics.snapshot()
    statistics.ran([_run(1)], queue_s=[0.0], success_s=[0.0])
    assert (before.execution_count, before.batch_sizes) == (0, {})
