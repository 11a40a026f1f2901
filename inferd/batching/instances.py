"""Decides how many batches of a model may run at a time, between bounds. Pure; not thread-safe.

All instances of a model share its session, so one more costs a thread and the memory of one more run. It is therefore
tried as soon as it may help, and kept only if it does.

**More.** How long requests have waited for running batches, in run times, is summed up over the batches, less what
they may wait (Page's cumulative sum). So a few long waits or many short ones lead to another instance, and those of a
low load never do. Where the threads of one more run have no cores of their own, the waiting must have lasted.

**Whether it pays.** How much longer runs take beside others than alone (slowdowns.py) says what a number of instances
does, whatever the load. After a new number has been tried for some runs, it stays if each instance more gains a fair
part of one; otherwise one is given up, and not tried again for long.

**Fewer.** An instance ends if over a whole period the others would hardly have been busy without it. If another one is
soon needed again, the next period is twice as long. The load at which an instance ends is far below that at which one
starts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from inferd.batching.request import Batch, InstanceChange
from inferd.batching.slowdowns import Slowdowns

#: Reasons for a change of the number of instances.
LOAD, NO_GAIN, IDLE, NO_THREAD = "load", "no_gain", "idle", "no_thread"
REASONS = (LOAD, NO_GAIN, IDLE, NO_THREAD)


@dataclass(frozen=True, slots=True)
class InstanceTuning:
    """The constants of the control."""

    #: Run times that the oldest request of a batch may wait for other batches, on average; the most that counts of one
    #: wait; and the sum of what is above the average at which another instance starts.
    target_wait: float = 0.25
    most_wait: float = 2.0
    enough_wait: float = 2.0
    #: What a batch counts as whose requests have not waited, but would be shared with another instance, and the part of
    #: a run time for which its worker has had no rest then.
    wait_to_share: float = 1.0
    no_rest: float = 1 / 8
    #: How long the waiting must last if the threads of another run have no cores of their own.
    unlikely_s: float = 1.0
    #: Runs of a trial after which it may succeed early, fail early, and ends; and the gains for that, in parts of what
    #: each instance does without it.
    early_success_runs: int = 3
    early_failure_runs: int = 8
    trial_runs: int = 16
    early_success_gain: float = 0.5
    early_failure_gain: float = 0.1
    least_gain: float = 0.3
    #: A number that did not pay is not tried again for this long, twice as long after each further time.
    refused_s: float = 600.0
    longest_refused_s: float = 6 * 3600.0
    #: The period after which instances end if the others would have been busy for less than `idle_share` of the time;
    #: in seconds, and in run times at least. It is doubled, up to `longest_period_s`, if another one is needed again
    #: within `soon` periods, and otherwise halved again.
    period_s: float = 60.0
    period_runs: float = 100.0
    longest_period_s: float = 3600.0
    soon: float = 10.0
    idle_share: float = 0.2


TUNING = InstanceTuning()


class _Waiting:
    """Sums up how long requests wait for running batches, and records since when that is too long."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._since = math.inf

    def dispatched(self, wait: float, now: float) -> None:
        """Record how long a batch has waited, in run times."""
        more = min(wait, TUNING.most_wait) - TUNING.target_wait
        self._sum = min(max(self._sum + more, 0.0), TUNING.enough_wait)
        if self._sum == TUNING.enough_wait:
            self._since = min(self._since, now)
        elif self._sum < TUNING.enough_wait / 2:
            self._since = math.inf

    def is_too_long(self, now: float, *, for_s: float) -> bool:
        """Return whether the waits have been too long for at least ``for_s`` seconds."""
        return self._sum == TUNING.enough_wait and now - self._since >= for_s

    def relieved(self) -> None:
        """Halve the sum, as another instance starts."""
        self._sum = TUNING.enough_wait / 2
        self._since = math.inf


@dataclass(slots=True)
class _Verdicts:
    """Numbers of instances that paid, and until when others are not tried again."""

    paid: set[int] = field(default_factory=set)
    refused_until: dict[int, float] = field(default_factory=dict)
    _refused_s: dict[int, float] = field(default_factory=dict)

    def pays(self, level: int) -> None:
        self.paid.add(level)
        self.refused_until.pop(level, None)
        self._refused_s.pop(level, None)

    def does_not_pay(self, level: int, now: float) -> None:
        self.paid.discard(level)
        seconds = min(2 * self._refused_s.get(level, TUNING.refused_s / 2), TUNING.longest_refused_s)
        self._refused_s[level] = seconds
        self.refused_until[level] = now + seconds

    def permits(self, level: int, now: float) -> bool:
        return now >= self.refused_until.get(level, -math.inf)


class _IdlePeriod:
    """The period after which an instance ends that was not needed in it."""

    def __init__(self) -> None:
        #: When the period ends.
        self.ends_at = math.inf
        self._began_at = 0.0
        self._running_s = 0.0
        self._seconds = TUNING.period_s
        self._shrank_at = -math.inf

    def begin(self, now: float, running_s: float, run_s: float) -> None:
        """Begin another period; ``running_s`` is the sum of running batches over time."""
        self._began_at, self._running_s = now, running_s
        self.ends_at = now + max(self._seconds, TUNING.period_runs * run_s)

    def grew(self, now: float) -> None:
        """Record that another instance was needed."""
        is_soon = now - self._shrank_at < TUNING.soon * self._seconds
        seconds = self._seconds * 2 if is_soon else self._seconds / 2
        self._seconds = min(max(seconds, TUNING.period_s), TUNING.longest_period_s)

    def shrank(self, now: float) -> None:
        """Record that an instance was not needed."""
        self._shrank_at = now

    def was_running(self, now: float, running_s: float) -> float:
        """Return how many batches ran at a time in the period, on average."""
        return (running_s - self._running_s) / max(now - self._began_at, 1e-9)


@dataclass(frozen=True, slots=True)
class _Trial:
    """A number of instances, ``level``, that has yet to show that it pays.

    It is compared with ``base``, the last number that was known, at which runs took ``before`` times as long as alone.
    """

    level: int
    base: int
    before: float

    def gain(self, slowdown: float) -> float:
        """Return what each further instance adds, in parts of what each did before."""
        return (self.level * self.before / slowdown - self.base) / (self.level - self.base)


class Instances:
    """Decides how many batches may run at a time, from ``least`` to ``most``.

    ``likely`` batches at a time have cores of their own. Besides the number, ``threads`` counts the threads there are
    to be, which change a little later. Guarded by the lock of the `RequestQueue`; ``count`` and ``changes`` may be read
    without. ``changed`` is called without locks after a change.
    """

    def __init__(self, *, least: int, most: int, likely: int) -> None:
        self.count = self.threads = least
        #: Changes so far by reason.
        self.changes = dict.fromkeys(REASONS, 0)
        self.changed: Callable[[InstanceChange], None] = _ignore
        self.slowdowns = Slowdowns()
        self._least = least
        self._most = most
        self._likely = likely
        self._waiting = _Waiting()
        self._verdicts = _Verdicts()
        self._period = _IdlePeriod()
        self._trial: _Trial | None = None

    @property
    def may_change(self) -> bool:
        """True if the number is not fixed."""
        return self._least < self._most

    @property
    def may_be(self) -> int:
        """The number that a higher load is likely to lead to."""
        number = self.count
        refused = self._verdicts.refused_until
        while number < self._most and number + 1 not in refused and self._is_likely(number + 1):
            number += 1
        return number

    @property
    def evaluate_at(self) -> float:
        """The time by which `evaluate` is to be called; ``math.inf`` for no time."""
        return self._period.ends_at if self.count > self._least else math.inf

    def dispatched(self, batch: Batch, now: float, idle_since: float, *, would_share: bool) -> InstanceChange | None:
        """Record that a worker that was idle since ``idle_since`` took ``batch``; perhaps one more is needed.

        ``would_share`` if its rows would have been shared with another worker.
        """
        self.slowdowns.begun(batch, now)
        run_s = self._run_s(batch.rows)
        if run_s == 0:
            return None
        wait = 0.0
        if self.slowdowns.running >= self.count:
            wait = max(idle_since - min(request.enqueued_at for request in batch.requests), 0.0) / run_s
            if would_share and self.count < self._likely and now - idle_since < TUNING.no_rest * run_s:
                wait = max(wait, TUNING.wait_to_share)
        self._waiting.dispatched(wait, now)
        return self._grow(now, run_s) if self._may_grow(now) else None

    def ended(self, batch: Batch, now: float) -> None:
        """Record that the worker of ``batch`` is free again, or hangs in its run."""
        self.slowdowns.ended(batch, now)

    def evaluate(self, now: float) -> InstanceChange | None:
        """End a trial or a period if it is over; return the change that follows. Whenever a worker asks for a batch."""
        change = None if self._trial is None else self._judge(self._trial, now)
        return change or (self._end_period(now) if now >= self.evaluate_at else None)

    def _end_period(self, now: float) -> InstanceChange | None:
        self.slowdowns.advance(now)
        was_running = self._period.was_running(now, self.slowdowns.running_s)
        self._period.begin(now, self.slowdowns.running_s, self._run_s(1))
        needed = max(self._least, 1 + int(was_running / TUNING.idle_share))
        if needed >= self.count:
            return None
        self._period.shrank(now)
        return self._shrink(needed, IDLE, needed / self.count)

    def no_thread(self, now: float) -> InstanceChange | None:
        """Record that the system gives no thread for the instance that was to start; return the change that follows."""
        self.threads -= 1
        if self.count <= self.threads:
            return None
        self._verdicts.does_not_pay(self.count, now)
        return self._shrink(self.count - 1, NO_THREAD, (self.count - 1) / self.count)

    @property
    def has_spare_thread(self) -> bool:
        """True if the next worker that asks for a batch is to end."""
        return self.threads > self.count

    def dismiss(self) -> None:
        """Record that a worker ends."""
        self.threads -= 1

    def _run_s(self, rows: int) -> float:
        return self.slowdowns.alone.predict(rows)

    def _is_likely(self, level: int) -> bool:
        return level <= self._likely or level in self._verdicts.paid

    def _may_grow(self, now: float) -> bool:
        more = self.count + 1
        if more > self._most or not self._verdicts.permits(more, now):
            return False
        is_likely = self._is_likely(more)
        # What is not known to pay is compared with what is, and what is not even likely to with the number before.
        if more not in self._verdicts.paid and self._base(now, is_likely=is_likely) is None:
            return False
        return self._waiting.is_too_long(now, for_s=0.0 if is_likely else TUNING.unlikely_s)

    def _base(self, now: float, *, is_likely: bool) -> tuple[int, float] | None:
        """Return a number of instances and its slowdown to compare another one with, if there are any."""
        if self._trial is not None:
            return (self._trial.base, self._trial.before) if is_likely else None
        before = self.slowdowns.known(self.count, now)
        return None if before is None else (self.count, before)

    def _grow(self, now: float, run_s: float) -> InstanceChange:
        base = self._base(now, is_likely=True)
        factor = self._factor(self.count + 1)
        self.count += 1
        self._try(base)
        self._waiting.relieved()
        self._period.grew(now)
        self._period.begin(now, self.slowdowns.running_s, run_s)
        self.changes[LOAD] += 1
        starts_thread = self.threads < self.count
        self.threads = max(self.threads, self.count)
        return InstanceChange(count=self.count, reason=LOAD, factor=factor, starts_thread=starts_thread)

    def _factor(self, level: int) -> float:
        """Return how much more ``level`` is expected to bring than one fewer; no more until it is likely to."""
        return level / (level - 1) if self._is_likely(level) else 1.0

    def _try(self, base: tuple[int, float] | None) -> None:
        self._trial = None if base is None else _Trial(self.count, *base)
        self.slowdowns.restart(self.count)

    def _judge(self, trial: _Trial, now: float) -> InstanceChange | None:
        runs, slowdown = self.slowdowns.of_trial(trial.level)
        gain = trial.gain(slowdown)
        if runs >= TUNING.early_success_runs and gain >= TUNING.early_success_gain:
            pays = True
        elif runs >= TUNING.trial_runs:
            pays = gain >= TUNING.least_gain
        elif runs >= TUNING.early_failure_runs and gain < TUNING.early_failure_gain:
            pays = False
        else:
            return None
        self._trial = None
        if pays:
            for level in range(trial.base + 1, trial.level + 1):
                self._verdicts.pays(level)
            return None
        factor = 1 / self._factor(trial.level)
        self._verdicts.does_not_pay(trial.level, now)
        change = self._shrink(trial.level - 1, NO_GAIN, factor)
        if self.count > trial.base:
            self._try((trial.base, trial.before))
        return change

    def _shrink(self, count: int, reason: str, factor: float) -> InstanceChange:
        self.count = count
        if self._trial is not None and self._trial.level > self.count:
            self._trial = None
        self.changes[reason] += 1
        return InstanceChange(count=self.count, reason=reason, factor=factor)


def _ignore(_: InstanceChange) -> None:
    pass
