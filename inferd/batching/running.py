"""The batches of a queue that have been dispatched and not retired. Pure."""

from collections.abc import Iterator
from itertools import chain

from inferd.batching.idle_cores import CoreShare
from inferd.batching.request import Batch, InferenceRequest


class RunningBatches:
    """Batches between dispatch and retirement, in order of dispatch.

    A batch that is *answering* has run; its callers may send their next requests, and its worker is about to come back.
    ``cores`` counts the batches whose requests do not have ``scavenger_priority``.
    """

    def __init__(self, cores: CoreShare, *, scavenger_priority: int) -> None:
        self._cores = cores
        self._scavenger_priority = scavenger_priority
        self._batches: list[Batch] = []

    def __bool__(self) -> bool:
        return bool(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def start(self, requests: list[InferenceRequest], rows: int, now: float, *, outside_queue: bool = False) -> Batch:
        """Add a batch of ``requests`` that is dispatched at ``now``."""
        batch = Batch(requests=requests, rows=rows, started_at=now, outside_queue=outside_queue)
        batch.is_online = requests[0].priority < self._scavenger_priority
        self._cores.begun += batch.is_online
        self._batches.append(batch)
        return batch

    def remove(self, batch: Batch) -> None:
        """Remove ``batch``."""
        self._batches.remove(batch)
        self._cores.ended += batch.is_online

    @property
    def requests(self) -> Iterator[InferenceRequest]:
        """All requests, also those that have been answered."""
        return chain.from_iterable(batch.requests for batch in self._batches)

    @property
    def rows(self) -> int:
        """Rows of all batches."""
        return sum(batch.rows for batch in self._batches)

    @property
    def outside_queue(self) -> int:
        """Batches outside the queue that are not answering."""
        return sum(batch.outside_queue and not batch.answering for batch in self._batches)

    @property
    def computing(self) -> int:
        """Batches whose runs have not ended."""
        computing = 0
        for batch in self._batches:
            computing += not batch.answering
        return computing

    def count_unanswered(self) -> tuple[int, bool]:
        """Return the requests in batches whose runs have not ended, and whether a batch is answering."""
        unanswered, is_answering = 0, False
        for batch in self._batches:
            if batch.answering:
                is_answering = True
            else:
                unanswered += len(batch.requests)
        return unanswered, is_answering
