"""reject: the request is refused at once."""

from inferd.batching.policies.base import Refuse, Room
from inferd.batching.request import InferenceRequest


class RejectPolicy:
    """Refuses, whatever waits."""

    def decide(self, request: InferenceRequest, room: Room) -> Refuse:  # noqa: ARG002  the protocol's arguments
        """Refuse."""
        return Refuse(reason="QUEUE_FULL")
