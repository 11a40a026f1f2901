"""Choose the models to evict for a load, within a budget of memory.

The unit is the model. A model may be evicted if it is loaded on demand, idle, and has been loaded for its minimum
residence; the least recently used one is evicted first. If the others stay in use for long, those that were loaded
first are closed to new requests, finish the requests that they have, and are unloaded too: so a load waits for a
bounded time. As each model stays for at least twice its load time, models that need the same memory do not thrash.

A load counts with its peak until it has ended. Decisions are pure functions of the resident models and the time.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

#: Minimum residence of a model, in multiples of its load time.
_RESIDENCE_LOADS = 2.0
#: Time that a load waits for idle models before busy ones are evicted, in multiples of their minimum residence.
_PATIENCE_RESIDENCES = 2.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of host memory and of device memory."""

    host: int = 0
    device: int = 0

    def __add__(self, other: "Memory") -> "Memory":
        return Memory(self.host + other.host, self.device + other.device)

    def __sub__(self, other: "Memory") -> "Memory":
        return Memory(self.host - other.host, self.device - other.device)

    def fits(self, limit: "Memory") -> bool:
        """Return True if both are within ``limit``, of which negative numbers count as 0."""
        return self.host <= max(limit.host, 0) and self.device <= max(limit.device, 0)

    def at_most(self, limit: "Memory") -> "Memory":
        """Return the minimum of both, for the host and for devices."""
        return Memory(min(self.host, max(limit.host, 0)), min(self.device, max(limit.device, 0)))

    def of_kinds_in(self, other: "Memory") -> "Memory":
        """Return the bytes of the kinds of memory that ``other`` has, and 0 for its missing kinds."""
        return Memory(self.host if other.host else 0, self.device if other.device else 0)


NO_MEMORY = Memory()


def total(parts: Iterable[Memory]) -> Memory:
    """Return the sum of ``parts``."""
    return sum(parts, NO_MEMORY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resident:
    """A model that is loaded.

    ``load_s`` is how long its load took. ``is_evictable``: it is loaded on demand and not pinned. ``is_held``: another
    operation of it is in progress. ``is_unloading``: it gets no new requests, and its memory will be free soon.
    """

    name: str
    memory: Memory
    loaded_at: float
    load_s: float
    last_used_at: float
    is_busy: bool
    is_evictable: bool
    is_held: bool = False
    is_unloading: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """The load that is next to begin, and has been next since ``since``.

    ``memory`` is its expected peak, ``least`` the part of it that is certain.
    """

    name: str
    memory: Memory
    least: Memory
    since: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Whether a load begins; the models to evict for it; and its limit, if it can never begin."""

    begins: bool = False
    evicted: Sequence[str] = ()
    #: The memory that a load of the model may take at most; set if this one can never have its memory.
    most: Memory | None = None


_WAIT = Decision()
_ONE_BYTE = Memory(host=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Residency:
    """The rules of eviction for a ``budget`` of all models together."""

    budget: Memory
    min_residence_s: float

    def residence_s(self, load_s: float) -> float:
        """Return the minimum residence of a model that took ``load_s`` to load."""
        return max(self.min_residence_s, _RESIDENCE_LOADS * load_s)

    def most(self, name: str, residents: Collection[Resident]) -> Memory:
        """Return the memory that a load of a model may take at most: the budget without the models that always stay."""
        staying = (each for each in residents if not each.is_unloading and (not each.is_evictable or each.name == name))
        return self.budget - total(each.memory for each in staying)

    def decide(self, claim: Claim, residents: Collection[Resident], reserved: Memory, now: float) -> Decision:
        """Decide on the first waiting load; ``reserved`` is the memory that loads in progress may take."""
        most = self.most(claim.name, residents)
        if not claim.least.fits(most) or not _ONE_BYTE.fits(most):
            return Decision(most=most)
        # A load that may be too large, but is not certain to be, is tried with all evictable models evicted.
        memory = claim.memory.at_most(most)
        shortage = _Shortage(
            (memory + reserved + total(each.memory for each in residents) - self.budget).of_kinds_in(memory)
        )
        if shortage.is_covered():
            return Decision(begins=True)
        shortage.cover([each for each in residents if each.is_unloading])
        if shortage.is_covered():
            return _WAIT
        return Decision(evicted=self._evictions(claim, residents, shortage, now))

    def _evictions(
        self, claim: Claim, residents: Collection[Resident], shortage: "_Shortage", now: float
    ) -> Sequence[str]:
        """Return the models to evict; none if evicting all of them would not be enough."""
        settled = [each for each in residents if self._may_leave(each, now) and each.name != claim.name]
        idle = sorted((each for each in settled if not each.is_busy), key=lambda each: each.last_used_at)
        chosen = shortage.cover(idle)
        if not shortage.is_covered() and now - claim.since >= self._patience_s(settled):
            chosen += shortage.cover(
                sorted((each for each in settled if each.is_busy), key=lambda each: each.loaded_at)
            )
        return [each.name for each in shortage.needed(chosen)] if shortage.is_covered() else ()

    def _may_leave(self, each: Resident, now: float) -> bool:
        is_free = each.is_evictable and not each.is_held and not each.is_unloading
        return is_free and now - each.loaded_at >= self.residence_s(each.load_s)

    def _patience_s(self, settled: Sequence[Resident]) -> float:
        return _PATIENCE_RESIDENCES * max((self.residence_s(each.load_s) for each in settled), default=0.0)


class _Shortage:
    """The memory that a load lacks."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def is_covered(self) -> bool:
        """Return True if nothing is lacking any more."""
        return self._memory.fits(NO_MEMORY)

    def cover(self, candidates: Iterable[Resident]) -> list[Resident]:
        """Return the first of the ``candidates`` that cover the shortage, and subtract their memory from it."""
        chosen = []
        for each in candidates:
            if self.is_covered():
                break
            self._memory -= each.memory
            chosen.append(each)
        return chosen

    def needed(self, chosen: Sequence[Resident]) -> list[Resident]:
        """Return those of the ``chosen`` that are needed to cover the shortage; the last ones are spared first."""
        needed: list[Resident] = []
        for each in reversed(chosen):
            if (self._memory + each.memory).fits(NO_MEMORY):
                self._memory += each.memory
            else:
                needed.append(each)
        return needed[::-1]
