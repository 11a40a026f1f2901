"""Which models leave to make room for a load, within a budget of memory.

The unit is the model. Models leave that are loaded on demand, idle, and have been there for their least time; the one
that was used least recently goes first. If the others stay in use for long, those that were loaded least recently are
closed to new requests, finish what they have, and leave too: so a load waits for a bounded time. As each model stays
for twice its load time at least, models that need the same memory do not only load.

A load counts with its peak until it has ended. Decisions are functions of what is resident and of the time.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

#: A model stays for this many times as long as it took to load, at least.
_LOADS_OF_STAY = 2.0
#: A load waits for idle models this many times as long as one stays at least; then busy ones are closed.
_STAYS_OF_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the host and of devices."""

    host: int = 0
    device: int = 0

    def __add__(self, other: "Memory") -> "Memory":
        return Memory(self.host + other.host, self.device + other.device)

    def __sub__(self, other: "Memory") -> "Memory":
        return Memory(self.host - other.host, self.device - other.device)

    def fits(self, limit: "Memory") -> bool:
        """Whether neither is more than ``limit`` has; nothing always fits."""
        return self.host <= max(limit.host, 0) and self.device <= max(limit.device, 0)

    def at_most(self, limit: "Memory") -> "Memory":
        """Return the lesser of both, for host and devices."""
        return Memory(min(self.host, max(limit.host, 0)), min(self.device, max(limit.device, 0)))

    def where(self, other: "Memory") -> "Memory":
        """Return the same, but none of what ``other`` has none of."""
        return Memory(self.host if other.host else 0, self.device if other.device else 0)


NO_MEMORY = Memory()


def total(parts: Iterable[Memory]) -> Memory:
    """Return the sum of ``parts``."""
    return sum(parts, NO_MEMORY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resident:
    """A model that is loaded.

    ``load_s`` is how long its load took. ``leaves``: it is loaded on demand and not pinned. ``is_held``: something else
    is being done with it. ``is_leaving``: it has no new requests, and its memory is free soon.
    """

    name: str
    memory: Memory
    loaded_at: float
    load_s: float
    last_used_at: float
    is_busy: bool
    leaves: bool
    is_held: bool = False
    is_leaving: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """The load that is the next to begin, and has been so since ``since``.

    ``memory`` is the peak that is expected, ``least`` the part of it that is certain.
    """

    name: str
    memory: Memory
    least: Memory
    since: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What becomes of a load: it begins, waits while models leave, or can never be (``most`` is what it may take)."""

    begins: bool = False
    leaving: Sequence[str] = ()
    #: Set if the load can never have its memory.
    most: Memory | None = None


_WAIT = Decision()
_A_BYTE = Memory(host=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Residency:
    """The rules, for a ``budget`` of all models together."""

    budget: Memory
    min_residence_s: float

    def stays_s(self, load_s: float) -> float:
        """Return how long a model that took ``load_s`` to load stays at least."""
        return max(self.min_residence_s, _LOADS_OF_STAY * load_s)

    def most(self, name: str, residents: Collection[Resident]) -> Memory:
        """Return the memory that a load of a model may have at most: what is not taken by those that never leave."""
        never = (each for each in residents if not each.is_leaving and (not each.leaves or each.name == name))
        return self.budget - total(each.memory for each in never)

    def decide(self, claim: Claim, residents: Collection[Resident], reserved: Memory, now: float) -> Decision:
        """Return what becomes of the load that has waited longest; ``reserved`` is what loads that go on may take."""
        most = self.most(claim.name, residents)
        if not claim.least.fits(most) or not _A_BYTE.fits(most):
            return Decision(most=most)
        # What is not certain to be too large is tried, with all that may leave gone.
        memory = claim.memory.at_most(most)
        missing = _Missing((memory + reserved + total(each.memory for each in residents) - self.budget).where(memory))
        if missing.is_covered():
            return Decision(begins=True)
        missing.cover([each for each in residents if each.is_leaving])
        if missing.is_covered():
            return _WAIT
        return Decision(leaving=self._leaving(claim, residents, missing, now))

    def _leaving(self, claim: Claim, residents: Collection[Resident], missing: "_Missing", now: float) -> Sequence[str]:
        """Return the models that have to leave; none if that would not be enough."""
        settled = [each for each in residents if self._may_leave(each, now) and each.name != claim.name]
        idle = sorted((each for each in settled if not each.is_busy), key=lambda each: each.last_used_at)
        chosen = missing.cover(idle)
        if not missing.is_covered() and now - claim.since >= self._patience_s(settled):
            chosen += missing.cover(sorted((each for each in settled if each.is_busy), key=lambda each: each.loaded_at))
        return [each.name for each in missing.without_spare(chosen)] if missing.is_covered() else ()

    def _may_leave(self, each: Resident, now: float) -> bool:
        is_free = each.leaves and not each.is_held and not each.is_leaving
        return is_free and now - each.loaded_at >= self.stays_s(each.load_s)

    def _patience_s(self, settled: Sequence[Resident]) -> float:
        return _STAYS_OF_PATIENCE * max((self.stays_s(each.load_s) for each in settled), default=0.0)


class _Missing:
    """Memory that a load lacks."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def is_covered(self) -> bool:
        """Whether nothing is missing any more."""
        return self._memory.fits(NO_MEMORY)

    def cover(self, candidates: Iterable[Resident]) -> list[Resident]:
        """Return the first of the ``candidates`` that cover what is missing, which is less then."""
        chosen = []
        for each in candidates:
            if self.is_covered():
                break
            self._memory -= each.memory
            chosen.append(each)
        return chosen

    def without_spare(self, chosen: Sequence[Resident]) -> list[Resident]:
        """Return those of the ``chosen`` without which something is missing; the last ones rather stay."""
        needed: list[Resident] = []
        for each in reversed(chosen):
            if (self._memory + each.memory).fits(NO_MEMORY):
                self._memory += each.memory
            else:
                needed.append(each)
        return needed[::-1]
