"""Draws a token from all of a row of logits: flat distributions, and sampling without bounds.

Nothing is sorted but the few hundred tokens around a bound, which is narrowed down to as quickselect does.
"""

from collections.abc import Callable

import numpy as np

from inferd.generation.penalties import Row
from inferd.generation.request import Sampling

#: So many weights are summed at once, to search one block instead of the row.
_BLOCK = 256
#: So few weights are sorted.
_FEW = 1024
#: Weights whose median halves the rest.
_SAMPLE = 64


def total_weight(row: Row, temperature: float) -> float:
    """Return the sum of the weights of all tokens, in which the most likely one has 1."""
    return float(_weights(row, temperature).sum())


def draw_from_all(row: Row, sampling: Sampling, random: float) -> int:
    """Return the token that has ``random``, from 0 up to 1, among those that ``sampling`` keeps, in order of ids.

    The largest of ``row`` is finite.
    """
    weights = _weights(row, sampling.temperature)
    if 0 < sampling.top_k < len(weights):
        _keep(weights, float(sampling.top_k), np.ones_like)
    if sampling.top_p < 1:
        _keep(weights, float(weights.sum()) * sampling.top_p, lambda values: values)
    if sampling.min_p > 0:
        weights[weights < sampling.min_p] = 0
    return _pick(weights, random)


def _weights(row: Row, temperature: float) -> Row:
    weights = row - row.max()
    weights /= np.float32(temperature)
    return np.exp(weights, out=weights)


def _keep(weights: Row, enough: float, amounts: Callable[[Row], Row]) -> None:
    """Set all but the largest weights, whose amounts reach ``enough``, to 0; of equal ones, lower ids stay."""
    last, above = _last_kept(weights, enough, amounts)
    equal = np.flatnonzero(weights == last)
    more = (enough - above) / float(amounts(np.array([last]))[0])
    weights[weights < last] = 0
    weights[equal[max(int(np.ceil(more)), 1) :]] = 0


def _last_kept(weights: Row, enough: float, amounts: Callable[[Row], Row]) -> tuple[np.float32, float]:
    """Return the smallest weight to keep, and the amount of all larger ones."""
    rest, above = weights, 0.0
    while len(rest) > _FEW:
        sample = np.sort(rest[:: len(rest) // _SAMPLE])
        pivot = sample[len(sample) // 2]
        larger = rest[rest > pivot]
        if not len(larger):
            larger, rest = rest[rest == pivot], rest[rest < pivot]
            amount = float(amounts(larger).sum())
            if above + amount >= enough or not len(rest):
                return pivot, above
            above += amount
            continue
        amount = float(amounts(larger).sum())
        if above + amount >= enough:
            rest = larger
        else:
            above += amount
            rest = rest[rest <= pivot]
    ordered = np.sort(rest)[::-1]
    sums = np.cumsum(amounts(ordered), dtype=np.float64)
    last = ordered[min(int(np.searchsorted(sums, enough - above)), len(ordered) - 1)]
    return last, above + float(amounts(ordered[ordered > last]).sum())


def _pick(weights: Row, random: float) -> int:
    sums = np.cumsum(np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK)), dtype=np.float64)
    target = random * sums[-1]
    block = int(np.searchsorted(sums, target, side="right"))
    if block == len(sums):
        return int(np.flatnonzero(weights)[-1])
    begin = block * _BLOCK
    inside = weights[begin : begin + _BLOCK]
    below = sums[block - 1] if block else 0.0
    place = int(np.searchsorted(below + np.cumsum(inside, dtype=np.float64), target, side="right"))
    # Sums of blocks and of their parts are rounded differently.
    return begin + min(place, int(np.flatnonzero(inside)[-1]))
