"""Samples the next token of each sequence, with the same result as if the sequence were alone.

The order is vLLM's: penalties, temperature, top_k, top_p, min_p. The kept tokens, in the order of their ids, share the
interval from 0 to 1 by their probability, and the sequence's next random number draws one of them. The result for a row
depends on nothing but that row: elementwise functions, exact maxima, and sums from left to right.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.generation.logit_rows import Row, draw_from_row, top_logits, total_weight
from inferd.generation.request import GenerationRequest, Sampling, TokenIds
from inferd.runtime.signature import Logits

#: In place of a token, for a row without one to choose: it has NaN, or nothing above -inf.
NO_TOKEN = -1

#: Up to this many candidates of a row are sorted; sampling that keeps more draws from the whole row.
MAX_CANDIDATES = 256
#: Lower temperatures are greedy, as in vLLM.
_GREEDY_BELOW = 1e-5

_Values = NDArray[np.float64]
_NO_IDS: TokenIds = np.empty(0, np.int64)


def changes_of(request: GenerationRequest) -> "LogitChanges | None":
    """Return the changes that ``request`` asks for; None if there are none."""
    sampling = request.sampling
    penalised = (sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty) != (1.0, 0.0, 0.0)
    early = request.stops.min_tokens > 0 and bool(request.stops.token_ids)
    return LogitChanges(request) if penalised or early else None


class LogitChanges:
    """Penalties of one sequence, and end tokens that may not be chosen yet.

    Changes the few logits in place and restores them, which takes microseconds, while a copy of the row takes more.
    """

    def __init__(self, request: GenerationRequest) -> None:
        self._sampling = request.sampling
        self._min_tokens = request.stops.min_tokens
        self._stop_ids: TokenIds = np.array(sorted(request.stops.token_ids), np.int64)
        prompt = np.unique(request.prompt) if self._sampling.repetition_penalty != 1.0 else _NO_IDS
        # The tokens seen, in any order, and how often each was generated; the first len(_index) elements are used.
        self._ids: TokenIds = np.empty(len(prompt) + request.max_tokens, np.int64)
        self._counts: NDArray[np.float32] = np.zeros(len(self._ids), np.float32)
        self._ids[: len(prompt)] = prompt
        self._index = {token: index for index, token in enumerate(prompt.tolist())}
        self._generated = 0

    def apply(self, row: Row) -> tuple[TokenIds, Row]:
        """Change ``row`` in place; return the ids and original logits for `undo`."""
        ids = self._ids[: len(self._index)]
        early = self._early(len(row))
        touched = np.concatenate((ids, early)) if len(early) else ids
        originals = row[touched]
        row[ids] = self._penalised(row[ids])
        row[early] = -np.inf
        return touched, originals

    def add(self, token_id: int) -> None:
        """Count a chosen token."""
        self._generated += 1
        index = self._index.setdefault(token_id, len(self._index))
        self._ids[index] = token_id
        self._counts[index] += 1

    def _penalised(self, values: Row) -> Row:
        sampling, counts = self._sampling, self._counts[: len(values)]
        if sampling.repetition_penalty != 1.0:
            penalty = np.float32(sampling.repetition_penalty)
            values = np.where(values > 0, values / penalty, values * penalty)
        values -= np.float32(sampling.frequency_penalty) * counts
        values[counts > 0] -= np.float32(sampling.presence_penalty)
        return values

    def _early(self, vocabulary_size: int) -> TokenIds:
        """Return the end tokens that may not be chosen before ``min_tokens``."""
        if self._generated >= self._min_tokens:
            return _NO_IDS
        return self._stop_ids[self._stop_ids < vocabulary_size]


def undo(row: Row, change: tuple[TokenIds, Row]) -> None:
    """Restore the logits of ``row`` that `LogitChanges.apply` changed."""
    ids, originals = change
    row[ids] = originals


class SequenceSampling:
    """Sampling state of one sequence: its parameters, its random numbers, and the tokens that penalties count.

    The n-th token has the n-th number of Philox, a counter-based generator, with the seed as its key.
    """

    def __init__(self, request: GenerationRequest) -> None:
        self.sampling = request.sampling
        self.top_logprobs = request.top_logprobs
        self.changes = changes_of(request)
        greedy = self.sampling.temperature < _GREEDY_BELOW
        self._random = None if greedy else np.random.Generator(np.random.Philox(key=self.sampling.seed))

    @property
    def is_greedy(self) -> bool:
        """True if the most likely token is chosen."""
        return self._random is None

    def random(self) -> float:
        """Return the random number in [0, 1) of the next token. Call it once for each token."""
        assert self._random is not None
        return self._random.random()


def choose_tokens(logits: Logits, states: Sequence[SequenceSampling]) -> list[int]:
    """Return the next token of each sequence, or `NO_TOKEN`, and record it in the sequence's state.

    ``logits`` are [len(states), vocabulary_size]; they are changed in place and restored.
    """
    changing = [(row, state.changes) for row, state in enumerate(states) if state.changes is not None]
    changed = [changes.apply(logits[row]) for row, changes in changing]
    tokens = _sample(logits, states)
    for (row, changes), change in zip(changing, changed, strict=True):
        undo(logits[row], change)
        if tokens[row] != NO_TOKEN:
            changes.add(tokens[row])
    return tokens


def _sample(logits: Logits, states: Sequence[SequenceSampling]) -> list[int]:
    best = logits.argmax(axis=1)
    highest = logits[np.arange(len(logits)), best]
    # argmax finds a NaN if there is one, and no NaN is above -inf.
    tokens: list[int] = np.where(highest > -np.inf, best, NO_TOKEN).tolist()
    randoms = [0.0 if state.is_greedy else state.random() for state in states]
    rows = _Rows(logits, [state.sampling for state in states], randoms)
    drawn = [row for row, state in enumerate(states) if not state.is_greedy and np.isfinite(highest[row])]
    if drawn:
        _put(tokens, drawn, _draw(rows.only(drawn)))
    return tokens


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of logits, each with its sampling parameters and its random number."""

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
    """Return a token for each row, whose maximum must be finite."""
    tokens = [NO_TOKEN] * len(rows.logits)
    few = [row for row, sampling in enumerate(rows.samplings) if _may_keep_few(sampling)]
    if few:
        _put(tokens, few, _draw_from_candidates(rows.only(few)))
    return [
        draw_from_row(*row) if token == NO_TOKEN else token
        for token, *row in zip(tokens, rows.logits, rows.samplings, rows.randoms, strict=True)
    ]


def _may_keep_few(sampling: Sampling) -> bool:
    """Return whether the kept tokens may be few enough to sort."""
    return sampling.top_k <= MAX_CANDIDATES and (sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0)


def _draw_from_candidates(rows: _Rows) -> list[int]:
    """Return a token for each row; `NO_TOKEN` if more than `MAX_CANDIDATES` may be kept."""
    limits = rows.column(lambda sampling: sampling.top_k or MAX_CANDIDATES)
    values, ids = top_logits(rows.logits, min(int(limits.max()), rows.logits.shape[1]))
    weights: _Values = np.exp((values - values[:, :1]) / rows.column(lambda sampling: sampling.temperature))
    weights[np.arange(values.shape[1]) >= limits] = 0
    kept = _kept(weights, rows)
    tokens: list[int] = _pick(np.where(kept, weights, 0), ids, np.array(rows.randoms)).tolist()
    for row, sampling in enumerate(rows.samplings):
        if not sampling.top_k and kept[row].sum() >= MAX_CANDIDATES:
            tokens[row] = NO_TOKEN
    return tokens


def _kept(weights: _Values, rows: _Rows) -> NDArray[np.bool_]:
    """Return which candidates top_p and min_p keep, [rows, candidates]; in each row, the kept ones come first."""
    sums = np.cumsum(weights, axis=1)
    totals = sums[:, -1:].copy()
    for row, sampling in enumerate(rows.samplings):
        if not sampling.top_k:
            totals[row] = total_weight(rows.logits[row], sampling.temperature) if sampling.top_p < 1 else np.inf
    kept = (weights > 0) & (weights >= rows.column(lambda sampling: sampling.min_p))
    # A token is kept if those before it have less than top_p together.
    kept[:, 1:] &= sums[:, :-1] < totals * rows.column(lambda sampling: sampling.top_p)
    return kept


def _pick(weights: _Values, ids: TokenIds, randoms: _Values) -> TokenIds:
    """Return the token of each row that its random number draws, with the candidates in the order of ids."""
    order = np.where(weights > 0, ids, np.iinfo(ids.dtype).max).argsort(axis=1)
    sums = np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1)
    places = (sums <= (randoms * sums[:, -1])[:, None]).sum(axis=1)
    # A product that is rounded up may reach the total.
    places = np.minimum(places, (weights > 0).sum(axis=1) - 1)
    picked: TokenIds = np.take_along_axis(ids, order, axis=1)[np.arange(len(ids)), places]
    return picked
