"""caller_runs: the request runs at once, outside the queue, and its producer waits for it."""

from dataclasses import dataclass

from inferd.batching.policies.base import Refuse, Room, RunNow
from inferd.batching.request import InferenceRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class CallerRunsPolicy:
    """Runs at most ``limit`` requests outside the queue at a time and refuses beyond that."""

    limit: int

    def decide(self, request: InferenceRequest, room: Room) -> RunNow | Refuse:  # noqa: ARG002  the protocol's argument
        """Run the request now if not too many do so already."""
        if room.caller_runs < self.limit:
            return RunNow()
        return Refuse(
            reason="CALLER_RUNS_LIMIT",
            detail=f", and {room.caller_runs} of {self.limit} requests run outside the queue",
        )
