"""Record the requests of one step: counts, latencies and a time series. Pure: times are arguments.

Latency counts from the time a request was meant to be sent, also if the generator or the server's limit of calls
delayed it, so that a slow answer does not hide the requests that waited behind it (coordinated omission). It counts
from when the request was sent if that was a little earlier.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from inferd.bench.histogram import Histogram

#: A status code and the server's reason; the reason may be empty.
Status = tuple[str, str]

OK: Status = ("OK", "")
#: Answered with values other than expected.
WRONG_ANSWER: Status = ("OK", "WRONG_ANSWER")
#: The deadline passed before the generator could send the request.
NOT_SENT: Status = ("DEADLINE_EXCEEDED", "NOT_SENT")

#: The codes of answers, and of requests that a server has too much load for. All others are failures of another kind.
OVERLOAD_CODES = frozenset({"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"})

# Reasons are texts of the server: further statuses are counted together.
_MAX_STATUSES = 50
_SERIES_DIGITS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The times of a step, in monotonic seconds. Requests meant for ``warm_s`` to ``end_s`` are measured."""

    start_s: float
    warm_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """The measured time."""
        return self.end_s - self.warm_s

    def contains(self, moment_s: float) -> bool:
        """Return True if ``moment_s`` is in the measured time."""
        return self.warm_s <= moment_s < self.end_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The result of one request: when it was meant to be sent, when it was sent, when it ended, and its status."""

    class_index: int
    rows: int
    intended_s: float
    sent_s: float
    ended_s: float
    status: Status
    message: str = ""


@dataclass(slots=True)
class Statuses:
    """Counts of requests by status, with the first message of each. Above `_MAX_STATUSES`, others are one status."""

    counts: Counter[Status] = field(default_factory=Counter)
    messages: dict[Status, str] = field(default_factory=dict)

    def count(self, status: Status, message: str) -> None:
        """Count one request."""
        if status not in self.counts and len(self.counts) >= _MAX_STATUSES:
            status = (status[0], "OTHER")
        self.counts[status] += 1
        if message:
            self.messages.setdefault(status, message)

    def add(self, other: "Statuses") -> None:
        """Count everything that ``other`` has counted."""
        self.counts.update(other.counts)
        self.messages = other.messages | self.messages


@dataclass(slots=True)
class Tally:
    """The counts of one traffic class. ``completed`` counts OK answers that ended in the measured time.

    ``latency_from_send`` excludes how late a request was sent, as other generators do.
    """

    requests: int = 0
    rows: int = 0
    ok: int = 0
    within_objective: int = 0
    wrong: int = 0
    completed: int = 0
    completed_rows: int = 0
    statuses: Statuses = field(default_factory=Statuses)
    retried: Counter[Status] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)
    latency_from_send: Histogram = field(default_factory=Histogram)
    failure_latency: Histogram = field(default_factory=Histogram)

    def add(self, other: "Tally") -> None:
        """Count everything that ``other`` has counted."""
        for name in ("requests", "rows", "ok", "within_objective", "wrong", "completed", "completed_rows"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.statuses.add(other.statuses)
        self.retried.update(other.retried)
        self.latency.add(other.latency)
        self.latency_from_send.add(other.latency_from_send)
        self.failure_latency.add(other.failure_latency)


@dataclass(slots=True)
class Interval:
    """The requests that ended in one interval, also in the warm-up, and the latencies of those that were OK.

    ``broken`` are those of the failed ones that failed for another reason than load.
    """

    ok: int = 0
    failed: int = 0
    broken: int = 0
    within_objective: int = 0
    latency: Histogram = field(default_factory=lambda: Histogram(_SERIES_DIGITS))

    @property
    def ended(self) -> int:
        """All requests."""
        return self.ok + self.failed

    def add(self, other: "Interval") -> None:
        """Count everything that ``other`` has counted."""
        self.ok += other.ok
        self.failed += other.failed
        self.broken += other.broken
        self.within_objective += other.within_objective
        self.latency.add(other.latency)


@dataclass(slots=True)
class Recorder:
    """Counts the requests of one step. Picklable: workers send theirs to be merged.

    With ``objective_s`` None every OK answer is a good one. ``intervals`` have ``interval_s`` each, from the start of
    the step on.
    """

    window: Window
    classes: int
    objective_s: float | None
    interval_s: float
    tallies: list[Tally] = field(init=False)
    intervals: list[Interval] = field(default_factory=list)
    send_lag: Histogram = field(default_factory=Histogram)
    recent: Interval = field(default_factory=Interval)
    in_flight: int = 0
    most_in_flight: int = 0
    held_back: int = 0

    def __post_init__(self) -> None:
        self.tallies = [Tally() for _ in range(self.classes)]

    def begun(self) -> None:
        """Record that a request is being sent."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def retried(self, class_index: int, intended_s: float, status: Status) -> None:
        """Record an attempt that failed and is retried."""
        if self.window.contains(intended_s):
            self.tallies[class_index].retried[status] += 1

    def ended(self, outcome: Outcome) -> None:
        """Record the end of a request that was begun."""
        self.in_flight -= 1
        latency_s = outcome.ended_s - min(outcome.intended_s, outcome.sent_s)
        ok = outcome.status == OK
        good = ok and (self.objective_s is None or latency_s <= self.objective_s)
        self._add_to_interval(outcome, latency_s, good=good)
        tally = self.tallies[outcome.class_index]
        if ok and self.window.contains(outcome.ended_s):
            tally.completed += 1
            tally.completed_rows += outcome.rows
        if not self.window.contains(outcome.intended_s):
            return
        self.send_lag.record(outcome.sent_s - outcome.intended_s)
        tally.requests += 1
        tally.rows += outcome.rows
        tally.ok += ok
        tally.within_objective += good
        tally.wrong += outcome.status == WRONG_ANSWER
        (tally.latency if ok else tally.failure_latency).record(latency_s)
        if ok:
            tally.latency_from_send.record(outcome.ended_s - outcome.sent_s)
        tally.statuses.count(outcome.status, outcome.message)

    def add(self, others: Sequence["Recorder"]) -> None:
        """Count what other workers have recorded in the same step."""
        for other in others:
            for mine, theirs in zip(self.tallies, other.tallies, strict=True):
                mine.add(theirs)
            self.intervals += [Interval() for _ in range(len(other.intervals) - len(self.intervals))]
            for interval, further in zip(self.intervals, other.intervals, strict=False):
                interval.add(further)
            self.send_lag.add(other.send_lag)
            self.most_in_flight += other.most_in_flight
            self.held_back += other.held_back

    def take_recent(self) -> Interval:
        """Return the requests that ended since the last call, for the display."""
        recent, self.recent = self.recent, Interval()
        return recent

    def total(self) -> Tally:
        """Return the counts of all traffic classes together."""
        total = Tally()
        for tally in self.tallies:
            total.add(tally)
        return total

    def _add_to_interval(self, outcome: Outcome, latency_s: float, *, good: bool) -> None:
        ok, broken = outcome.status == OK, outcome.status[0] not in OVERLOAD_CODES
        index = max(0, int((outcome.ended_s - self.window.start_s) / self.interval_s))
        while len(self.intervals) <= index:
            self.intervals.append(Interval())
        for interval in (self.intervals[index], self.recent):
            interval.ok += ok
            interval.failed += not ok
            interval.broken += broken
            interval.within_objective += good
            if ok:
                interval.latency.record(latency_s)
