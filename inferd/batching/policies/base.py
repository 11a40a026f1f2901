"""What a backpressure policy is asked, and what it may answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from inferd.batching.request import InferenceRequest
from inferd.batching.waiting import WaitingRequests


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What a policy may look at: the requests that wait, wait for room, and run outside the queue."""

    waiting: WaitingRequests
    blocked_requests: int
    blocked_bytes: int
    caller_runs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Refuse:
    """Fail the request. ``reason`` is that of its `OverloadedError`; ``detail`` ends the message."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Shed:
    """Fail ``victims``, which wait, and admit the request."""

    victims: Sequence[InferenceRequest]


@dataclass(frozen=True, slots=True)
class Hold:
    """Let the request wait for room, behind those that do so already."""


@dataclass(frozen=True, slots=True)
class RunNow:
    """Run the request outside the queue, alone."""


Decision = Refuse | Shed | Hold | RunNow


class Policy(Protocol):
    """Decides about a request that the queue has no room for. Called with the queue's lock held, so it only looks."""

    def decide(self, request: InferenceRequest, room: Room) -> Decision:
        """Say what is to happen to ``request``."""
        ...
