"""shed_oldest: requests that have waited longest make room for the new one."""

from inferd.batching.policies.base import Refuse, Room, Shed
from inferd.batching.request import InferenceRequest


class ShedOldestPolicy:
    """Fails the least important requests, the longest waiting first, but none that is more important than the new."""

    def decide(self, request: InferenceRequest, room: Room) -> Shed | Refuse:
        """Shed as many requests as it takes to fit the new one in, or refuse it."""
        excess_rows = room.waiting.rows + request.rows - max(room.waiting.row_limit, request.rows)
        excess_bytes = room.waiting.nbytes + request.nbytes - room.waiting.max_bytes
        victims: list[InferenceRequest] = []
        for victim in room.waiting.victims():
            if (excess_rows <= 0 and excess_bytes <= 0) or victim.priority < request.priority:
                break
            victims.append(victim)
            excess_rows -= victim.rows
            excess_bytes -= victim.nbytes
        if excess_rows > 0 or excess_bytes > 0:
            return Refuse(reason="QUEUE_FULL", detail=", and too much of that is more important")
        return Shed(victims)
