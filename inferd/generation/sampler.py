"""Chooses the next token of each sequence, as if each were alone.

The order is vLLM's: penalties, temperature, top_k, top_p, min_p. The kept tokens, in the order of their ids, share the
interval from 0 to 1 by their probability, and the sequence's next random number names one of them. What is computed for
a row depends on nothing but that row: elementwise functions, exact maxima, and sums from left to right.
"""

from collections.abc import Sequence

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
    rows = [row for row, state in enumerate(states) if not state.is_greedy]
    randoms = [states[row].random() for row in rows]
    drawn = np.isfinite(highest[rows])
    if not drawn.all():
        rows, randoms = [rows[n] for n in np.flatnonzero(drawn)], [randoms[n] for n in np.flatnonzero(drawn)]
    if rows:
        some = logits if len(rows) == len(logits) else logits[rows]
        for row, token in zip(rows, _draw(some, [states[row].sampling for row in rows], randoms), strict=True):
            tokens[row] = token
    return tokens


def _draw(logits: Logits, samplings: Sequence[Sampling], randoms: Sequence[float]) -> list[int]:
    """Return a token for each row; the maximum of each is finite."""
    tokens = [NO_TOKEN] * len(logits)
    narrow = [row for row, sampling in enumerate(samplings) if _is_narrow(sampling)]
    if narrow:
        some = logits if len(narrow) == len(logits) else logits[narrow]
        found = _draw_from_candidates(some, [samplings[row] for row in narrow], [randoms[row] for row in narrow])
        for row, token in zip(narrow, found, strict=True):
            tokens[row] = token
    return [
        draw_from_all(logits[row], samplings[row], randoms[row]) if token == NO_TOKEN else token
        for row, token in enumerate(tokens)
    ]


def _is_narrow(sampling: Sampling) -> bool:
    """Whether the tokens to draw from may be few."""
    return sampling.top_k <= MAX_CANDIDATES and (sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0)


def _draw_from_candidates(logits: Logits, samplings: Sequence[Sampling], randoms: Sequence[float]) -> Sequence[int]:
    """Return a token for each row, `NO_TOKEN` where more than `MAX_CANDIDATES` may be drawn."""
    limits = np.array([sampling.top_k or MAX_CANDIDATES for sampling in samplings])
    values, ids = most_likely(logits, min(int(limits.max()), logits.shape[1]))
    temperatures = np.array([[sampling.temperature] for sampling in samplings])
    weights: _Values = np.exp((values - values[:, :1]) / temperatures)
    weights[np.arange(values.shape[1]) >= limits[:, None]] = 0
    kept = _kept(weights, logits, samplings)
    tokens = _pick(np.where(kept, weights, 0), ids, np.array(randoms))
    cut_off = np.array([sampling.top_k == 0 for sampling in samplings]) & (kept.sum(axis=1) >= MAX_CANDIDATES)
    return np.where(cut_off, NO_TOKEN, tokens).tolist()  # type: ignore[no-any-return]  # numpy does not know


def _kept(weights: _Values, logits: Logits, samplings: Sequence[Sampling]) -> NDArray[np.bool_]:
    """Return which candidates top_p and min_p keep; in each row, they come first."""
    sums = np.cumsum(weights, axis=1)
    totals = sums[:, -1].copy()
    for row, sampling in enumerate(samplings):
        if sampling.top_k == 0:
            totals[row] = total_weight(logits[row], sampling.temperature) if sampling.top_p < 1 else np.inf
    enough = totals * [sampling.top_p for sampling in samplings]
    kept = weights > 0
    kept &= weights >= np.array([[sampling.min_p] for sampling in samplings])
    # A token is kept if those before it have less than top_p.
    kept[:, 1:] &= sums[:, :-1] < enough[:, None]
    return kept


def _pick(weights: _Values, ids: TokenIds, randoms: _Values) -> TokenIds:
    """Return the token of each row that has its random number, in the order of ids."""
    order = np.where(weights > 0, ids, np.iinfo(ids.dtype).max).argsort(axis=1)
    sums = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    places = (sums <= (randoms * sums[:, -1])[:, None]).sum(axis=1)
    # A product that is rounded up may reach the total.
    places = np.minimum(places, (weights > 0).sum(axis=1) - 1)
    return ids[np.arange(len(ids)), order[np.arange(len(ids)), places]]
