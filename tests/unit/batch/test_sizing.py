"""How many rows run together, for what runs cost."""

import numpy as np
import pytest

from inferd.batch.blocks import BatchLimits
from inferd.batch.options import JobOptions
from inferd.batch.sizing import choose_limits
from inferd.batch.tensors import Dense, Ragged
from inferd.runtime.signature import ModelSignature
from tests.unit.batch.fake_runner import FakeRunner, signature


def limits(runner, sample=None, **options):
    if sample is None:
        sample = {"x": Dense(np.arange(4096))}
    return choose_limits(
        runner, sample, ("y",), JobOptions(model="m", inputs=("in",), output="out", **options), runner.clock
    )


@pytest.mark.parametrize(
    ("cost", "rows"),
    [
        # Nearly all of a run is its fixed part.
        (lambda _: 0.1, 1024),
        (lambda rows: 0.01 * rows, 1),
        # 2 % of the rows' own time for each run: 64 rows are as good as any, 32 are not.
        (lambda rows: 0.001 * (1.25 + rows), 64),
        # What does not fit into a cache becomes slower.
        (lambda rows: 0.001 * (8 + rows) * (1 if rows <= 128 else 2), 128),
    ],
)
def test_smallest_batch_at_nearly_the_best_rate(cost, rows):
    """By what runs on rows of the job take."""
    assert limits(FakeRunner(cost=cost)) == BatchLimits(rows, 2**20)


def test_growing_stops_where_it_brings_nothing():
    """Neither time nor memory goes into sizes far above the best."""
    runner = FakeRunner(cost=lambda rows: 0.01 * rows)
    limits(runner)
    assert max(runner.sizes) == 8


def test_long_runs_are_not_made_longer():
    """A run of more than a second is large enough."""
    runner = FakeRunner(cost=lambda rows: 1.0 + 0.25 * rows)
    limits(runner)
    assert max(runner.sizes) == 1


def test_failing_rows_cost_the_measurement_nothing():
    """It takes a row that runs."""
    runner = FakeRunner(cost=lambda _: 0.1, poison=frozenset({0, 1, 2}))
    assert limits(runner).rows == 1024
    assert set(np.ravel(runner.inputs[-1]).tolist()) == {3}


def test_no_row_runs():
    """Batches then have a size that does not hurt."""
    assert limits(FakeRunner(poison=frozenset(range(4096)))).rows == 64


def test_known_costs_are_not_measured():
    """A server says what its runs take; no run of more rows than a batch may have."""
    runner = FakeRunner(max_rows=32, run_costs={1: 0.1, 8: 0.1, 32: 0.4, 64: 0.4})
    assert limits(runner).rows == 8
    assert runner.sizes == []


def test_bytes_of_one_run():
    """Bound the rows that are tried."""
    runner = FakeRunner(cost=lambda _: 0.1, max_bytes=80)
    assert limits(runner) == BatchLimits(10, 80)


def ragged(*lengths):
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return {"x": Ragged(np.arange(offsets[-1]), offsets, np.array(lengths)[:, None])}


def test_rows_of_several_lengths():
    """Run in batches of as many bytes as those that were measured."""
    runner = FakeRunner(signature=signature((None,)), max_rows=100, run_costs={1: 0.1, 4: 0.1, 6: 0.2})
    assert limits(runner, ragged(3, 5, 5, 5, 9, 5, 3)) == BatchLimits(100, 4 * 5 * 8)


def test_options_precede():
    """Nothing is measured if they give rows, and rows may be more than the settings'."""
    runner = FakeRunner(max_rows=8)
    assert limits(runner, batch_rows=16) == BatchLimits(16, 2**20)
    assert limits(runner, batch_rows=16, batch_bytes=9) == BatchLimits(16, 9)
    assert runner.sizes == []


def test_no_rows_to_measure():
    """And a model that may not batch."""
    runner = FakeRunner()
    assert limits(runner, {"x": Dense(np.arange(0))}).rows == 64
    alone = FakeRunner(signature=ModelSignature.without_batch_axes(signature()), max_rows=1)
    assert limits(alone, {"x": Dense(np.arange(5)[:, None])}).rows == 1
