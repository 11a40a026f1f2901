"""Search for the load that saturates a server. Pure: a function that runs a step is an argument."""

from collections.abc import Callable
from dataclasses import dataclass

# Doubling the requests in flight must raise the good answers per second by this factor.
_LEAST_GAIN = 1.05
# A rate is sustained if at least this share of its requests gets a good answer.
_SUSTAINED_SHARE = 0.95
_REFINEMENTS = 3
_MOST_STEPS = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOutcome:
    """The good answers per second of a step, and their share of its requests."""

    good_per_s: float
    good_share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Saturation:
    """The level beyond which throughput does not grow: requests in flight, or requests per second.

    ``reached`` is False if no level of the sweep saturated the server; ``level`` is None if the first one did.
    """

    level: float | None
    reached: bool


def saturating_concurrency(first: int, run: Callable[[int], StepOutcome]) -> Saturation:
    """Double the requests in flight until the gain is less than 5 %."""
    level, best = first, run(first).good_per_s
    for _ in range(_MOST_STEPS):
        outcome = run(level * 2)
        if outcome.good_per_s < best * _LEAST_GAIN:
            return Saturation(level=level, reached=True)
        level, best = level * 2, outcome.good_per_s
    return Saturation(level=level, reached=False)


def saturating_rate(first: float, run: Callable[[float], StepOutcome]) -> Saturation:
    """Double the rate until it is not sustained, then bisect the last interval three times."""
    sustained, level = None, first
    for _ in range(_MOST_STEPS):
        if not _is_sustained(run(level)):
            break
        sustained, level = level, level * 2
    else:
        return Saturation(level=sustained, reached=False)
    if sustained is None:
        return Saturation(level=None, reached=True)
    too_much = level
    for _ in range(_REFINEMENTS):
        middle = (sustained + too_much) / 2
        if _is_sustained(run(middle)):
            sustained = middle
        else:
            too_much = middle
    return Saturation(level=sustained, reached=True)


def saturation_of(levels: list[tuple[float, StepOutcome]], *, closed: bool) -> Saturation:
    """Return the saturation of a sweep of ascending ``levels``."""
    if not closed:
        sustained = [level for level, outcome in levels if _is_sustained(outcome)]
        return Saturation(level=max(sustained, default=None), reached=len(sustained) < len(levels))
    best = max(outcome.good_per_s for _, outcome in levels)
    enough = next(level for level, outcome in levels if outcome.good_per_s * _LEAST_GAIN >= best)
    return Saturation(level=enough, reached=enough < levels[-1][0])


def _is_sustained(outcome: StepOutcome) -> bool:
    return outcome.good_share >= _SUSTAINED_SHARE
