"""What is taken down of a traced call, and where it waits to become spans."""

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from inferd.observability.timing import Stages


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanRecord:
    """A span to be made. ``trace_id``, ``span_id`` and ``parent_id`` in hexadecimal, the last one empty for a root.

    ``started_at`` and ``ended_at`` are on the monotonic clock, in seconds. ``status`` is the gRPC status by its name.
    A call has a ``method``, a request of a stream has none. Holds texts and numbers, and no part of the call itself.
    """

    trace_id: str
    span_id: str
    parent_id: str
    tracestate: str
    method: str
    started_at: float
    ended_at: float
    status: str
    error: str
    peer: str
    facts: Mapping[str, object]
    stages: Stages


class SpanQueue:
    """Records that wait, a bounded number of them; further ones are dropped and counted.

    Threads: `put` any, `take` and `lose` the one that makes spans of them.
    """

    def __init__(self, max_waiting: int = 4096) -> None:
        self._max_waiting = max_waiting
        self._waiting: deque[SpanRecord] = deque()
        self._lock = threading.Lock()
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many spans were lost, here or on their way."""
        return self._dropped

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def put(self, record: SpanRecord) -> None:
        """Have ``record`` become a span soon. Never waits, never raises."""
        if len(self._waiting) < self._max_waiting:
            self._waiting.append(record)
        else:
            self.lose(1)

    def take(self, most: int) -> list[SpanRecord]:
        """Take those that have waited longest."""
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), most))]

    def lose(self, spans: int) -> None:
        """Count spans that will not arrive."""
        with self._lock:
            self._dropped += spans
