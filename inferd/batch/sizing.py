"""How many rows run together: the smallest batch at nearly the best rate, by the cost model of the server.

Measured once, on rows of the job, when its plan is made; a job that goes on uses the plan's.
"""

import time
from collections.abc import Callable, Iterator, Mapping

from inferd.batch.blocks import BatchLimits, ColumnTensor, Selection
from inferd.batch.grouping import batches
from inferd.batch.options import JobOptions
from inferd.batch.ports import ModelRunner
from inferd.batch.tensors import to_batch_axis
from inferd.batching.cost_model import CostModel
from inferd.runtime.signature import Tensors

#: Rates this near to the best are as good; smaller batches take less memory, and less is run again after a failure.
_AS_GOOD = 0.98
#: Each size is run for so long, and at least so many times.
_SECONDS, _RUNS = 0.25, 3
#: Sizes are tried up to this many times the best one so far.
_GROWTH = 4
#: A size whose run takes longer than this is large enough.
_LONG_RUN_S = 1.0
#: No more than this for the inputs of one batch.
_MOST_BYTES = 64 * 2**20


def choose_limits(
    runner: ModelRunner,
    sample: Mapping[str, ColumnTensor],
    outputs: tuple[str, ...],
    options: JobOptions,
    clock: Callable[[], float] = time.perf_counter,
) -> BatchLimits:
    """Return the limits of batches for rows like those of ``sample``, which may be empty.

    Rows and bytes that the options give are taken as they are. Raises as runs do.
    """
    rows = len(next(iter(sample.values()), ()))
    most = runner.max_rows if options.batch_rows is None else options.batch_rows
    if not runner.signature.batchable or not rows:
        return BatchLimits(most, options.batch_bytes or _MOST_BYTES)
    alike = max(batches(runner.signature, sample, rows, BatchLimits(rows, _MOST_BYTES * rows)), key=_size)
    group = {name: tensor.rows(alike) for name, tensor in sample.items()}
    row_bytes = max(1, sum(array.nbytes for array in group.values()) // _size(alike))
    chosen = options.batch_rows or _fastest(runner, _repeated(runner, group, _size(alike)), outputs, most, clock)
    # Rows that are longer than these run in smaller batches, of as many bytes.
    nbytes = options.batch_bytes or min(_MOST_BYTES, chosen * row_bytes)
    return BatchLimits(chosen, max(nbytes, row_bytes))


def _fastest(
    runner: ModelRunner,
    tensors: Callable[[int], Tensors],
    outputs: tuple[str, ...],
    most: int,
    clock: Callable[[], float],
) -> int:
    """Return the smallest number of rows that runs nearly as fast, by row, as any."""
    cost = CostModel()
    tried: list[int] = []
    for rows in _sizes(most):
        inputs = tensors(rows)
        runner.submit(inputs, outputs).result()
        began, runs = clock(), 0
        while runs < _RUNS or clock() - began < _SECONDS:
            started = clock()
            runner.submit(inputs, outputs).result()
            cost.ran(rows, clock() - started)
            runs += 1
            if clock() - began > _LONG_RUN_S:
                break
        tried.append(rows)
        rates = {each: each / max(cost.predict(each), 1e-9) for each in tried}
        # Neither time nor memory for sizes that bring nothing.
        if cost.predict(rows) > _LONG_RUN_S or max(tried, key=rates.__getitem__) < rows // _GROWTH:
            break
    return min(rows for rows in tried if rates[rows] >= _AS_GOOD * max(rates.values()))


def _sizes(most: int) -> Iterator[int]:
    rows = 1
    while rows < most:
        yield rows
        rows *= 2
    yield most


def _repeated(runner: ModelRunner, group: Tensors, size: int) -> Callable[[int], Tensors]:
    """Return what makes the inputs of so many rows, of the rows in ``group`` again and again."""

    def tensors(rows: int) -> Tensors:
        index = [row % size for row in range(rows)]
        return {name: to_batch_axis(runner.signature.input(name), array[index]) for name, array in group.items()}

    return tensors


def _size(selection: Selection) -> int:
    return selection.stop - selection.start if isinstance(selection, slice) else len(selection)
