"""Warm-up: runs a model before its first request, so that no client pays for the first run of a shape.

Batches grow from one row on. The memory of a larger batch is extrapolated from the smaller ones, and a run that would
exceed the budget is not started: the largest batch of an image model may need many times the size of its file. If one
is out of memory all the same, batches have no more rows than the largest that ran.

What the runs took is the first that the cost model knows. The first run of a shape is slower than those that follow,
and any run may be held up by another process, so sizes whose run is short are run again, and the shortest counts.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from functools import partial

from inferd.config.settings import BatchingSettings, ModelSettings
from inferd.runtime.batch_axes.synthetic_inputs import SyntheticInputs
from inferd.runtime.errors import ModelLoadError, RunFailedError, RunFailure, runtime_message
from inferd.runtime.providers import on_cuda
from inferd.runtime.resources import MemoryGrowth, resident_bytes, trim_heap, usable_bytes
from inferd.runtime.session import OnnxSession
from inferd.runtime.signature import Tensors

#: Share of the memory budget up to which the largest batch may run next, skipping the sizes in between.
_CHEAP = 8
#: Rows from which the extrapolation is reliable, and the growth of each further batch.
_RELIABLE_ROWS = 4
_STEP = 4
_MIB = 2**20
#: Expected memory from which a run is logged at INFO.
_LARGE_BYTES = 64 * _MIB

#: Runs up to this are done again to be timed, at most so many times, and once only if that takes at least so long: it
#: adds at most a fifth of a second to a load.
_REPEATED_S = 0.05
_REPEATS = 4
_ENOUGH_S = 0.005

_log = logging.getLogger("inferd.runtime")


def warm_up(
    session: OnnxSession,
    settings: ModelSettings,
    *,
    resident: Callable[[], int] = resident_bytes,
    usable: Callable[[], int] = usable_bytes,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[], None] = lambda: None,
) -> list[tuple[int, float]]:
    """Run ``session`` with each batch size that matters. Raises `ModelLoadError` if one of them fails.

    Returns rows and seconds of timed runs. Does nothing without inputs on which the model is known to run. Memory that
    only larger batches needed is freed before and afterwards. ``pause`` is called between the sizes.
    """
    inputs = session.synthetic_inputs
    if inputs is None or not settings.runtime.warmup:
        return []
    largest = largest_batch(settings.batching, batchable=session.signature.batchable)
    largest = min(largest, session.most_rows or largest)
    _log.info("warming up with up to %d rows", largest)
    _free_memory(session, inputs)
    pause()
    growth = MemoryGrowth(resident, usable)
    # On a GPU the first run of a shape says nothing: it selects kernels.
    cuda = on_cuda(session.providers)
    timed: list[tuple[int, float]] = []
    worked = 1
    for rows in _batch_sizes(largest, growth, every=cuda):
        expected = growth.expected(rows)
        if not growth.fits(rows):
            _log.warning(
                "warm-up ends before %d rows, which would take about %d MiB of %d MiB; lower batching.max_batch_size",
                rows,
                expected // _MIB,
                growth.budget // _MIB,
            )
            break
        level = logging.INFO if expected >= _LARGE_BYTES else logging.DEBUG
        _log.log(level, "warming up with %d rows, about %d MiB", rows, expected // _MIB)
        run = partial(_run, session, inputs.rows(rows), rows, clock)
        try:
            # The sizes between powers of two are interpolated.
            if rows & (rows - 1) and rows < largest:
                run()
            else:
                timed.append((rows, _shortest(run, math.inf if cuda else _REPEATED_S)))
        except RunFailedError as error:
            session.remember_rows(worked)
            _log.warning("there is no memory to run %d rows at once, so batches have up to %d: %s", rows, worked, error)
            break
        worked = rows
        growth.ran(rows)
        pause()
    _free_memory(session, inputs)
    return timed


def _batch_sizes(largest: int, growth: MemoryGrowth, *, every: bool) -> Iterator[int]:
    """Yield ``every`` batch size, or else growing ones, and the largest as soon as it is cheap."""
    rows = 1
    while rows < largest:
        yield rows
        cheap = rows >= _RELIABLE_ROWS and growth.expected(largest) <= growth.budget // _CHEAP
        larger = 2 * rows if rows < _RELIABLE_ROWS else _STEP * rows
        rows = rows + 1 if every else largest if cheap else min(larger, largest)
    yield largest


def _shortest(run: Callable[[], float], repeated_s: float) -> float:
    """Return how long ``run`` takes, the shortest of several times if the first is no longer than ``repeated_s``."""
    shortest_s, spent_s = run(), 0.0
    if shortest_s > repeated_s:
        return shortest_s
    for _ in range(_REPEATS):
        run_s = run()
        shortest_s, spent_s = min(shortest_s, run_s), spent_s + run_s
        if spent_s >= _ENOUGH_S:
            break
    return shortest_s


def _run(session: OnnxSession, tensors: Tensors, rows: int, clock: Callable[[], float]) -> float:
    """Run ``rows`` and return how long it took, in seconds. Raises `RunFailedError` if fewer rows may run."""
    outputs = [spec.name for spec in session.signature.outputs]
    started_at = clock()
    try:
        session.run(tensors, outputs)
    except RunFailedError as error:
        if error.failure is RunFailure.OUT_OF_MEMORY and rows > 1:
            raise
        # The text may be quoted, because the inputs are synthetic.
        msg = f"the model cannot run {rows} rows at once, lower max_batch_size: {runtime_message(error.cause)}"
        raise ModelLoadError(msg) from error.cause
    return clock() - started_at


def _free_memory(session: OnnxSession, inputs: SyntheticInputs) -> None:
    """Free what runs of many rows have left behind; takes a run of one row, which shows what is unused."""
    try:
        session.shrink_memory(inputs.rows(1))
    except RunFailedError as error:
        msg = f"the model does not run any more: {runtime_message(error.cause)}"
        raise ModelLoadError(msg) from error.cause
    trim_heap()


def largest_batch(batching: BatchingSettings, *, batchable: bool) -> int:
    """Return the largest number of rows that will run together."""
    return batching.max_batch_size if batchable and batching.enabled else 1
