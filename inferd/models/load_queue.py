"""Queue the loads of versions: each begins when there is memory for it, and evicts models if there is not.

The queue is strictly in order, so that no load is overtaken again and again; the first one is checked every few
milliseconds. A version whose size is not known yet is loaded alone, so that it can be measured; but others do not wait
much longer than such a load should take, as it may hang. Without a budget, no load waits.
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

#: Minimum time between two checks, and the same as a multiple of the time that the last one took.
_CHECK_S = 0.005
_CHECK_FACTOR = 10.0

_MIB = 1024 * 1024

#: How long a load keeps others waiting so that it, or they, can be measured; and the time to read its files.
_ALONE_S = 10.0
_ALONE_BYTES_PER_S = 32 * _MIB
_UNLIMITED = sys.maxsize


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QueuedLoad:
    """A load of ``operation`` of expected ``size``: ``begin`` begins it, or ``refuse`` ends it with a reason."""

    operation: Operation
    version: str
    size: ModelSize
    queued_at: float
    begin: Callable[[], VersionLoad]
    refuse: Callable[[str], None]


class _Begun(NamedTuple):
    """A load in progress, and until when others may wait for it to be measured."""

    load: VersionLoad
    size: ModelSize
    alone_until: float


def residency_of(repository: RepositorySettings) -> Residency | None:
    """Return the rules of eviction; None without a budget."""
    host, device = repository.memory_budget_bytes, repository.device_memory_budget_bytes
    if host is None and device is None:
        return None
    budget = Memory(_UNLIMITED if host is None else host, _UNLIMITED if device is None else device)
    return Residency(budget=budget, min_residence_s=repository.min_residence_s)


class LoadQueue:
    """Begins loads when there is memory for them. Control thread only, except methods that say "any thread".

    ``evict`` unloads a model: it gets its name, and whether it is in use.
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
        #: When the first load became the first.
        self._first_since = 0.0
        #: The loads in progress; one that has ended is removed at the next check.
        self.in_progress: list[_Begun] = []
        self._next_check_at = 0.0
        self.counter = ResidencyCounter()

    @property
    def next_check_at(self) -> float | None:
        """When to call `check` again; None while no load waits."""
        return self._next_check_at if self._waiting else None

    def add(self, load: QueuedLoad) -> None:
        """Begin ``load``, now or when those before it have begun and there is memory."""
        if not self._waiting:
            self._first_since = self._clock()
        self._waiting.append(load)
        self.check()

    def withdraw(self, operation: Operation) -> int:
        """Remove the loads of ``operation`` that have not begun; return their number."""
        first = self._waiting[0] if self._waiting else None
        left = [each for each in self._waiting if each.operation is not operation]
        withdrawn = len(self._waiting) - len(left)
        self._waiting = deque(left)
        if left and left[0] is not first:
            self._first_since = self._clock()
        return withdrawn

    def check(self) -> None:
        """Begin the loads that can begin now, and evict models for the next one."""
        now = self._clock()
        self.in_progress = [each for each in self.in_progress if not each.load.is_over]
        while self._waiting and self._may_begin(self._waiting[0], now):
            load = self._waiting.popleft()
            self._first_since = now
            if now - load.queued_at >= _CHECK_S:
                _log_wait(load, now - load.queued_at)
            self.counter.load_begins(load.operation.name, load.operation.cause)
            alone_until = now + _ALONE_S + load.size.steady.host / _ALONE_BYTES_PER_S
            self.in_progress.append(_Begun(load.begin(), load.size, alone_until))
        self._next_check_at = now + max(_CHECK_S, _CHECK_FACTOR * (self._clock() - now))

    def sample(self) -> ResidencySample:
        """Return the memory in use, and the numbers of loads and evictions so far. Any thread."""
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
        """Return the memory that the loads in progress may take. Any thread."""
        return total(each.size.peak for each in list(self.in_progress) if not each.load.is_over)

    def over_budget_reason(self, name: str, peak: Memory, steady: Memory) -> str:
        """Return why a version that took this memory exceeds the budget; empty if it does not. Any thread."""
        if self._residency is None:
            return ""
        most = self._residency.most(name, self._residents())
        return "" if peak.fits(most) else _too_large(peak, steady, most, self._budget)

    def _may_begin(self, load: QueuedLoad, now: float) -> bool:
        """Return True if ``load``, the first, begins now. Refuses it if it can never begin."""
        residency = self._residency
        if residency is None:
            return True
        beside = [each.size for each in self.in_progress if now < each.alone_until]
        if beside and not all(size.is_known for size in (*beside, load.size)):
            return False
        residents = self._residents()
        name = load.operation.name
        own = total(each.memory for each in residents if each.name == name and not each.is_unloading)
        # Beside a version that serves, a new one is not tried unless it is likely to fit.
        least = load.size.peak if own.host else load.size.least_peak
        claim = Claim(name=name, memory=load.size.peak, least=least, since=self._first_since)
        decision = residency.decide(claim, residents, self.reserved(), now)
        if decision.most is not None:
            self._refuse(load, decision.most, own, now)
            return False
        self._evict_models(decision.evicted, residents)
        return decision.begins

    def _refuse(self, load: QueuedLoad, most: Memory, own: Memory, now: float) -> None:
        """Refuse the first load. If its version would fit alone, evict its model: the next request loads it then."""
        self._waiting.popleft()
        self._first_since = now
        residents = [each for each in self._residents() if each.name == load.operation.name and each.is_evictable]
        # A load on demand loads all versions of the model, so none of them is evicted for another one.
        is_new = load.operation.cause is not Cause.DEMAND
        is_evicted = bool(residents) and is_new and load.size.least_peak.fits(most + own)
        reason = _too_large(load.size.peak, load.size.steady, most, self._budget)
        load.refuse(f"{reason}; it is unloaded, so that the next request can load it" if is_evicted else reason)
        if is_evicted:
            self._evict_models([load.operation.name], residents)

    def _evict_models(self, names: Collection[str], residents: Collection[Resident]) -> None:
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
    """Return why a load is refused: the memory that it takes, and its limit."""
    kind = "host" if peak.host > most.host else "device"
    setting = "memory_budget_bytes" if kind == "host" else "device_memory_budget_bytes"
    needs, stays, may, of = (_mib(getattr(each, kind)) for each in (peak, steady, most, budget))
    never = "" if may == of else f", of which models that never leave have left {may}"
    return f"it takes {needs} while it is loaded and {stays} afterwards, and repository.{setting} is {of}{never}"


def _mib(count: int) -> str:
    return f"{max(count, 0) / _MIB:.1f} MiB"
