"""Open model files in separate processes first, so that a file that crashes or hangs ONNX Runtime does no harm.

Successes and crashes are stored by the hash of the file, beside the verdicts on batching. A file that takes too long or
too much memory is tried again with each load: that depends on the machine.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import inferd
from inferd.config.settings import ModelSettings
from inferd.models.probe_pool import NoProcessError, Outcome, ProbePool
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.resources import BACKGROUND_NICE, low_priority_thread
from inferd.runtime.trial_opening import are_unchanged, opening_key
from inferd.runtime.verdict_cache import CacheFolder, fingerprint
from inferd.small_files import open_file

_log = logging.getLogger(__name__)

#: Time for which files are opened without a process, after one could not be started.
_DISABLED_S = 60.0

#: The demo model, which comes with inferd, is trusted.
_TRUSTED_FILES = Path(inferd.__file__).parent


def _never() -> bool:
    return False


def _no_pause() -> None:
    pass


class ModelProbe:
    """Decides whether the server may open a file. Any thread may call `check`, which takes as long as opening it.

    At most ``processes`` files are opened at a time, each for at most ``timeout_s`` plus a second for each 20 MB.
    """

    def __init__(self, *, timeout_s: float, processes: int) -> None:
        self._timeout_s = timeout_s
        self._pool = ProbePool(processes)
        self._disabled_until = 0.0

    def check(
        self,
        path: Path,
        settings: ModelSettings,
        is_cancelled: Callable[[], bool] = _never,
        pause: Callable[[], None] = _no_pause,
    ) -> None:
        """Raise `ModelLoadError` if opening ``path`` with ``settings`` would harm the server.

        The server itself reports files that it cannot read, and ordinary damage. ``is_cancelled`` is polled in the
        meantime, and ends the check. ``pause`` is called between the steps.
        """
        if path.is_relative_to(_TRUSTED_FILES) or time.monotonic() < self._disabled_until:
            return
        cache = CacheFolder(settings.runtime.verdict_cache)
        try:
            open_file(path).close()
            key = _hashed(path, settings) if cache.is_on else ""
            pause()
            outcome = _cached_outcome(cache.load(key), path) or self._open(path, settings, is_cancelled, cache, key)
        except NoProcessError as error:
            self._disabled_until = time.monotonic() + _DISABLED_S
            _log.warning("model files are opened without a separate process first: %s", error)
        except OSError as error:
            _log.debug("%s cannot be read: %s", path, error)
        else:
            pause()
            if outcome.failure:
                raise ModelLoadError(f"cannot load {path.name}: {outcome.failure}")

    def stop(self) -> None:
        """End the processes; checks fail."""
        self._pool.stop()

    def _open(
        self, path: Path, settings: ModelSettings, is_cancelled: Callable[[], bool], cache: CacheFolder, key: str
    ) -> Outcome:
        before = fingerprint(path)
        outcome = self._pool.open(path, settings, self._timeout_s, is_cancelled)
        if fingerprint(path) != before:
            return Outcome(failure="it was changed while it was opened") if outcome.failure else outcome
        if outcome.weights is not None and (outcome.is_crash or not outcome.failure):
            cache.store(key, {"failure": outcome.failure, "weights": outcome.weights})
        return outcome


def _hashed(path: Path, settings: ModelSettings) -> str:
    # A large file takes long, and the requests of other models go first.
    with low_priority_thread("model-digest", BACKGROUND_NICE) as thread:
        return thread.submit(opening_key, path, settings).result()


def _cached_outcome(content: object, path: Path) -> Outcome | None:
    """Return the outcome in the ``content`` of a cache file, if the weights of the model at ``path`` are unchanged."""
    match content:
        case {"failure": str(failure), "weights": dict(weights)} if are_unchanged(path, weights):
            return Outcome(failure=failure, is_crash=bool(failure), weights=weights)
    return None
