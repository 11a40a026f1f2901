"""The threads of the caller_runs policy. They run requests on behalf of their callers, which share the poll thread."""

from queue import SimpleQueue

from inferd.batching.queue import RequestQueue
from inferd.batching.request import Batch
from inferd.batching.worker import Post


class CallerRuns:
    """Runs batches outside the queue.

    Invariant: the handover holds at most one batch per thread, because the policy permits no more runs at a time. `run`
    is called by the submitting thread and does not block; `take` by the threads, one for each of the ``posts``.
    """

    def __init__(self, *, name: str, threads: int, queue: RequestQueue) -> None:
        self._queue = queue
        self._handover: SimpleQueue[Batch | None] = SimpleQueue()
        self.posts = [Post(f"{name}-{number}", self) for number in range(threads)]

    def run(self, batch: Batch) -> None:
        """Run ``batch`` immediately in one of the threads."""
        self._handover.put(batch)

    def take(self, finished: Batch | None) -> Batch | None:
        """Implement `BatchSource`."""
        if finished is not None:
            self._queue.retire(finished)
        return self._handover.get()

    def stop(self) -> None:
        """End each thread after its current run."""
        for _ in self.posts:
            self._handover.put(None)
