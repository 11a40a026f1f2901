"""Handles requests that do not fit into the queue: evicts scavengers for them, or asks the policy. Pure."""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic

from inferd.batching.policies import Decision, Policy, RejectPolicy, Room
from inferd.batching.queued import Queued, QueueEffects
from inferd.batching.refusals import Refusals
from inferd.batching.waiting import WaitingRequests


class BlockedRequests(Generic[Queued]):
    """Requests that wait in front of a full queue, in order of arrival."""

    def __init__(self) -> None:
        self.count = 0
        self.nbytes = 0
        self._requests: dict[Queued, None] = {}

    def __iter__(self) -> Iterator[Queued]:
        return iter(self._requests)

    def add(self, request: Queued) -> None:
        """Add ``request``."""
        self._requests[request] = None
        self.count += 1
        self.nbytes += request.nbytes

    def remove(self, request: Queued) -> bool:
        """Remove ``request``; False if it is not here."""
        if request not in self._requests:
            return False
        del self._requests[request]
        self.count -= 1
        self.nbytes -= request.nbytes
        return True

    def lets_pass(self, request: Queued) -> bool:
        """Return whether ``request`` has a higher priority than all that are blocked."""
        return all(request.priority < blocked.priority for blocked in self._requests)


class Overflow(Generic[Queued]):
    """Makes room for requests that do not fit, or has the policy decide.

    Invariant: the first of the ``blocked`` requests does not fit into the queue. ``count_outside`` returns the requests
    that run outside the queue at present.
    """

    def __init__(
        self,
        policy: Policy,
        waiting: WaitingRequests[Queued],
        refusals: Refusals,
        count_outside: Callable[[], int] = lambda: 0,
    ) -> None:
        self._policy = policy
        self._waiting = waiting
        self._count_outside = count_outside
        self._refusals = refusals
        self.blocked: BlockedRequests[Queued] = BlockedRequests()
        #: Whether a request for which there is no room is certainly rejected.
        self.always_rejects = isinstance(policy, RejectPolicy)

    def make_room(self, request: Queued, effects: QueueEffects[Queued]) -> bool:
        """Evict scavengers if ``request`` fits only without them, whatever the policy. Returns whether it fits now."""
        if self._waiting.fits(request):
            return True
        victims = self._waiting.scavengers_for(request) if self._waiting.scavengers.rows else []
        self.evict(victims, effects)
        return bool(victims)

    def unblocked(self, effects: QueueEffects[Queued]) -> Iterator[Queued]:
        """Remove the blocked requests that fit now, and yield each; the caller admits it before it takes the next."""
        blocked = self.blocked
        while blocked.count:
            request = next(iter(blocked))
            if not self.make_room(request, effects):
                return
            blocked.remove(request)
            yield request

    def evict(self, victims: Sequence[Queued], effects: QueueEffects[Queued]) -> None:
        """Remove waiting requests and fail them."""
        for victim in victims:
            self._waiting.remove(victim)
            effects.failed.append((victim, self._refusals.shed()))

    def decide(self, request: Queued) -> Decision[Queued]:
        """Return what the policy decides about ``request``."""
        room = Room(
            waiting=self._waiting,
            blocked_requests=self.blocked.count,
            blocked_bytes=self.blocked.nbytes,
            # A caller that is being answered may send its next request before the thread has retired the batch.
            caller_runs=self._count_outside(),
        )
        return self._policy.decide(request, room)
