"""How many rows run together: the smallest batch at nearly the best rate, by the cost model of the server.

Measured once, on rows of the job, when its plan is made; a job that goes on uses the plan's. A server says what its
runs take.
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

#: Rates this near to the best are as good; smaller batches take less memory, and less is run again after a failure.
_AS_GOOD = 0.98
#: Each size is run for so long, and at least so many times.
_SECONDS, _RUNS = 0.15, 4
#: Sizes are tried up to this many times the best one so far.
_GROWTH = 4
#: A size whose run takes longer than this is large enough.
_LONG_RUN_S = 1.0
#: Rows that are tried until one runs.
_TRIED_ROWS = 16
#: The rows of a batch if none of them does, or there are none.
_UNKNOWN_ROWS = 64


def choose_limits(
    runner: ModelRunner,
    sample: Mapping[str, ColumnTensor],
    outputs: Sequence[str],
    options: JobOptions,
    clock: Callable[[], float] = time.perf_counter,
) -> BatchLimits:
    """Return the limits of batches for rows like those of ``sample``, which may be empty.

    Rows and bytes that the options give are taken as they are. Raises `BatchError` if nothing runs.
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
        # Texts may be longer elsewhere.
        return BatchLimits(chosen, max(runner.max_bytes, row_bytes))
    # Rows of other lengths run in batches of as many bytes: shorter ones more at a time, longer ones fewer.
    return BatchLimits(most, max(1, min(runner.max_bytes, chosen * group_bytes)))


def _fastest(runner: ModelRunner, group: Tensors, outputs: Sequence[str], most: int, clock: Callable[[], float]) -> int:
    """Return the smallest number of rows of ``group`` that runs nearly as fast, by row, as any up to ``most``."""
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
    """Yield what runs of growing sizes take, as long as that brings something and there is memory for it."""
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
    """Return the first row of ``group`` that runs, as a group of its own; None if the first ones all fail."""
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
    """Return the inputs of ``rows`` rows that are all the same."""
    return {
        name: to_batch_axis(runner.signature.input(name), np.repeat(array, rows, axis=0)) for name, array in row.items()
    }


def _sizes(most: int) -> Iterator[int]:
    rows = 1
    while rows < most:
        yield rows
        rows *= 2
    yield most
