"""How far what is learned about run times is from what runs cost."""

import random
from dataclasses import dataclass

from benchmarks.simulation.costs import Cost, affine, stepwise
from inferd.batching.cost_model import CostModel

COSTS = {
    "affine": Cost(exact=affine(0.005, 0.0005)),
    "affine, small fixed part": Cost(exact=affine(0.001, 0.01)),
    "steps of 8 rows": Cost(exact=stepwise(0.004, 0.003, 8)),
    "noise of 10 %": Cost(exact=affine(0.005, 0.0005), noise=0.1),
    "noise of 10 %, 3 % of runs stalled": Cost(exact=affine(0.005, 0.0005), noise=0.1, stall_share=0.03),
    "steps, noise, stalls": Cost(exact=stepwise(0.004, 0.003, 8), noise=0.1, stall_share=0.03),
}
_MAX_ROWS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Errors:
    """Relative errors of predictions against the cost without noise.

    ``covered`` is the share of runs that took no longer than the upper bound.
    """

    relative: list[float]
    covered: float


def errors(cost: Cost, *, batches: int = 50, tested: int = 50, seed: int = 0) -> Errors:
    """Learn from ``batches`` of random sizes, then predict ``tested`` more while learning goes on."""
    chance = random.Random(seed)
    learned = CostModel()
    found: list[float] = []
    covered = 0
    for number in range(batches + tested):
        rows = chance.randint(1, _MAX_ROWS)
        run = cost.draw(rows, chance)
        if number >= batches:
            found.append(abs(learned.predict(rows) / cost.exact(rows) - 1))
            covered += run.work_s + run.stalled_s <= learned.upper(rows)
        learned.ran(rows, run.work_s + run.stalled_s, run.work_s)
    return Errors(relative=found, covered=covered / tested)
