"""Log probabilities of tokens, by the logits as the model gave them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from inferd.generation.candidates import most_likely
from inferd.generation.ports import Logits, TextCodec
from inferd.generation.request import Candidate, TokenLogprobs
from inferd.generation.sampler import NO_TOKEN, SequenceSampling
from inferd.generation.whole_rows import total_weight

#: Stands for tokens that cannot be: protocols have no infinite numbers.
_LOWEST = -9999.0
_LARGEST = np.finfo(np.float32).max
#: Rows of a prompt.
_ROWS_AT_ONCE = 8


def token_logprobs(
    logits: Logits, tokens: Sequence[int], states: Sequence[SequenceSampling], text: TextCodec | None
) -> list[TokenLogprobs | None]:
    """Return what is known of each chosen token, None for sequences that did not ask, and for `NO_TOKEN`.

    ``logits`` are those of `choose`, unchanged.
    """
    counts = {
        row: state.top_logprobs
        for row, state in enumerate(states)
        if state.top_logprobs is not None and tokens[row] != NO_TOKEN
    }
    found = _of_rows(logits, tokens, counts, text) if counts else {}
    return [found.get(row) for row in range(len(states))]


def prompt_logprobs(logits: Logits, tokens: Sequence[int], count: int, text: TextCodec | None) -> list[TokenLogprobs]:
    """Return what is known of each of ``tokens``, with the ``count`` most likely ones in its place.

    Row n of ``logits`` is what the model says before token n.
    """
    found: list[TokenLogprobs] = []
    # A few rows at a time: what is computed of them takes as much memory as they do, several times.
    for begin in range(0, len(tokens), _ROWS_AT_ONCE):
        some = tokens[begin : begin + _ROWS_AT_ONCE]
        rows = logits[begin : begin + len(some)]
        found += _of_rows(rows, some, dict.fromkeys(range(len(some)), count), text).values()
    return found


def _of_rows(
    logits: Logits, tokens: Sequence[int], counts: Mapping[int, int], text: TextCodec | None
) -> dict[int, TokenLogprobs]:
    """Return what is known of the tokens of the rows that ``counts`` has, with as many of the most likely ones."""
    found: dict[int, TokenLogprobs] = {}
    some = logits if len(counts) == len(logits) else logits[list(counts)]
    values, ids = most_likely(some, min(max(1, *counts.values()), logits.shape[1]))
    if np.isposinf(values).any():
        # Infinite ones could not be subtracted from each other.
        some, values = np.minimum(some, _LARGEST), np.minimum(values, _LARGEST)
    for at, (row, count) in enumerate(counts.items()):
        largest, log_total = float(values[at, 0]), math.log(total_weight(some[at], 1.0))
        top = zip(ids[at, :count].tolist(), values[at, :count].tolist(), strict=True)
        found[row] = TokenLogprobs(
            _candidate(tokens[row], float(some[at, tokens[row]]) - largest - log_total, text),
            [_candidate(token, value - largest - log_total, text) for token, value in top if value > -math.inf],
        )
    return found


def _candidate(token_id: int, logprob: float, text: TextCodec | None) -> Candidate:
    return Candidate(token_id, text.token_bytes(token_id) if text else b"", max(logprob, _LOWEST))
