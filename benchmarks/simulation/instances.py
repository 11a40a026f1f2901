"""Instances that follow the load: over a day, and after a step."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.simulation.calls import Call, Clients, Traffic
from benchmarks.simulation.costs import Cost
from benchmarks.simulation.figures import percentile
from benchmarks.simulation.loop import Cores, Loop
from benchmarks.simulation.model import Model
from inferd.batching.instances import Instances
from inferd.batching.request import InstanceChange

_STEPS_PER_DAY = 144
_PATIENT_S = 10_000.0
#: Batches of load before a step and after it.
_BEFORE, _AFTER = 60, 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """The ``cores``, of which each run takes ``threads``, and bounds of the instances; with equal ones it is fixed."""

    cores: int = 4
    threads: int = 1
    least: int = 1
    most: int = 4

    def model(self, loop: Loop, cost: Cost, *, max_rows: int, seed: int) -> Model:
        """Return a model that has been warmed up."""
        likely = self.cores // self.threads
        instances = Instances(least=self.least, most=self.most, likely=likely)
        model = Model(
            loop,
            cost,
            max_rows=max_rows,
            cores=Cores(loop, self.cores),
            workers=likely if instances.may_change else self.most,
            instances=instances if instances.may_change else None,
            threads=self.threads,
            seed=seed,
        )
        for rows in {1, max_rows}:
            model.state.rules.run_cost.seed(rows, cost.exact(rows))
            instances.slowdowns.alone.seed(rows, cost.exact(rows))
        return model


def day(
    cost: Cost, *, seconds: float, peak: float, restlessness: float = 0.0, machine: Machine | None = None, seed: int = 0
) -> list[tuple[float, InstanceChange]]:
    """Return the changes of a day, with the hour of each.

    A day takes ``seconds``. The load follows the sun from next to nothing to ``peak`` times what one instance does, and
    differs from that by a factor with a standard deviation of ``restlessness``, another one every ten minutes.
    """
    loop = Loop()
    model = (machine or Machine()).model(loop, cost, max_rows=1, seed=seed)
    began, chance = loop.now, random.Random(f"{seed} day")
    steps = []
    for number in range(_STEPS_PER_DAY):
        of_peak = (1 - math.cos(2 * math.pi * (number + 0.5) / _STEPS_PER_DAY)) / 2
        load = (0.02 + peak * of_peak) * math.exp(restlessness * chance.gauss(0.0, 1.0))
        steps.append((seconds / _STEPS_PER_DAY, load * cost.capacity(1)))
    Clients(loop, model, seed).play([Traffic(steps=steps, deadline_s=(_PATIENT_S, _PATIENT_S))])
    # An hour of the night is left, for the last ones to end.
    loop.run(seconds * 25 / 24)
    return [((when - began) / seconds * 24, change) for when, change in model.changes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stepped:
    """What came of a step of the load. Times are in runs of full batches, from the step on."""

    run_s: float
    stepped_at: float
    calls: Sequence[Call]
    changes: Sequence[tuple[float, InstanceChange]]

    def p99(self, first: float, last: float) -> float:
        """Return the 99th percentile, in runs, of the calls that were sent in this time and answered."""
        took_s = [call.took_s for call in self._sent(first, last) if call.in_time]
        return percentile(took_s, 99) / self.run_s

    def failed(self, first: float, last: float) -> float:
        """Return the share of the calls that were sent in this time and not answered."""
        sent = self._sent(first, last)
        return sum(not call.in_time for call in sent) / max(len(sent), 1)

    def _sent(self, first: float, last: float) -> list[Call]:
        begin, end = (self.stepped_at + runs * self.run_s for runs in (first, last))
        return [call for call in self.calls if begin <= call.sent_at < end]


def step(machine: Machine, cost: Cost, *, max_rows: int, load: float, days: int = 1, seed: int = 0) -> Stepped:
    """Raise the load from a tenth of what one instance does to ``load`` times what the cores do.

    ``days`` times, of which the last is returned; between them all instances but the least end.
    """
    loop = Loop()
    model = machine.model(loop, cost, max_rows=max_rows, seed=seed)
    run_s = cost.exact(max_rows)
    one = cost.capacity(max_rows)
    quiet, loud = 0.1 * one, load * one * machine.cores / machine.threads
    clients = Clients(loop, model, seed)
    night_s = max(300.0, 500 * run_s)
    stepped_at = 0.0
    for number in range(days):
        seconds = _BEFORE * run_s + (night_s if number else 0.0)
        clients.play([Traffic(steps=[(seconds, quiet), (_AFTER * run_s, loud)], deadline_s=(30 * run_s + 1,) * 2)])
        stepped_at = loop.now + seconds
        loop.run(seconds + _AFTER * run_s)
    changes = [((when - stepped_at) / run_s, change) for when, change in model.changes]
    return Stepped(run_s=run_s, stepped_at=stepped_at, calls=clients.calls, changes=changes)
