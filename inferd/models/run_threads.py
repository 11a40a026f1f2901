"""How many threads a run may have where many model versions are served. Pure."""

from inferd.config.settings import ModelSettings
from inferd.runtime import providers
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.resources import threads_per_run

#: Threads that ONNX Runtime may have in all, beside those that run batches: each session has threads of its own, which
#: are idle unless that version runs.
_MOST_THREADS = 64
_MOST_THREADS_PER_CORE = 8


def most_threads(versions: int, cores: int) -> int:
    """Return how many threads a run of each of so many versions may have, the one that runs the batch included."""
    return 1 + (_MOST_THREADS + _MOST_THREADS_PER_CORE * cores) // max(versions, 1)


def bounded(settings: ModelSettings, *, versions: int, cores: int, available: list[str]) -> ModelSettings:
    """Return the settings of one of so many ``versions`` with fewer threads for a run, where theirs would be too many.

    Explicit numbers stand. ``available`` are the providers of the installed ONNX Runtime: on an accelerator a run has
    one thread as it is.
    """
    runtime = settings.runtime
    most = most_threads(versions, cores)
    automatic = threads_per_run(configured=0, on_accelerator=False, instances=settings.batching.instances, cores=cores)
    if runtime.intra_op_threads or automatic <= most or _on_accelerator(settings, available):
        return settings
    return settings.model_copy(update={"runtime": runtime.model_copy(update={"intra_op_threads": most})})


def _on_accelerator(settings: ModelSettings, available: list[str]) -> bool:
    try:
        (first, *_) = providers.attempts(settings.runtime, available)
    except ModelLoadError:  # it will be told of when the model is opened
        return False
    return providers.on_accelerator([name for name, _ in first])
