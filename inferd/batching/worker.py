"""The threads that run batches."""

import threading
from typing import Protocol

from inferd.batching.execution import Executor
from inferd.batching.request import Batch


class BatchSource(Protocol):
    """Where a worker's batches come from."""

    def take(self, finished: Batch | None) -> Batch | None:
        """Hand back the ``finished`` batch and wait for the next one; None when there will be no more."""
        ...


class Worker:
    """One thread that takes a batch, runs it, and so on until its source has no more.

    Invariant: the thread lives until then, because the executor raises nothing and the source neither. It is a daemon:
    a run that never ends must not keep the process alive.
    """

    def __init__(self, *, name: str, source: BatchSource, executor: Executor) -> None:
        self._source = source
        self._executor = executor
        self._thread = threading.Thread(target=self.run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to take batches."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the source has no more."""
        if self._thread.ident is not None:
            self._thread.join()

    def run(self) -> None:
        """Take and run batches until there are no more: what the thread does."""
        batch = None
        while (batch := self._source.take(batch)) is not None:
            self._executor.execute(batch)
