"""Durations of parallel runs in relation to single ones."""

import pytest

from inferd.batching.request import Batch
from inferd.batching.slowdowns import MEASURING, Slowdowns
from tests.fakes import Caller


class _Runs:
    """Runs whose beginning and end the test says."""

    def __init__(self):
        self.slowdowns = Slowdowns()
        self.now = 100.0

    def begin(self, rows=1):
        batch = Batch(requests=[Caller().request], rows=rows, started_at=self.now)
        self.slowdowns.begun(batch, self.now)
        return batch

    def end(self, *batches, cut_off=False):
        for batch in batches:
            batch.run_s, batch.cut_off = self.now - batch.started_at, cut_off
            self.slowdowns.ended(batch, self.now)

    def run(self, count, seconds, rows=1, times=4):
        """Run ``count`` batches at a time."""
        for _ in range(times):
            batches = [self.begin(rows) for _ in range(count)]
            self.now += seconds
            self.end(*batches)

    def known(self, level):
        return self.slowdowns.known(level, self.now)


def test_runs_beside_each_other_take_longer():
    """On shared cores twice as long; on others as long as alone."""
    runs = _Runs()
    runs.run(1, 0.1)
    runs.run(2, 0.2)
    runs.run(3, 0.1)
    assert [runs.known(level) for level in (1, 2, 3)] == pytest.approx([1.0, 2.0, 1.0])


def test_compares_parallel_runs_with_single_ones_of_as_many_rows():
    """Also with sizes between those that ran alone."""
    runs = _Runs()
    runs.run(1, 0.1, rows=4)
    runs.run(1, 0.2, rows=8)
    runs.run(2, 0.3, rows=6)
    assert runs.known(2) == pytest.approx(2.0)


def test_run_with_others_for_a_part_of_the_time_does_not_count():
    """Nobody knows how long it would have taken."""
    runs = _Runs()
    runs.run(1, 0.1)
    for _ in range(4):
        first = runs.begin()
        runs.now += 0.05
        second = runs.begin()
        runs.now += 0.1
        runs.end(first)
        runs.now += 0.05
        runs.end(second)
    assert runs.known(2) is None
    assert runs.known(1) == pytest.approx(1.0)


def test_terminated_run_does_not_count():
    """Nor does one whose begin was not recorded."""
    runs = _Runs()
    runs.run(1, 0.1)
    batch = runs.begin()
    runs.now += 5.0
    runs.end(batch, cut_off=True)
    runs.end(Batch(requests=[], rows=1, started_at=runs.now - 5.0))
    assert runs.known(1) == pytest.approx(1.0)
    assert runs.slowdowns.running == 0


def test_old_measurements_are_replaced():
    """The machine may have become busier."""
    runs = _Runs()
    runs.run(1, 0.1)
    runs.run(2, 0.2, times=20)
    runs.now += 2 * MEASURING.fresh_s
    assert runs.known(2) is None
    runs.run(2, 0.1, times=2)
    assert runs.known(2) == pytest.approx(1.0)


def test_first_run_is_the_measure_until_there_is_one_alone():
    """A model may always have more than one instance."""
    runs = _Runs()
    runs.run(2, 0.1)
    runs.run(3, 0.15)
    assert runs.known(3) / runs.known(2) == pytest.approx(1.5)
