"""What happens to a request that finds the queue full: one file for each policy."""

from inferd.batching.policies.base import Decision, Hold, Policy, Refuse, Room, RunNow, Shed
from inferd.batching.policies.block import BlockPolicy
from inferd.batching.policies.caller_runs import CallerRunsPolicy
from inferd.batching.policies.reject import RejectPolicy
from inferd.batching.policies.shed_oldest import ShedOldestPolicy
from inferd.config.settings import Backpressure, QueueSettings

__all__ = ["Decision", "Hold", "Policy", "Refuse", "Room", "RunNow", "Shed", "policy_for"]


def policy_for(settings: QueueSettings) -> Policy:
    """Build the policy that ``settings`` names."""
    match settings.policy:
        case Backpressure.REJECT:
            return RejectPolicy()
        case Backpressure.CALLER_RUNS:
            return CallerRunsPolicy(limit=settings.caller_runs_limit)
        case Backpressure.BLOCK:
            return BlockPolicy(max_requests=settings.max_blocked, max_bytes=settings.max_bytes)
        case Backpressure.SHED_OLDEST:
            return ShedOldestPolicy()
