"""Shrink the memory of idle models, which ONNX Runtime's arenas keep from larger batches.

An arena keeps the memory of the largest batch for the next one, and shrinks only at the end of a run that asks for it.
So when a model has been idle for some seconds after a larger run, it runs one row; at once, when another model is out
of memory.
"""

import logging
import threading
from collections.abc import Callable, Mapping

from inferd.batching.ports import Clock
from inferd.models.loaded import LoadedModel, LoadedVersion
from inferd.models.version import ModelVersion
from inferd.runtime.errors import RunFailedError
from inferd.runtime.resources import give_way, trim_heap

_log = logging.getLogger(__name__)

_INTERVAL_S = 1.0


class IdleMemory:
    """Shrinks the ``loaded`` versions that are idle, in a thread of its own: one row may take long.

    `start` and `stop` are called once. A version may be closed, or run requests, while it is shrunk.
    """

    def __init__(
        self,
        loaded: Callable[[], Mapping[ModelVersion, LoadedVersion]],
        clock: Clock,
        trim: Callable[[], None] = trim_heap,
    ) -> None:
        self._loaded = loaded
        self._clock = clock
        self._trim = trim
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="idle-memory", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after the run in progress."""
        self._stopping.set()

    def shrink_idle(self) -> None:
        """Shrink the arenas of the versions that have been idle and keep memory of larger runs."""
        self._shrink_all(self._is_due)

    def free(self) -> bool:
        """Shrink idle versions at once, as another one is out of memory. Returns True if one was shrunk.

        Any thread may call.
        """
        return self._shrink_all(_keeps_memory)

    def _shrink_all(self, is_due: Callable[[ModelVersion, LoadedVersion], bool]) -> bool:
        idle = [version for version, loaded in self._loaded().items() if is_due(version, loaded)]
        shrunk = [version for version in idle if _shrink(version, self._loaded().get(version))]
        if shrunk:
            # The C library keeps the small blocks of an arena.
            self._trim()
        return bool(shrunk)

    def _is_due(self, version: ModelVersion, loaded: LoadedVersion) -> bool:
        if not _keeps_memory(version, loaded):
            return False
        idle_s = self._clock() - max(loaded.engine.last_dispatch_at, loaded.loaded_at)
        return idle_s >= version.settings.runtime.shrink_after_s

    def _run(self) -> None:
        give_way()
        while not self._stopping.wait(_INTERVAL_S):
            try:
                self.shrink_idle()
            except Exception:  # noqa: BLE001  (the other models must still give memory back)
                _log.exception("shrinking idle models failed")


def _keeps_memory(version: ModelVersion, loaded: LoadedVersion) -> bool:
    """Return True if ``version`` is idle and has spare memory; language models give theirs back on their own."""
    if not isinstance(loaded, LoadedModel):
        return False
    may_shrink = version.settings.runtime.shrink_after_s > 0 and loaded.session.has_spare_memory
    return may_shrink and not loaded.batcher.unanswered_requests


def _shrink(version: ModelVersion, loaded: LoadedVersion | None) -> bool:
    """Shrink the arenas of ``version``; return False if it was unloaded, or its run fails."""
    if not isinstance(loaded, LoadedModel):
        return False
    try:
        return loaded.session.try_out()
    except RunFailedError as error:
        # Failed requests report the cause.
        _log.info("%s does not give memory back: %s", version.name, error)
        return False
