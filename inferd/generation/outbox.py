"""Delivers deltas and errors to the receivers on the poll thread, and ends each request once."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from inferd.batching.ports import PollThread
from inferd.errors import ServingError
from inferd.generation.request import Delta, GenerationRequest

_logger = logging.getLogger("inferd.generation")

#: Outcomes that are delivered in one round of the poll thread. All those of a step would take milliseconds, in which
#: requests to other models wait.
_AT_A_TIME = 4

#: What a request gets: a delta, or the error that ends it.
Outcome = tuple[GenerationRequest, Delta | ServingError]


class Outbox:
    """The open requests, which have not ended, and outcomes that are on their way to them.

    Invariant: a request is open from `add` until its last delta, an error, or its cancel; later, its receiver is not
    called. Outcomes arrive in the order of posting, a few at a time. ``post``, ``post_to_all`` and
    ``wait_until_sent`` are called by any thread, the other methods by the poll thread; ``open`` is read by any.
    ``on_empty`` is called when no request is open any more, possibly several times.
    """

    def __init__(self, poll_thread: PollThread, on_empty: Callable[[], None]) -> None:
        self._poll_thread = poll_thread
        self._on_empty = on_empty
        self._open: set[GenerationRequest] = set()
        self._posted: deque[Outcome] = deque()
        self._sent = threading.Event()
        self._sent.set()

    @property
    def open(self) -> int:
        """The number of requests that have not ended."""
        return len(self._open)

    def add(self, request: GenerationRequest) -> None:
        """Open ``request``."""
        self._open.add(request)

    def withdraw(self, request: GenerationRequest) -> bool:
        """End ``request`` without an outcome; return False if it has already ended."""
        if request not in self._open:
            return False
        self._open.remove(request)
        self._notify_if_empty()
        return True

    def post(self, outcomes: Sequence[Outcome]) -> None:
        """Deliver ``outcomes`` soon."""
        if outcomes:
            if len(outcomes) > _AT_A_TIME:
                self._sent.clear()
            self._posted.extend(outcomes)
            self._poll_thread.call_soon(self._deliver_posted)

    def wait_until_sent(self, limit_s: float) -> None:
        """Wait until no round of deliveries is left, for at most ``limit_s``; not if one round has them all."""
        self._sent.wait(limit_s)

    def post_to_all(self, error: ServingError) -> None:
        """End all requests with ``error`` soon, after what was posted to them."""
        self._poll_thread.call_soon(lambda: self.post([(request, error) for request in self._open]))

    def deliver(self, outcomes: Iterable[Outcome]) -> None:
        """Call the receivers of ``outcomes`` whose requests are open."""
        for request, outcome in outcomes:
            if request not in self._open:
                continue
            try:
                if isinstance(outcome, ServingError):
                    self._open.remove(request)
                    request.receiver.on_error(outcome)
                else:
                    if outcome.finish_reason is not None:
                        self._open.remove(request)
                    request.receiver.on_delta(outcome)
            except Exception:  # one broken receiver must not hurt the requests of others
                _logger.exception("the receiver of a generation failed")
        self._notify_if_empty()

    def _deliver_posted(self) -> None:
        """Deliver the next outcomes; the others in the next round of the poll thread."""
        posted = self._posted
        self.deliver([posted.popleft() for _ in range(min(_AT_A_TIME, len(posted)))])
        if posted:
            self._poll_thread.call_soon(self._deliver_posted)
        else:
            # In the next round, as this one sends what was delivered at its end.
            self._poll_thread.call_soon(self._sent.set)

    def _notify_if_empty(self) -> None:
        if not self._open:
            self._on_empty()
