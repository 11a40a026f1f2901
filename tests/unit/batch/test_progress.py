"""Counts, rates and the time left, with a clock of the test."""

import json
from dataclasses import dataclass

import pytest

from inferd.batch.progress import Progress, Summary


@dataclass
class _Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def test_rows_of_earlier_runs_are_done_but_have_no_rate() -> None:
    """What was noted before counts as done; the rate and the time left are those of this run alone."""
    clock = _Clock()
    progress = Progress(clock)
    progress.enter("running")
    progress.resume(total_rows=1000, total_parts=10, rows=400, errors=3, parts=4)
    clock.now += 10
    progress.add_block(rows=100, errors=1, batches=[64, 36])
    seen = progress.snapshot()
    assert (seen.rows, seen.errors, seen.parts, seen.total_parts) == (500, 4, 4, 10)
    assert seen.rows_per_s == pytest.approx(10)
    assert seen.left_s == pytest.approx(50)


def test_rate_is_that_of_late() -> None:
    """A job that has become slower says so after half a minute."""
    clock = _Clock()
    progress = Progress(clock)
    progress.resume(total_rows=100_000, total_parts=1, rows=0, errors=0, parts=0)
    for rows in [100] * 60 + [10] * 60:
        clock.now += 1
        progress.add_block(rows=rows, errors=0, batches=[rows])
        seen = progress.snapshot()
    assert seen.rows_per_s == pytest.approx(10)
    assert progress.batches == {100: 60, 10: 60}


def test_nothing_is_said_of_the_time_left_before_rows_ran() -> None:
    """There is no rate before the first block, and so no time left."""
    progress = Progress(_Clock())
    assert progress.snapshot().left_s is None
    progress.resume(total_rows=5, total_parts=1, rows=0, errors=0, parts=0)
    assert progress.snapshot().left_s is None


def test_summary_is_json() -> None:
    """Batch sizes are in order, and keys are texts."""
    summary = Summary(
        rows=3,
        errors=1,
        resumed_rows=0,
        resumed_errors=0,
        parts=1,
        total_parts=1,
        elapsed_s=1.0,
        run_s=0.5,
        rows_per_s=6.0,
        busy_share=0.9,
        batches={2: 1, 1: 1},
        has_finished=True,
        is_complete=True,
        errors_file="",
    )
    assert list(json.loads(json.dumps(summary.as_json()))["batches"].items()) == [("1", 1), ("2", 1)]
