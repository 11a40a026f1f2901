"""The backpressure policies, which decide about requests that do not fit into the queue.

A policy decides and changes nothing: the queue calls it with its lock held and carries out the decision. To add one,
add it to `Backpressure` in the settings, write a class with a `decide` method here, and return it from `policy_for`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol

from inferd.batching.queued import Queued
from inferd.batching.waiting import WaitingRequests
from inferd.config.settings import Backpressure, QueueSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Room(Generic[Queued]):
    """The state a policy decides from: waiting requests, those blocked in front of the queue, and caller runs."""

    waiting: WaitingRequests[Queued]
    blocked_requests: int
    blocked_bytes: int
    caller_runs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Refuse:
    """Reject the request. ``reason`` is that of its `OverloadedError`; ``detail`` is appended to the message."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Shed(Generic[Queued]):
    """Evict the waiting ``victims`` and admit the request."""

    victims: Sequence[Queued]


@dataclass(frozen=True, slots=True)
class Hold:
    """Block the request in front of the queue until there is room, in order of arrival."""


@dataclass(frozen=True, slots=True)
class RunNow:
    """Run the request immediately, alone, outside the queue."""


Decision = Refuse | Shed[Queued] | Hold | RunNow


class Policy(Protocol):
    """A backpressure policy."""

    def decide(self, request: Queued, room: Room[Queued]) -> Decision[Queued]:
        """Decide what happens to ``request``, for which the queue has no room. Must not block or change anything."""
        ...


def policy_for(settings: QueueSettings) -> Policy:
    """Return the policy that ``settings`` select."""
    match settings.policy:
        case Backpressure.REJECT:
            return RejectPolicy()
        case Backpressure.CALLER_RUNS:
            return CallerRunsPolicy(limit=settings.caller_runs_limit)
        case Backpressure.BLOCK:
            return BlockPolicy(max_requests=settings.max_blocked, max_bytes=settings.max_bytes)
        case Backpressure.SHED_OLDEST:
            return ShedOldestPolicy()


class RejectPolicy:
    """``reject``: rejects the request immediately."""

    def decide(self, request: Queued, room: Room[Queued]) -> Refuse:  # noqa: ARG002  the protocol's arguments
        """Reject."""
        return Refuse(reason="QUEUE_FULL")


@dataclass(frozen=True, kw_only=True, slots=True)
class CallerRunsPolicy:
    """``caller_runs``: runs at most ``limit`` requests at a time outside the queue; their streams are not read."""

    limit: int

    def decide(self, request: Queued, room: Room[Queued]) -> RunNow | Refuse:  # noqa: ARG002  the protocol's argument
        """Run the request now, below the limit."""
        if room.caller_runs < self.limit:
            return RunNow()
        return Refuse(
            reason="CALLER_RUNS_LIMIT",
            detail=f", and {room.caller_runs} of {self.limit} requests run outside the queue",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockPolicy:
    """``block``: blocks at most ``max_requests`` with at most ``max_bytes`` in front of the queue.

    Blocked requests hold their tensors as queued ones do, so they are bounded in bytes as well.
    """

    max_requests: int
    max_bytes: int

    def decide(self, request: Queued, room: Room[Queued]) -> Hold | Refuse:
        """Block the request, within the limits."""
        if room.blocked_requests < self.max_requests and room.blocked_bytes + request.nbytes <= self.max_bytes:
            return Hold()
        return Refuse(
            reason="BLOCKED_LIMIT",
            detail=f", and {room.blocked_requests} of {self.max_requests} requests"
            f" with {room.blocked_bytes} of {self.max_bytes} bytes wait for room",
        )


class ShedOldestPolicy:
    """``shed_oldest``: evicts scavengers, then requests of the lowest priority, none of a higher one than the new.

    Within a priority, what is due first goes first: with equal deadlines the oldest, otherwise what is least likely to
    be in time.
    """

    def decide(self, request: Queued, room: Room[Queued]) -> Shed[Queued] | Refuse:
        """Evict as many requests as the new one needs, or reject it if that is not enough."""
        excess, ahead = room.waiting.excess(request), room.waiting.rows_too_many(request)
        victims: dict[Queued, None] = {}
        if excess.remains():
            for victim in room.waiting.victims():
                if not excess.remains() or victim.priority < request.priority:
                    break
                victims[victim] = None
                excess.evict(victim)
                ahead -= victim.rows if victim.priority == request.priority else 0
        if ahead > 0:
            for victim in room.waiting.victims(request.priority):
                if ahead <= 0:
                    break
                if victim not in victims:
                    victims[victim] = None
                    ahead -= victim.rows
        if excess.remains() or ahead > 0:
            return Refuse(reason="QUEUE_FULL", detail=", and too much of that is more important")
        return Shed(list(victims))
