"""Chooses the next token of each sequence, as if each were alone.

The order is vLLM's: penalties, temperature, top_k, top_p, min_p. The kept tokens, in the order of their ids, share the
interval from 0 to 1 by their probability, and the sequence's next random number names one of them. What is computed for
a row depends on nothing but that row: elementwise functions, exact maxima, and sums from left to right.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.generation.candidates import most_likely
from inferd.generation.penalties import changes_of, undo
from inferd.generation.ports import Logits
from inferd.generation.request import GenerationRequest, Sampling, TokenIds
from inferd.generation.whole_rows import draw_from_all, total_weight

#: In place of a token, for a row that names none: it has NaN, or nothing above -inf.
NO_TOKEN = -1

#: Up to this many candidates of a row are sorted; others are drawn from the whole row.
MAX_CANDIDATES = 256
#: Temperatures below it are those of the most likely token, as in vLLM.
_GREEDY_BELOW = 1e-5

_Values = NDArray[np.float64]


class SequenceSampling:
    """How the tokens of one sequence are chosen, and what that depends on: its tokens and their number.

    The random number of a token is the one at its position in the stream of Philox, a counter-based generator, whose
    key is the seed.
    """

    def __init__(self, request: GenerationRequest) -> None:
        self.sampling = request.sampling
        self.top_logprobs = request.top_logprobs
        self.changes = changes_of(request)
        greedy = self.sampling.temperature < _GREEDY_BELOW
        self._random = None if greedy else np.random.Generator(np.random.Philox(key=self.sampling.seed))

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is chosen."""
        return self._random is None

    def random(self) -> float:
        """Return the number from 0 up to 1 that decides the next token. Called once for each."""
        assert self._random is not None
        return self._random.random()


def choose(logits: Logits, states: Sequence[SequenceSampling]) -> list[int]:
    """Return the next token of each sequence, `NO_TOKEN` for rows without one, and record it in its state.

    ``logits`` are [len(states), vocabulary_size]. They are changed meanwhile, and the same as before at the end.
    """
    changing = [(row, state.changes) for row, state in enumerate(states) if state.changes is not None]
    changed = [changes.apply(logits[row]) for row, changes in changing]
    tokens = _choose(logits, states)
    for (row, changes), change in zip(changing, changed, strict=True):
        undo(logits[row], change)
        if tokens[row] != NO_TOKEN:
            changes.add(tokens[row])
    return tokens


def _choose(logits: Logits, states: Sequence[SequenceSampling]) -> list[int]:
    best = logits.argmax(axis=1)
    highest = logits[np.arange(len(logits)), best]
    # The place of the maximum is that of a NaN if there is one.
    tokens: list[int] = np.where(highest > -np.inf, best, NO_TOKEN).tolist()
    randoms = [0.0 if state.is_greedy else state.random() for state in states]
    rows = _Rows(logits, [state.sampling for state in states], randoms)
    drawn = [row for row, state in enumerate(states) if not state.is_greedy and np.isfinite(highest[row])]
    if drawn:
        _put(tokens, drawn, _draw(rows.only(drawn)))
    return tokens


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of logits, how a token of each is drawn, and the random number that decides."""

    logits: Logits
    samplings: Sequence[Sampling]
    randoms: Sequence[float]

    def only(self, rows: Sequence[int]) -> "_Rows":
        if len(rows) == len(self.logits):
            return self
        return _Rows(self.logits[rows], [self.samplings[row] for row in rows], [self.randoms[row] for row in rows])

    def column(self, value: Callable[[Sampling], float]) -> _Values:
        """Return ``value`` of each row, [rows, 1]."""
        return np.array([[value(sampling)] for sampling in self.samplings], np.float64)


def _put(tokens: list[int], rows: Sequence[int], found: Sequence[int]) -> None:
    for row, token in zip(rows, found, strict=True):
        tokens[row] = token


def _draw(rows: _Rows) -> list[int]:
    """Return a token for each row; the maximum of each is finite."""
    tokens = [NO_TOKEN] * len(rows.logits)
    narrow = [row for row, sampling in enumerate(rows.samplings) if _is_narrow(sampling)]
    if narrow:
        _put(tokens, narrow, _draw_from_candidates(rows.only(narrow)))
    return [
        draw_from_all(*row) if token == NO_TOKEN else token
        for token, *row in zip(tokens, rows.logits, rows.samplings, rows.randoms, strict=True)
    ]


def _is_narrow(sampling: Sampling) -> bool:
    """Whether the tokens to draw from may be few."""
    return sampling.top_k <= MAX_CANDIDATES and (sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0)


def _draw_from_candidates(rows: _Rows) -> list[int]:
    """Return a token for each row, `NO_TOKEN` where more than `MAX_CANDIDATES` may be drawn."""
    limits = rows.column(lambda sampling: sampling.top_k or MAX_CANDIDATES)
    values, ids = most_likely(rows.logits, min(int(limits.max()), rows.logits.shape[1]))
    weights: _Values = np.exp((values - values[:, :1]) / rows.column(lambda sampling: sampling.temperature))
    weights[np.arange(values.shape[1]) >= limits] = 0
    kept = _kept(weights, rows)
    tokens: list[int] = _pick(np.where(kept, weights, 0), ids, np.array(rows.randoms)).tolist()
    for row, sampling in enumerate(rows.samplings):
        if not sampling.top_k and kept[row].sum() >= MAX_CANDIDATES:
            tokens[row] = NO_TOKEN
    return tokens


def _kept(weights: _Values, rows: _Rows) -> NDArray[np.bool_]:
    """Return which candidates top_p and min_p keep; in each row, they come first."""
    sums = np.cumsum(weights, axis=1)
    totals = sums[:, -1:].copy()
    for row, sampling in enumerate(rows.samplings):
        if not sampling.top_k:
            totals[row] = total_weight(rows.logits[row], sampling.temperature) if sampling.top_p < 1 else np.inf
    kept = (weights > 0) & (weights >= rows.column(lambda sampling: sampling.min_p))
    # A token is kept if those before it have less than top_p.
    kept[:, 1:] &= sums[:, :-1] < totals * rows.column(lambda sampling: sampling.top_p)
    return kept


def _pick(weights: _Values, ids: TokenIds, randoms: _Values) -> TokenIds:
    """Return the token of each row that has its random number, in the order of ids."""
    order = np.where(weights > 0, ids, np.iinfo(ids.dtype).max).argsort(axis=1)
    sums = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    places = (sums <= (randoms * sums[:, -1])[:, None]).sum(axis=1)
    # A product that is rounded up may reach the total.
    places = np.minimum(places, (weights > 0).sum(axis=1) - 1)
    picked: TokenIds = np.take_along_axis(ids, order, axis=1)[np.arange(len(ids)), places]
    return picked
