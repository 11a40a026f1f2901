"""Opens the session for runs on one core each in the background, and starts the workers for them."""

import logging
import threading

from inferd.batching.ports import OneCoreSession
from inferd.batching.queue import RequestQueue
from inferd.batching.worker import Workers
from inferd.runtime.resources import give_way

_logger = logging.getLogger("inferd.batching")


class OneCoreOpener:
    """Opens ``session``, adds ``workers`` for its runs, and tells the ``queue``.

    `start` is called by one worker at a time. What has failed is not tried again.
    """

    def __init__(
        self, name: str, session: OneCoreSession, workers: Workers, queue: RequestQueue, most_rows: int
    ) -> None:
        self._name = name
        self._session = session
        self._workers = workers
        self._queue = queue
        self._most_rows = most_rows
        self._missing_workers = session.runs - 1

    def start(self) -> None:
        """Open the session in a thread of its own."""
        try:
            # A daemon: the process must not wait for it.
            threading.Thread(target=self._open, name=f"one-core-{self._name}", daemon=True).start()
        except RuntimeError:
            _logger.exception("no thread could be started to open a session for model %s", self._name)

    def _open(self) -> None:
        give_way()
        try:
            timed = self._session.open(self._most_rows)
        except Exception:
            _logger.exception("a second session of model %s could not be opened", self._name)
            return
        if not timed:
            return
        while self._missing_workers:
            if not self._workers.add():
                return
            self._missing_workers -= 1
        self._queue.one_core_opened(timed)
        _logger.info("model %s runs batches on one core each while full ones wait", self._name)
