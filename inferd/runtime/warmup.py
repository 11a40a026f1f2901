"""Run a model before its first request, so that no caller pays for what the first run of a shape costs."""

from inferd.config.settings import BatchingSettings, ModelSettings
from inferd.runtime.errors import ModelLoadError, RunFailedError, runtime_message
from inferd.runtime.providers import on_cuda
from inferd.runtime.session import OnnxSession


def warm_up(session: OnnxSession, settings: ModelSettings) -> None:
    """Run ``session`` once with each batch size that matters. Raises `ModelLoadError` if it cannot run one of them.

    Does nothing for a model that is not known to run on made-up inputs.
    """
    made_up = session.made_up
    if made_up is None:
        return
    outputs = [spec.name for spec in session.signature.outputs]
    every = on_cuda(session.providers)
    for rows in batch_sizes(settings.batching, batchable=session.signature.batchable, every=every):
        try:
            session.run(made_up.rows(rows), outputs)
        # Out of memory, most likely. All of it may be told, because these inputs are nobody's.
        except RunFailedError as error:
            msg = f"the model cannot run {rows} rows at once, lower max_batch_size: {runtime_message(error.cause)}"
            raise ModelLoadError(msg) from error.cause


def batch_sizes(batching: BatchingSettings, *, batchable: bool, every: bool) -> list[int]:
    """Return the rows of the warm-up runs: ``every`` size there will be, or the smallest and the largest."""
    largest = batching.max_batch_size if batchable and batching.enabled else 1
    return list(range(1, largest + 1)) if every else sorted({1, largest})
