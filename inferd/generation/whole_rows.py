"""Draws a token from all of a row of logits: flat distributions, and sampling without bounds.

Nothing is sorted. The smallest weight to keep is found by its bits: positive floats have the order of their bits, so a
histogram of their highest bits tells in which bar to look at the next ones.
"""

import numpy as np
from numpy.typing import NDArray

from inferd.generation.penalties import Row
from inferd.generation.request import Sampling

#: So many weights are summed at once, to search one block instead of the row.
_BLOCK = 256
#: The bits of each histogram: a shift and a mask. The highest two are 0, as no weight is more than 1.
_DIGITS = ((18, 0xFFF), (9, 0x1FF), (0, 0x1FF))


def total_weight(row: Row, temperature: float) -> float:
    """Return the sum of the weights of all tokens, in which the most likely one has 1."""
    return float(_weights(row, temperature).sum())


def draw_from_all(row: Row, sampling: Sampling, random: float) -> int:
    """Return the token that has ``random``, from 0 up to 1, among those that ``sampling`` keeps, in order of ids.

    The largest of ``row`` is finite.
    """
    weights = _weights(row, sampling.temperature)
    if not 0 < sampling.top_k < len(weights):
        return _draw(weights, sampling, random)
    _keep(weights, np.ones_like(weights), float(sampling.top_k))
    kept = np.flatnonzero(weights)
    return int(kept[_draw(weights[kept], sampling, random)])


def _draw(weights: Row, sampling: Sampling, random: float) -> int:
    """Return the place of the token that has ``random`` among those that top_p and min_p keep."""
    if sampling.top_p < 1:
        _keep(weights, weights, float(weights.sum()) * sampling.top_p)
    if sampling.min_p > 0:
        weights *= weights >= sampling.min_p
    return _pick(weights, random)


def _weights(row: Row, temperature: float) -> Row:
    weights: Row = row - row.max()
    weights /= np.float32(temperature)
    np.exp(weights, out=weights)
    return weights


def _keep(weights: Row, amounts: Row, enough: float) -> None:
    """Set all but the largest weights, whose ``amounts`` reach ``enough``, to 0; of equal ones, lower ids stay."""
    equal, above = _last_kept(weights, amounts, enough)
    more = int(np.ceil((enough - above) / float(amounts[equal[0]])))
    weights *= weights >= weights[equal[0]]
    weights[equal[max(more, 1) :]] = 0


def _last_kept(weights: Row, amounts: Row, enough: float) -> tuple[NDArray[np.intp], float]:
    """Return the places of the smallest weight to keep, in ascending order, and the amount of all larger ones."""
    places, bits, above = np.arange(len(weights)), weights.view(np.int32), 0.0
    for shift, mask in _DIGITS:
        # Other types of integers take bincount six times as long.
        bars = ((bits >> shift) & mask).astype(np.intp)
        heights = np.bincount(bars, weights=amounts)[::-1]
        sums = above + np.cumsum(heights)
        # Rounding may leave the total below what is enough.
        last = min(int(np.searchsorted(sums, enough)), int(np.flatnonzero(heights)[-1]))
        inside = np.flatnonzero(bars == len(heights) - 1 - last)
        places, bits, amounts = places[inside], bits[inside], amounts[inside]
        above = float(sums[last - 1]) if last else above
    return places, above


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
