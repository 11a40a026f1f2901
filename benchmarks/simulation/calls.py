"""Calls and what becomes of them, traffic that makes them, and clients that try again."""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from benchmarks.simulation.loop import Loop


class End(StrEnum):
    """How a call ended."""

    OPEN = "open"
    OK = "ok"
    REFUSED = "refused"
    SHED = "shed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(slots=True, eq=False)
class Call:
    """One call, with all its attempts. ``deadline`` and the times are on the clock of the loop."""

    sent_at: float
    rows: int
    deadline: float = math.inf
    priority: int = 2
    principal: str = ""
    weight: float = 1.0
    attempts: int = 0
    end: End = End.OPEN
    ended_at: float = math.inf
    #: When an attempt was taken into the queue.
    admitted_at: float = math.inf

    @property
    def took_s(self) -> float:
        """How long the caller waited."""
        return self.ended_at - self.sent_at

    @property
    def in_time(self) -> bool:
        """Whether the answer came before the deadline."""
        return self.end is End.OK and self.ended_at <= self.deadline


#: Called at the end of an attempt, with the retry delay if the server sent one.
Ended = Callable[[Call, End, float | None], None]


class Server(Protocol):
    """Whatever answers calls."""

    def submit(self, call: Call, ended: Ended) -> None:
        """Take one attempt of ``call``."""

    def cancel(self, call: Call) -> None:
        """Withdraw the open attempt of ``call``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """Poisson arrivals.

    ``steps`` are pairs of a duration and the rows per second during it. ``rows`` and ``deadline_s`` are the least and
    the most of a uniform distribution; ``cancel_share`` of the calls are withdrawn at a random time before the
    deadline.
    """

    steps: Sequence[tuple[float, float]]
    rows: tuple[int, int] = (1, 1)
    deadline_s: tuple[float, float] = (1.0, 1.0)
    priority: int = 2
    principal: str = ""
    weight: float = 1.0
    cancel_share: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """How clients try again: up to ``most`` times, after the server's hint, or else with exponential backoff.

    A hint replaces the backoff, as it does in gRPC.
    """

    most: int = 0
    first_s: float = 0.1
    factor: float = 2.0

    def delay_s(self, attempt: int, hint_s: float | None, chance: random.Random) -> float:
        """Return how long to wait after the failed ``attempt``, counted from 1."""
        if hint_s is not None:
            return hint_s
        return self.first_s * self.factor ** (attempt - 1) * (0.8 + 0.4 * chance.random())


NO_RETRIES = Retries()


@dataclass
class Clients:
    """Send the calls of ``traffic`` to ``server`` and keep them, in order of sending."""

    loop: Loop
    server: Server
    seed: int
    retries: Retries = NO_RETRIES
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def play(self, traffic: Iterable[Traffic]) -> None:
        """Begin to send; the calls come while the loop runs."""
        for number, one in enumerate(traffic):
            _Source(self, one, random.Random(f"{self.seed} {number}"))

    def send(self, call: Call) -> None:
        """Send ``call`` for the first time."""
        self.calls.append(call)
        self._attempt(call)

    def _attempt(self, call: Call) -> None:
        if call.end is End.CANCELLED:
            return
        call.attempts += 1
        self.server.submit(call, self._ended)

    def _ended(self, call: Call, end: End, hint_s: float | None) -> None:
        if end in {End.REFUSED, End.SHED} and call.attempts <= self.retries.most:
            delay_s = self.retries.delay_s(call.attempts, hint_s, self._chance)
            if self.loop.now + delay_s < call.deadline:
                self.loop.after(delay_s, lambda: self._attempt(call))
                return
        call.end, call.ended_at = end, self.loop.now

    def cancel(self, call: Call) -> None:
        """Withdraw ``call``, if it is open."""
        if call.end is End.OPEN:
            call.end, call.ended_at = End.CANCELLED, self.loop.now
            self.server.cancel(call)


class _Source:
    """Makes the calls of one kind of traffic."""

    def __init__(self, clients: Clients, traffic: Traffic, chance: random.Random) -> None:
        self._clients = clients
        self._traffic = traffic
        self._chance = chance
        self._loop = clients.loop
        self._steps = list(traffic.steps)
        self._mean_rows = sum(traffic.rows) / 2
        self._ends = self._loop.now
        self._next_step()

    def _next_step(self) -> None:
        if not self._steps:
            return
        seconds, rows_per_s = self._steps.pop(0)
        self._ends += seconds
        self._rate = rows_per_s / self._mean_rows
        self._draw()

    def _draw(self) -> None:
        # Arrivals have no memory, so that each step may start independently.
        when = self._loop.now + self._chance.expovariate(self._rate) if self._rate > 0 else math.inf
        if when >= self._ends:
            self._loop.at(self._ends, self._next_step)
        else:
            self._loop.at(when, self._arrive)

    def _arrive(self) -> None:
        traffic, chance, now = self._traffic, self._chance, self._loop.now
        call = Call(
            sent_at=now,
            rows=chance.randint(*traffic.rows),
            deadline=now + chance.uniform(*traffic.deadline_s),
            priority=traffic.priority,
            principal=traffic.principal,
            weight=traffic.weight,
        )
        self._clients.send(call)
        if traffic.cancel_share and chance.random() < traffic.cancel_share:
            self._loop.at(now + chance.random() * (call.deadline - now), lambda: self._clients.cancel(call))
        self._draw()
