"""block: the request waits for room."""

from dataclasses import dataclass

from inferd.batching.policies.base import Hold, Refuse, Room
from inferd.batching.request import InferenceRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockPolicy:
    """Lets at most ``max_requests`` with at most ``max_bytes`` wait for room and refuses beyond that.

    The line in front of the queue holds tensors as the queue does, so it has a bound in bytes like it.
    """

    max_requests: int
    max_bytes: int

    def decide(self, request: InferenceRequest, room: Room) -> Hold | Refuse:
        """Let the request wait for room if not too much does so already."""
        if room.blocked_requests < self.max_requests and room.blocked_bytes + request.nbytes <= self.max_bytes:
            return Hold()
        return Refuse(
            reason="BLOCKED_LIMIT",
            detail=f", and {room.blocked_requests} of {self.max_requests} requests"
            f" with {room.blocked_bytes} of {self.max_bytes} bytes wait for room",
        )
