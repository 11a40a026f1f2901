"""Run a model before its first request, so that no caller pays for what the first run of a shape costs.

Batches grow from one row on. How much memory a larger one will take follows from those before it, so that a run is not
begun that would take more than there is: the largest batch of a model of pictures may need many times its file's size.
"""

import logging
from collections.abc import Callable, Iterator

from inferd.config.settings import BatchingSettings, ModelSettings
from inferd.runtime.errors import ModelLoadError, RunFailedError, runtime_message
from inferd.runtime.providers import on_cuda
from inferd.runtime.resources import MemoryGrowth, resident_bytes, trim_heap, usable_bytes
from inferd.runtime.session import OnnxSession

#: Part of the memory budget that the largest batch may be expected to take if the sizes before it are passed over.
_CHEAP = 8
#: Rows after which what is expected can be relied on, and how many times larger each further batch is.
_TELLING_ROWS = 4
_STEP = 4
_MIB = 2**20
#: What a run is expected to take before it is worth a line in the log.
_WORTH_TELLING_BYTES = 64 * _MIB

_log = logging.getLogger("inferd.runtime")


def warm_up(
    session: OnnxSession,
    settings: ModelSettings,
    *,
    resident: Callable[[], int] = resident_bytes,
    usable: Callable[[], int] = usable_bytes,
) -> None:
    """Run ``session`` with each batch size that matters. Raises `ModelLoadError` if it cannot run one of them.

    Does nothing for a model that is not known to run on made-up inputs. Memory that only larger batches needed is given
    back before and afterwards.
    """
    trial = session.trial
    if trial is None or not settings.runtime.warmup:
        return
    largest = largest_batch(settings.batching, batchable=session.signature.batchable)
    _log.info("warming up with up to %d rows", largest)
    _free(session)
    growth = MemoryGrowth(resident, usable)
    for rows in _sizes(largest, growth, every=on_cuda(session.providers)):
        expected = growth.expected(rows)
        if not growth.fits(rows):
            _log.warning(
                "warm-up ends before %d rows, which would take about %d MiB of %d MiB; lower batching.max_batch_size",
                rows,
                expected // _MIB,
                growth.budget // _MIB,
            )
            break
        level = logging.INFO if expected >= _WORTH_TELLING_BYTES else logging.DEBUG
        _log.log(level, "warming up with %d rows, about %d MiB", rows, expected // _MIB)
        _run(session, rows)
        growth.ran(rows)
    _free(session)


def _sizes(largest: int, growth: MemoryGrowth, *, every: bool) -> Iterator[int]:
    """Yield batch sizes: each one there will be, or else ever larger ones, and the largest as soon as it is cheap."""
    rows = 1
    while rows < largest:
        yield rows
        cheap = rows >= _TELLING_ROWS and growth.expected(largest) <= growth.budget // _CHEAP
        larger = 2 * rows if rows < _TELLING_ROWS else _STEP * rows
        rows = rows + 1 if every else largest if cheap else min(larger, largest)
    yield largest


def _run(session: OnnxSession, rows: int) -> None:
    assert session.trial is not None
    try:
        session.run(session.trial.rows(rows), [spec.name for spec in session.signature.outputs])
    # Out of memory, most likely. All of it may be told, because these inputs are nobody's.
    except RunFailedError as error:
        msg = f"the model cannot run {rows} rows at once, lower max_batch_size: {runtime_message(error.cause)}"
        raise ModelLoadError(msg) from error.cause


def _free(session: OnnxSession) -> None:
    """Return what runs of many rows have left behind, by a run of one row after which it can be seen to be unused."""
    assert session.trial is not None
    try:
        session.give_back(session.trial.rows(1))
    except RunFailedError as error:
        msg = f"the model does not run any more: {runtime_message(error.cause)}"
        raise ModelLoadError(msg) from error.cause
    trim_heap()


def largest_batch(batching: BatchingSettings, *, batchable: bool) -> int:
    """Return the most rows that will run together."""
    return batching.max_batch_size if batchable and batching.enabled else 1
