"""Decides whether the next batch runs on all cores, or on one core beside others. Pure; not thread-safe.

A run on all cores is soonest done, but its threads wait for each other at each operator. While the poll thread and
others want the cores too, one of them is often late, and the others spin meanwhile. Runs on one core each wait for
nobody, so together they do more, but each takes longer. So they are for times when full batches wait, and leave a core
to the poll thread if more calls come than it can read (docs/decisions/runtime-all-cores-in-a-run.md). They need a
second session, which is opened when batches have waited for a moment.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from inferd.batching.adaptive import AdaptiveRules
from inferd.batching.cost_model import CostModel
from inferd.batching.forecast import Forecast
from inferd.batching.ports import OneCoreSession
from inferd.batching.request import Batch, InferenceRequest, RunningBatches
from inferd.batching.waiting import WaitingRequests


class Cores(Enum):
    """What the next batch runs on."""

    ALL = auto()
    ONE = auto()
    #: It waits until a running one has ended.
    NONE = auto()


@dataclass(frozen=True, slots=True)
class OneCoreTuning:
    """The constants of the decision."""

    #: Full batches that wait when runs on one core begin. They go on while at least one waits.
    begins_at: int = 2
    #: How many batches in a row have left as much, and for how long, before the second session is opened.
    backlogs: int = 8
    backlog_s: float = 0.2
    #: Time per row of runs on one core, relative to runs on all, below which they begin, and go on.
    begins_below: float = 0.95
    goes_on_below: float = 1.1
    #: Batches after which runs that do not pay are tried again, and for how many.
    batches_until_trial: int = 256
    trial_batches: int = 16
    #: Seconds without runs on one core after a request of another priority: higher ones would wait for them.
    one_priority_s: float = 10.0
    #: Seconds for which one core is left to the poll thread after it was late.
    late_s: float = 0.2


TUNING = OneCoreTuning()


class _Backlog:
    """Watches for how long full batches of one priority have waited."""

    def __init__(self) -> None:
        self._batches = 0
        self._since = math.inf
        self._priority: int | None = None
        #: When requests will have been of one priority for long enough.
        self.mixed_until = -math.inf

    def dispatched(self, batch: Batch, now: float, *, leaves_enough: bool) -> None:
        """Record a batch that is dispatched at ``now``."""
        for request in batch.requests:
            if request.priority != self._priority:
                if self._priority is not None:
                    self.mixed_until = now + TUNING.one_priority_s
                self._priority = request.priority
        if leaves_enough and now >= self.mixed_until:
            self._batches += 1
            self._since = min(self._since, now)
        else:
            self._batches, self._since = 0, math.inf

    def is_lasting(self, now: float) -> bool:
        """Return whether a second session is worth its memory."""
        return self._batches >= TUNING.backlogs and now - self._since >= TUNING.backlog_s


class _Trials:
    """Permits what does not seem to pay now and then, or what has once been slow would never run again."""

    def __init__(self) -> None:
        self._left = TUNING.trial_batches
        self._denied = 0

    def restart(self) -> None:
        """Begin with a trial."""
        self._left, self._denied = TUNING.trial_batches, 0

    def permits(self) -> bool:
        """Return whether to try it with the next batch all the same."""
        if self._left == 0:
            self._denied += 1
            if self._denied < TUNING.batches_until_trial:
                return False
            self.restart()
        self._left -= 1
        return True


class OneCoreRuns:
    """Chooses between runs on all cores, one at a time, and several at a time on one core each.

    ``cost`` is what the latter cost; ``rules`` have that of the former. ``open`` opens the ``session`` of the latter in
    the background, and is to be called without locks. ``late_at`` returns when the poll thread was last late. Guarded
    by the lock of the `RequestQueue`.
    """

    def __init__(
        self,
        rules: AdaptiveRules,
        forecast: Forecast,
        waiting: WaitingRequests[InferenceRequest],
        running: RunningBatches,
        *,
        session: OneCoreSession,
        opener: Callable[[], None],
        late_at: Callable[[], float],
    ) -> None:
        self.cost = CostModel(are_bounded=rules.run_cost.are_bounded)
        self.open = opener
        #: Batches on one core so far.
        self.batches = 0
        self._rules = rules
        self._forecast = forecast
        self._waiting = waiting
        self._running = running
        self._session = session
        self._late_at = late_at
        self._backlog = _Backlog()
        self._trials = _Trials()
        #: Whether there are workers for several runs, and whether the session may be opened.
        self._has_workers = False
        self._may_open = True

    def opened(self, seeds: Iterable[tuple[int, float]]) -> None:
        """Record that the session is open and there are workers; ``seeds`` are rows and seconds of its first runs."""
        for rows, run_s in seeds:
            self.cost.seed(rows, run_s)
        self._has_workers = self._may_open = True
        self._trials.restart()

    def choose(self, now: float, *, is_closed: bool) -> Cores | None:
        """Return on what the next batch runs; None if that is all cores, whatever runs beside it."""
        # Scavengers would be in the way of others for longer, and nothing wakes who waits for a run in a closed queue.
        waiting, rules = self._waiting, self._rules
        if not self._has_workers or is_closed or waiting.scavengers.rows or rules.run_cost.short.are_short:
            return None
        on_one = 0
        for batch in self._running:
            if not (batch.on_one_core or batch.outside_queue):
                return Cores.NONE
            on_one += batch.on_one_core
        if on_one >= self._most_runs(now):
            return Cores.NONE
        enough = rules.rules.max_rows * (1 if on_one else TUNING.begins_at)
        may_be = waiting.rows >= enough and now >= self._backlog.mixed_until and self._session.is_open
        if may_be and self._pays(TUNING.goes_on_below if on_one else TUNING.begins_below):
            return Cores.ONE
        return Cores.NONE if on_one else Cores.ALL

    def _most_runs(self, now: float) -> int:
        """Return how many runs may go on at a time."""
        return self._session.runs - (now - self._late_at() < TUNING.late_s)

    def _pays(self, below: float) -> bool:
        rows = self._rules.rules.max_rows
        all_s = self._rules.run_cost.predict(rows)
        return self.cost.predict(rows) < all_s * self._session.runs * below or self._trials.permits()

    def dispatched(self, batch: Batch, cores: Cores | None, now: float) -> bool:
        """Set what ``batch`` runs on; return whether to `open` the session, which is true once until `opened`."""
        if cores is Cores.ONE:
            self._forecast.run_on(self.cost, self._most_runs(now))
            ends_by = now + self._forecast.batch_s(batch.rows)
            batch.on_one_core = all(request.deadline >= ends_by for request in batch.requests)
        self.batches += batch.on_one_core
        if not batch.on_one_core:
            self._forecast.run_on(self._rules.run_cost, 1)
        leaves_enough = self._waiting.rows >= TUNING.begins_at * self._rules.rules.max_rows
        self._backlog.dispatched(batch, now, leaves_enough=leaves_enough)
        if not self._may_open or self._session.is_open or not self._backlog.is_lasting(now):
            return False
        self._may_open = False
        return True

    def ran(self, batch: Batch, run_s: float, now: float) -> None:
        """Learn from ``batch``, which ran on one core and is no longer among the running ones."""
        self.cost.ran(batch.rows, run_s, batch.cpu_s, now)
        if not any(other.on_one_core for other in self._running):
            self._forecast.run_on(self._rules.run_cost, 1)
