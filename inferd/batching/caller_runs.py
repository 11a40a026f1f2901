"""The threads that stand in for callers under the caller_runs policy.

The callers themselves are on the rpc poll thread, which must not run a model.
"""

from queue import SimpleQueue

from inferd.batching.queue import RequestQueue
from inferd.batching.request import Batch
from inferd.batching.worker import Post


class CallerRuns:
    """Runs batches outside the queue.

    Invariant: the handover holds no more batches than there are threads, because the policy lets no more than that run
    outside the queue at a time. `run` is called by the submitting thread and does not block; `take` by the threads,
    one for each of the ``posts``.
    """

    def __init__(self, *, name: str, threads: int, queue: RequestQueue) -> None:
        self._queue = queue
        self._handover: SimpleQueue[Batch | None] = SimpleQueue()
        self.posts = [Post(f"{name}-{number}", self) for number in range(threads)]

    def run(self, batch: Batch) -> None:
        """Have ``batch`` run at once."""
        self._handover.put(batch)

    def take(self, finished: Batch | None) -> Batch | None:
        """As `BatchSource` says."""
        if finished is not None:
            self._queue.retire(finished)
        return self._handover.get()

    def stop(self) -> None:
        """Let each thread end after what it is running."""
        for _ in self.posts:
            self._handover.put(None)
