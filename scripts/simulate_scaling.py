"""Simulate a day of replicas under an autoscaler, second by second: ``python -m scripts.simulate_scaling`` draws it.

The replicas are a fluid model: rows are run in batches that follow from their rate, rows beyond the queue are rejected,
and counters grow as the server's do. The autoscaler sees what Prometheus would: counters of the last scrape, through
the formulas of helm/inferd/rules/recording.yaml, which a test compares with those in this file. It decides as
Kubernetes' horizontal pod autoscaler does, with the chart's behaviour.
"""

import argparse
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PICTURE = Path(__file__).parents[1] / "docs" / "scaling.png"

SCRAPE_S = 15
DECIDE_S = 15
DAY_S = 86_400
#: Range of the rules' rates.
_RATE_S, _SERVICE_S = 120, 300
_TOLERANCE = 0.1
_STABILIZATION_S = 300


#: Scraped metrics, by the names of a `Replica`'s attributes; the test has the server's names.
METRICS = ("offered", "served", "busy_s", "best_rows_per_s")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Run time of the model: ``fixed_s`` and ``row_s`` for each of at most ``max_rows``."""

    fixed_s: float
    row_s: float
    max_rows: int
    #: Maximum queue delay, as queue.max_delay_ms.
    max_delay_s: float = 0.25

    @property
    def capacity(self) -> float:
        """Maximum throughput of a replica in rows per second."""
        return self.max_rows / self.run_s(self.max_rows)

    def run_s(self, rows: float) -> float:
        """Run time of a batch of ``rows``."""
        return self.fixed_s + self.row_s * rows

    def batch_rows(self, rate: float) -> float:
        """Rows of a batch at ``rate`` rows per second: those that arrive during the previous run."""
        if rate >= self.capacity:
            return self.max_rows
        return min(self.max_rows, max(1.0, rate * self.fixed_s / (1 - rate * self.row_s)))


#: A perceptron of 1024-4096-4096-1000 on two cores: 395 rows a second one by one, 4300 in batches of 64.
MID = Cost(fixed_s=0.00234, row_s=0.000196, max_rows=64)


@dataclass(kw_only=True, slots=True)
class Replica:
    """The counters of one replica, and their scrapes."""

    ready_at: float
    waiting: float = 0.0
    offered: float = 0.0
    served: float = 0.0
    refused: float = 0.0
    busy_s: float = 0.0
    best_rows_per_s: float = 0.0
    scrapes: deque[tuple[float, dict[str, float]]] = field(default_factory=lambda: deque(maxlen=40))

    def serve(self, cost: Cost, rows: float) -> None:
        """Serve ``rows`` within one second."""
        self.offered += rows
        self.waiting += rows
        served = min(self.waiting, cost.capacity)
        self.waiting -= served
        over = max(0.0, self.waiting - cost.capacity * cost.max_delay_s)
        self.waiting -= over
        self.refused += over
        self.served += served
        if served:
            batch = cost.max_rows if self.waiting else cost.batch_rows(served)
            self.busy_s += served / batch * cost.run_s(batch)
            self.best_rows_per_s = max(self.best_rows_per_s, batch / cost.run_s(batch))

    def scrape(self, now: float) -> None:
        """Store the counters at ``now``."""
        self.scrapes.append((now, {name: getattr(self, name) for name in METRICS}))

    def scraped(self, name: str, now: float) -> float:
        """Return a metric as of the last scrape before ``now``; 0 before the first."""
        return next((values[name] for at, values in reversed(self.scrapes) if at <= now), 0.0)

    def rate(self, counter: str, now: float, window_s: float) -> float:
        """PromQL's ``rate``: the increase between scrapes, extrapolated by at most half an interval on both sides."""
        seen = [scrape for scrape in self.scrapes if now - window_s <= scrape[0] <= now]
        if len(seen) < 2:
            return 0.0
        first, last = seen[0], seen[-1]
        span = last[0] - first[0]
        between = span / (len(seen) - 1)
        before, after = first[0] - (now - window_s), now - last[0]
        grown = last[1][counter] - first[1][counter]
        if grown > 0:
            # Counters are never negative.
            before = min(before, span * first[1][counter] / grown)
        before = before if before < between * 1.1 else between / 2
        after = after if after < between * 1.1 else between / 2
        return grown * (span + before + after) / span / window_s


def offered_load(replicas: list[Replica], now: float) -> float:
    """``inferd:offered_load:replicas`` of one model."""
    best = max(replica.scraped("best_rows_per_s", now) for replica in replicas)
    return sum(replica.rate("offered", now, _RATE_S) for replica in replicas) / best if best else 0.0


def judged_load(replicas: list[Replica], now: float) -> float:
    """Load by the present cost of rows: ``inferd:offered_load:ratio2m`` of all replicas together."""
    offered = sum(replica.rate("offered", now, _RATE_S) for replica in replicas)
    served = sum(replica.rate("served", now, _SERVICE_S) for replica in replicas)
    spent_s = sum(replica.rate("busy_s", now, _SERVICE_S) for replica in replicas)
    return offered * spent_s / served if served else 0.0


def busy(replicas: list[Replica], now: float) -> float:
    """Load by CPU utilization: the number of busy replicas."""
    return sum(replica.rate("busy_s", now, 60) for replica in replicas)


@dataclass(kw_only=True, slots=True)
class Autoscaler:
    """Decides as Kubernetes does by an average value, with the chart's behaviour."""

    metric: Callable[[list[Replica], float], float]
    target: float = 0.7
    least: int = 2
    most: int = 50
    wishes: deque[tuple[float, int]] = field(default_factory=deque)
    counts: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=8))

    def decide(self, replicas: list[Replica], now: float) -> int:
        """Return the desired number of replicas."""
        count = len(replicas)
        self.counts.append((now, count))
        ratio = self.metric([each for each in replicas if each.ready_at <= now], now) / (self.target * count)
        wish = count if abs(ratio - 1) <= _TOLERANCE else math.ceil(ratio * count)
        self.wishes.append((now, wish))
        while self.wishes[0][0] <= now - _STABILIZATION_S:
            self.wishes.popleft()
        if wish >= count:
            recent = min(there for at, there in self.counts if at >= now - 30)
            return max(self.least, min(self.most, wish, max(2 * recent, recent + 4)))
        recent = max(there for at, there in self.counts if at >= now - 60)
        return max(self.least, min(count, max(*(each for _, each in self.wishes), int(recent * 0.75))))


@dataclass(kw_only=True, slots=True)
class Course:
    """Load, replicas and rejections per second."""

    offered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    replicas: list[int] = field(default_factory=list)
    metric: list[float] = field(default_factory=list)


def simulate(
    cost: Cost, load: Callable[[float], float], scaler: Autoscaler, *, seconds: int, start_s: float = 20.0
) -> tuple[Course, list[Replica]]:
    """Apply ``load`` rows per second for ``seconds``; a replica is ready ``start_s`` after it is requested."""
    course = Course()
    replicas = [Replica(ready_at=0.0) for _ in range(scaler.least)]
    seen = 0.0
    for now in range(seconds):
        ready = [replica for replica in replicas if replica.ready_at <= now]
        rows = load(now)
        before = sum(replica.refused for replica in ready)
        for replica in ready:
            replica.serve(cost, rows / len(ready))
        if now % SCRAPE_S == 0:
            for replica in ready:
                replica.scrape(now)
        if now % DECIDE_S == DECIDE_S - 1:
            seen = scaler.metric(ready, now)
            wanted = scaler.decide(replicas, now)
            replicas = replicas[:wanted] + [Replica(ready_at=now + start_s) for _ in range(wanted - len(replicas))]
        course.offered.append(rows)
        course.refused.append(sum(replica.refused for replica in ready) - before)
        course.replicas.append(len(replicas))
        course.metric.append(seen)
    return course, replicas


def day(cost: Cost) -> Callable[[float], float]:
    """Return a day's load: a night, a day, three spikes of minutes, and reproducible noise."""
    noise = random.Random(0)
    jitter = [noise.uniform(0.93, 1.07) for _ in range(DAY_S // 10 + 1)]
    spikes = ((9.5, 600, 3.0), (14.0, 300, 4.0), (20.25, 1200, 2.0))

    def load(now: float) -> float:
        hour = now / 3600
        level = 2.0 + 4.0 * max(0.0, math.sin(math.pi * (hour - 6) / 16)) if 6 < hour < 22 else 2.0
        for begin, seconds, times in spikes:
            if 0 <= now - begin * 3600 < seconds:
                level *= times
        return cost.capacity * level * jitter[int(now // 10)]

    return load


def draw(courses: dict[str, Course], cost: Cost, picture: Path) -> None:
    """Draw the load, the number of replicas, and the rejections."""
    import matplotlib as mpl  # noqa: PLC0415 - the simulation itself does without

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - the backend is chosen first

    figure, (load, replicas, refused) = plt.subplots(3, 1, figsize=(12, 9), sharex=True, layout="constrained")
    every = 15
    for name, course in courses.items():
        hours = [second / 3600 for second in range(0, len(course.offered), every)]
        if not load.lines:
            load.plot(hours, [rows / cost.capacity for rows in course.offered[::every]], color="black", linewidth=0.8)
        replicas.plot(hours, course.replicas[::every], label=name, linewidth=1)
        lost = [
            sum(course.refused[at : at + 60]) / sum(course.offered[at : at + 60])
            for at in range(0, len(course.offered), 60)
        ]
        refused.plot(
            [minute / 60 for minute in range(len(lost))],
            lost,
            label=f"{name}: {_lost(course):.2%} of the day",
            linewidth=1,
        )
    load.set_ylabel("offered rows, in capacities of a replica")
    replicas.set_ylabel("replicas")
    refused.set_ylabel("refused, of each minute")
    refused.set_xlabel("hour of the day")
    for axes in (replicas, refused):
        axes.legend(loc="upper left")
    for axes in (load, replicas, refused):
        axes.grid(visible=True, alpha=0.3)
    refused.set_xlim(0, 24)
    figure.savefig(picture, dpi=90)


def _lost(course: Course) -> float:
    return sum(course.refused) / sum(course.offered)


def main() -> None:
    """Simulate the day with three autoscalers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    metrics = {"offered load": offered_load, "how long rows take now": judged_load, "how busy replicas are": busy}
    courses = {}
    for name, metric in metrics.items():
        course, _ = simulate(MID, day(MID), Autoscaler(metric=metric), seconds=DAY_S)
        courses[name] = course
        hours = sum(course.replicas) / 3600
        print(f"{name}: {hours:.0f} replica-hours, at most {max(course.replicas)}, refused {_lost(course):.3%}")
    draw(courses, MID, arguments.picture)


if __name__ == "__main__":
    main()
