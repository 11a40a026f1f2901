"""The loads of versions, in order: each begins when there is memory for it, and makes others leave if there is not.

Loads wait in one line, so that none is overtaken again and again; the first one is looked at every few milliseconds. A
version whose size is not known yet is loaded alone, which is when it is measured; but others do not wait much longer
than such a load should take, as it may hang. Without a budget, no load waits.
"""

import logging
import sys
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from inferd.batching.ports import Clock
from inferd.config.repository import RepositorySettings
from inferd.models.lifecycle import VersionLoad
from inferd.models.operation import Cause, Operation
from inferd.models.residency import Claim, Memory, Residency, Resident, total
from inferd.models.sizes import ModelSize
from inferd.observability.metrics.residency import MemorySample, ResidencyCounter, ResidencySample

_log = logging.getLogger(__name__)

#: Time between two looks, at least, and as a multiple of the time that the last one took.
_LOOK_S = 0.005
_LOOK_SHARE = 10.0

_MIB = 1024 * 1024

#: How long a load keeps others waiting so that it, or they, can be measured: this, and the time to read its files.
_ALONE_S = 10.0
_ALONE_BYTES_PER_S = 32 * _MIB
_UNLIMITED = sys.maxsize


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QueuedLoad:
    """A load of ``operation`` that may take ``size``: ``begin`` begins it, or ``refuse`` ends it with a reason."""

    operation: Operation
    version: str
    size: ModelSize
    asked_at: float
    begin: Callable[[], VersionLoad]
    refuse: Callable[[str], None]


class _Begun(NamedTuple):
    """A load that goes on, and until when others may wait for it to be measured."""

    load: VersionLoad
    size: ModelSize
    alone_until: float


def residency_of(repository: RepositorySettings) -> Residency | None:
    """Return the rules of the budget; None if there is none."""
    host, device = repository.memory_budget_bytes, repository.device_memory_budget_bytes
    if host is None and device is None:
        return None
    budget = Memory(_UNLIMITED if host is None else host, _UNLIMITED if device is None else device)
    return Residency(budget=budget, min_residence_s=repository.min_residence_s)


class LoadQueue:
    """Begins loads when there is memory for them. Control thread only, except what says that any may call it.

    ``evict`` makes models leave: it gets the name of one, and whether that is in use.
    """

    def __init__(
        self,
        residency: Residency | None,
        *,
        residents: Callable[[], Collection[Resident]],
        evict: Callable[[str, bool], None],
        clock: Clock,
    ) -> None:
        self._residency = residency
        self._budget = Memory(_UNLIMITED, _UNLIMITED) if residency is None else residency.budget
        self._residents = residents
        self._evict = evict
        self._clock = clock
        self._waiting: deque[QueuedLoad] = deque()
        #: Since when the first one is the first.
        self._first_since = 0.0
        #: The loads that go on; one that has ended leaves at the next look.
        self.going_on: list[_Begun] = []
        self._next_look_at = 0.0
        self.counter = ResidencyCounter()

    @property
    def next_look_at(self) -> float | None:
        """When to look again; None while nothing waits."""
        return self._next_look_at if self._waiting else None

    def add(self, load: QueuedLoad) -> None:
        """Begin ``load``, now or when those before it have begun and there is memory."""
        if not self._waiting:
            self._first_since = self._clock()
        self._waiting.append(load)
        self.look()

    def withdraw(self, operation: Operation) -> int:
        """Forget the loads of ``operation`` that have not begun; return how many these are."""
        first = self._waiting[0] if self._waiting else None
        left = [each for each in self._waiting if each.operation is not operation]
        withdrawn = len(self._waiting) - len(left)
        self._waiting = deque(left)
        if left and left[0] is not first:
            self._first_since = self._clock()
        return withdrawn

    def look(self) -> None:
        """Begin what can begin now, and let models leave for the next one."""
        now = self._clock()
        self.going_on = [each for each in self.going_on if not each.load.is_over]
        while self._waiting and self._may_begin(self._waiting[0], now):
            load = self._waiting.popleft()
            self._first_since = now
            if now - load.asked_at >= _LOOK_S:
                _log_wait(load, now - load.asked_at)
            self.counter.load_begins(load.operation.name, load.operation.cause)
            alone_until = now + _ALONE_S + load.size.steady.host / _ALONE_BYTES_PER_S
            self.going_on.append(_Begun(load.begin(), load.size, alone_until))
        self._next_look_at = now + max(_LOOK_S, _LOOK_SHARE * (self._clock() - now))

    def sample(self) -> ResidencySample:
        """Return what is taken now, and what was loaded and evicted so far. Any thread."""
        used = total(each.memory for each in self._residents())
        reserved = self.reserved()
        return ResidencySample(
            memory=(
                _memory_sample("host", used.host, reserved.host, self._budget.host),
                _memory_sample("device", used.device, reserved.device, self._budget.device),
            ),
            waiting_loads=len(self._waiting),
            counts=self.counter.read(),
        )

    def reserved(self) -> Memory:
        """Return what the loads that go on may take. Any thread."""
        return total(each.size.peak for each in list(self.going_on) if not each.load.is_over)

    def objection(self, name: str, peak: Memory, steady: Memory) -> str:
        """Return why a version that has been loaded must not stay, by what it took; empty if it may. Any thread."""
        if self._residency is None:
            return ""
        most = self._residency.most(name, self._residents())
        return "" if peak.fits(most) else _too_large(peak, steady, most, self._budget)

    def _may_begin(self, load: QueuedLoad, now: float) -> bool:
        """Whether ``load``, the first, begins now. If it can never begin, it is refused."""
        residency = self._residency
        if residency is None:
            return True
        beside = [each.size for each in self.going_on if now < each.alone_until]
        if beside and not all(size.is_known for size in (*beside, load.size)):
            return False
        residents = self._residents()
        name = load.operation.name
        own = total(each.memory for each in residents if each.name == name and not each.is_leaving)
        # Beside a version that serves, a new one is not tried unless it is likely to fit.
        least = load.size.peak if own.host else load.size.least_peak
        claim = Claim(name=name, memory=load.size.peak, least=least, since=self._first_since)
        decision = residency.decide(claim, residents, self.reserved(), now)
        if decision.most is not None:
            self._refuse(load, decision.most, own, now)
            return False
        self._let_leave(decision.leaving, residents)
        return decision.begins

    def _refuse(self, load: QueuedLoad, most: Memory, own: Memory, now: float) -> None:
        """Refuse the first load. The model of a new version that fits alone leaves: the next request loads that."""
        self._waiting.popleft()
        self._first_since = now
        residents = [each for each in self._residents() if each.name == load.operation.name and each.leaves]
        # A demand loads all versions that are to serve, so none of them leaves for another one.
        is_new = load.operation.cause is not Cause.DEMAND
        leaves = bool(residents) and is_new and load.size.least_peak.fits(most + own)
        reason = _too_large(load.size.peak, load.size.steady, most, self._budget)
        load.refuse(f"{reason}; it is unloaded, so that the next request can load it" if leaves else reason)
        if leaves:
            self._let_leave([load.operation.name], residents)

    def _let_leave(self, names: Collection[str], residents: Collection[Resident]) -> None:
        busy = {each.name for each in residents if each.is_busy}
        for name in names:
            self.counter.evicted(name, in_use=name in busy)
            self._evict(name, name in busy)


def _memory_sample(kind: str, used: int, reserved: int, budget: int) -> MemorySample:
    return MemorySample(kind=kind, used=used, reserved=reserved, budget=None if budget == _UNLIMITED else budget)


def _log_wait(load: QueuedLoad, waited_s: float) -> None:
    facts = {"model": load.operation.name, "version": load.version, "waited_s": round(waited_s, 3)}
    _log.info("load has waited for memory", extra=facts)


def _too_large(peak: Memory, steady: Memory, most: Memory, budget: Memory) -> str:
    """Return why a load cannot be, with what it takes and what it may take."""
    kind = "host" if peak.host > most.host else "device"
    setting = "memory_budget_bytes" if kind == "host" else "device_memory_budget_bytes"
    needs, stays, may, of = (_mib(getattr(each, kind)) for each in (peak, steady, most, budget))
    never = "" if may == of else f", of which models that never leave have left {may}"
    return f"it takes {needs} while it is loaded and {stays} afterwards, and repository.{setting} is {of}{never}"


def _mib(count: int) -> str:
    return f"{max(count, 0) / _MIB:.1f} MiB"
