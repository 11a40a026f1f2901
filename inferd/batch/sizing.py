"""Choose the size of batches: the smallest with nearly the best rate, by the cost model of `inferd.batching`.

Sizes are measured once, on rows of the job, when the plan is made; a continued job uses the plan. A server reports
the costs of its runs, so nothing is measured there.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from inferd.batch.blocks import BatchLimits, ColumnTensor
from inferd.batch.errors import RowsFailedError
from inferd.batch.grouping import batches, size
from inferd.batch.options import JobOptions
from inferd.batch.ports import ModelRunner
from inferd.batch.tensors import to_batch_axis
from inferd.batching.cost_model import CostModel
from inferd.runtime.resources import MemoryGrowth
from inferd.runtime.signature import Array, Tensors

#: A rate within this share of the best is good enough: smaller batches take less memory and fail for fewer rows.
_AS_GOOD = 0.98
#: Each size is run for this long, and at least this often.
_SECONDS, _RUNS = 0.15, 4
#: Sizes are tried up to this multiple of the best one so far.
_GROWTH = 4
#: No larger size is tried than one whose run takes this long.
_LONG_RUN_S = 1.0
#: The most rows that are tried to find one that runs.
_TRIED_ROWS = 16
#: The rows of a batch if none of them runs, or there are none.
_UNKNOWN_ROWS = 64


def choose_limits(
    runner: ModelRunner,
    sample: Mapping[str, ColumnTensor],
    outputs: Sequence[str],
    options: JobOptions,
    clock: Callable[[], float] = time.perf_counter,
) -> BatchLimits:
    """Return the limits of batches for rows like those of ``sample``, which may be empty.

    --batch-rows and --batch-bytes are used unchanged. Raises `BatchError` if no further run can succeed.
    """
    rows = len(next(iter(sample.values()), ()))
    most = runner.max_rows if options.batch_rows is None else options.batch_rows
    if not runner.signature.batchable or not rows or (options.batch_rows and options.batch_bytes):
        return BatchLimits(options.batch_rows or min(most, _UNKNOWN_ROWS), options.batch_bytes or runner.max_bytes)
    everything = BatchLimits(rows, runner.max_bytes * rows)
    alike = max(batches(runner.signature, sample, rows, everything), key=size)
    group = {name: tensor.rows(alike) for name, tensor in sample.items()}
    row_bytes = max(1, sum(tensor.nbytes for tensor in sample.values()) // rows)
    group_bytes = max(1, sum(array.nbytes for array in group.values()) // size(alike))
    chosen = options.batch_rows or _fastest(
        runner, group, outputs, max(1, min(most, rows, runner.max_bytes // group_bytes)), clock
    )
    if options.batch_bytes:
        return BatchLimits(chosen, options.batch_bytes)
    if all(tensor.shapes is None for tensor in sample.values()):
        # Later texts of BYTES may be longer.
        return BatchLimits(chosen, max(runner.max_bytes, row_bytes))
    # Rows of other lengths run in batches of the same bytes: more short rows, fewer long ones.
    return BatchLimits(most, max(1, min(runner.max_bytes, chosen * group_bytes)))


def _fastest(runner: ModelRunner, group: Tensors, outputs: Sequence[str], most: int, clock: Callable[[], float]) -> int:
    """Return the smallest batch, up to ``most`` rows like those of ``group``, with nearly the best rate in rows/s."""
    costs = {rows: cost_s for rows, cost_s in runner.run_costs.items() if rows <= most}
    costs = costs or dict(_measured(runner, group, outputs, most, clock))
    rates = {rows: rows / max(cost_s, 1e-9) for rows, cost_s in costs.items()}
    return min(
        (rows for rows in rates if rates[rows] >= _AS_GOOD * max(rates.values())),
        default=min(most, _UNKNOWN_ROWS),
    )


def _measured(
    runner: ModelRunner, group: Tensors, outputs: Sequence[str], most: int, clock: Callable[[], float]
) -> Iterator[tuple[int, float]]:
    """Yield growing numbers of rows and the seconds of their runs, while rates improve and memory suffices."""
    good = _good_row(runner, group, outputs)
    if good is None:
        return
    cost, best, growth = CostModel(), (1, 0.0), MemoryGrowth()
    for rows in _sizes(most):
        inputs = _repeated(runner, good, rows)
        if not growth.fits(rows * runner.places) or not _runs(runner, inputs, outputs):
            return
        growth.ran(rows)
        began, runs = clock(), 0
        while clock() - began < (_SECONDS if runs >= _RUNS else _LONG_RUN_S):
            started = clock()
            runner.submit(inputs, outputs).result()
            cost.ran(rows, clock() - started)
            runs += 1
        run_s = cost.predict(rows)
        yield rows, run_s
        rate = rows / max(run_s, 1e-9)
        if rate * _AS_GOOD > best[1]:
            best = rows, rate
        if run_s > _LONG_RUN_S or best[0] * _GROWTH < rows:
            return


def _good_row(runner: ModelRunner, group: Tensors, outputs: Sequence[str]) -> dict[str, Array] | None:
    """Return the inputs of the first row of ``group`` that runs; None if the first `_TRIED_ROWS` fail."""
    for row in range(min(_TRIED_ROWS, len(next(iter(group.values()))))):
        only = {name: array[row : row + 1] for name, array in group.items()}
        if _runs(runner, _repeated(runner, only, 1), outputs):
            return only
    return None


def _runs(runner: ModelRunner, inputs: Tensors, outputs: Sequence[str]) -> bool:
    try:
        runner.submit(inputs, outputs).result()
    except RowsFailedError:
        return False
    return True


def _repeated(runner: ModelRunner, row: Tensors, rows: int) -> Tensors:
    """Return the inputs of a batch that has ``row`` ``rows`` times."""
    return {
        name: to_batch_axis(runner.signature.input(name), np.repeat(array, rows, axis=0)) for name, array in row.items()
    }


def _sizes(most: int) -> Iterator[int]:
    rows = 1
    while rows < most:
        yield rows
        rows *= 2
    yield most
