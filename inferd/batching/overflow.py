"""What happens to requests for which the queue has no room: they displace scavengers, or the policy decides. Pure."""

from collections.abc import Iterator, Sequence

from inferd.batching.policies import Decision, Policy, RejectPolicy, Room
from inferd.batching.refusals import Refusals
from inferd.batching.request import Effects, InferenceRequest, RunningBatches
from inferd.batching.waiting import WaitingRequests


class BlockedRequests:
    """Requests that wait in front of a full queue, in order of arrival."""

    def __init__(self) -> None:
        self.count = 0
        self.nbytes = 0
        self._requests: dict[InferenceRequest, None] = {}

    def __iter__(self) -> Iterator[InferenceRequest]:
        return iter(self._requests)

    def add(self, request: InferenceRequest) -> None:
        """Add ``request``."""
        self._requests[request] = None
        self.count += 1
        self.nbytes += request.nbytes

    def remove(self, request: InferenceRequest) -> bool:
        """Remove ``request``; False if it is not here."""
        if request not in self._requests:
            return False
        del self._requests[request]
        self.count -= 1
        self.nbytes -= request.nbytes
        return True

    def lets_pass(self, request: InferenceRequest) -> bool:
        """Whether ``request`` has a higher priority than all that are blocked."""
        return all(request.priority < blocked.priority for blocked in self._requests)


class Overflow:
    """Makes room for requests that do not fit, or has the policy decide.

    Invariant: the first of the ``blocked`` requests does not fit into the queue.
    """

    def __init__(self, policy: Policy, waiting: WaitingRequests, running: RunningBatches, refusals: Refusals) -> None:
        self._policy = policy
        self._waiting = waiting
        self._running = running
        self._refusals = refusals
        self.blocked = BlockedRequests()
        #: Whether a request for which there is no room is certainly rejected.
        self.always_rejects = isinstance(policy, RejectPolicy)

    def make_room(self, request: InferenceRequest, effects: Effects) -> bool:
        """Evict scavengers if ``request`` fits only without them, whatever the policy. Returns whether it fits now."""
        if self._waiting.fits(request):
            return True
        victims = self._waiting.scavengers_for(request) if self._waiting.scavengers.rows else []
        self.evict(victims, effects)
        return bool(victims)

    def evict(self, victims: Sequence[InferenceRequest], effects: Effects) -> None:
        """Remove waiting requests and fail them."""
        for victim in victims:
            self._waiting.remove(victim)
            effects.failed.append((victim, self._refusals.shed()))

    def decide(self, request: InferenceRequest) -> Decision:
        """Return what the policy decides about ``request``."""
        room = Room(
            waiting=self._waiting,
            blocked_requests=self.blocked.count,
            blocked_bytes=self.blocked.nbytes,
            # A caller that is being answered may send its next request before the thread has retired the batch.
            caller_runs=self._running.outside_queue,
        )
        return self._policy.decide(request, room)
