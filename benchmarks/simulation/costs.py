"""What runs cost: processor time as a function of rows, exact or with noise."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """The cost of one run: ``work_s`` of processor time, and ``stalled_s`` in which it has no processor."""

    work_s: float
    stalled_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Run times of a model: ``exact`` by rows, with log-normal ``noise`` and runs that are stalled for a multiple."""

    exact: Callable[[int], float]
    noise: float = 0.0
    stall_share: float = 0.0
    stall_factor: float = 4.0

    def draw(self, rows: int, chance: random.Random) -> Run:
        """Return what one run of ``rows`` costs."""
        work_s = self.exact(rows)
        if self.noise:
            work_s *= math.exp(chance.gauss(0.0, self.noise))
        stalled = self.stall_share and chance.random() < self.stall_share
        return Run(work_s, work_s * (self.stall_factor - 1) if stalled else 0.0)

    def capacity(self, max_rows: int) -> float:
        """Return how many rows a second one run at a time does, with full batches of ``max_rows``."""
        return max_rows / self.exact(max_rows)


def affine(fixed_s: float, row_s: float) -> Callable[[int], float]:
    """Return the cost of a model with a fixed part and a part per row."""
    return lambda rows: fixed_s + rows * row_s


def stepwise(fixed_s: float, step_s: float, step_rows: int) -> Callable[[int], float]:
    """Return the cost of a model that works in blocks of ``step_rows``, as vector units and GPUs do."""
    return lambda rows: fixed_s + math.ceil(rows / step_rows) * step_s
