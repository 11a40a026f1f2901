"""Log probabilities of tokens, from the logits before sampling changes them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from inferd.generation.logit_rows import top_logits, total_weight
from inferd.generation.ports import Detokenizer
from inferd.generation.request import Candidate, TokenLogprobs
from inferd.generation.sampler import NO_TOKEN, SequenceSampling
from inferd.runtime.signature import Logits

#: In place of -inf, which JSON does not have.
_LOWEST = -9999.0
_LARGEST = np.finfo(np.float32).max
#: Rows of a prompt that are computed together, as the intermediate arrays take several times their memory.
_ROWS_AT_ONCE = 8


def token_logprobs(
    logits: Logits, tokens: Sequence[int], states: Sequence[SequenceSampling], detokenizer: Detokenizer | None
) -> list[TokenLogprobs | None]:
    """Return the log probabilities of each chosen token; None for sequences that did not ask, and for `NO_TOKEN`.

    ``logits`` are [len(tokens), vocabulary_size], those that `choose_tokens` got.
    """
    counts = {
        row: state.top_logprobs
        for row, state in enumerate(states)
        if state.top_logprobs is not None and tokens[row] != NO_TOKEN
    }
    found = _logprobs_by_row(logits, tokens, counts, detokenizer) if counts else {}
    return [found.get(row) for row in range(len(states))]


def prompt_logprobs(
    logits: Logits, tokens: Sequence[int], count: int, detokenizer: Detokenizer | None
) -> list[TokenLogprobs]:
    """Return the log probabilities of each of ``tokens`` and of the ``count`` most likely ones at its position.

    Row n of ``logits`` is that after token n-1, which predicts token n.
    """
    found: list[TokenLogprobs] = []
    for begin in range(0, len(tokens), _ROWS_AT_ONCE):
        some = tokens[begin : begin + _ROWS_AT_ONCE]
        rows = logits[begin : begin + len(some)]
        found += _logprobs_by_row(rows, some, dict.fromkeys(range(len(some)), count), detokenizer).values()
    return found


def _logprobs_by_row(
    logits: Logits, tokens: Sequence[int], counts: Mapping[int, int], detokenizer: Detokenizer | None
) -> dict[int, TokenLogprobs]:
    """Return the log probabilities for the rows in ``counts``, which has the number of most likely tokens of each."""
    found: dict[int, TokenLogprobs] = {}
    some = logits if len(counts) == len(logits) else logits[list(counts)]
    values, ids = top_logits(some, min(max(1, *counts.values()), logits.shape[1]))
    if np.isposinf(values).any():
        # Infinite ones could not be subtracted from each other.
        some, values = np.minimum(some, _LARGEST), np.minimum(values, _LARGEST)
    for at, (row, count) in enumerate(counts.items()):
        largest, log_total = float(values[at, 0]), math.log(total_weight(some[at], 1.0))
        top = zip(ids[at, :count].tolist(), values[at, :count].tolist(), strict=True)
        found[row] = TokenLogprobs(
            _candidate(tokens[row], float(some[at, tokens[row]]) - largest - log_total, detokenizer),
            [_candidate(token, value - largest - log_total, detokenizer) for token, value in top if value > -math.inf],
        )
    return found


def _candidate(token_id: int, logprob: float, detokenizer: Detokenizer | None) -> Candidate:
    text = detokenizer.token_bytes(token_id) if detokenizer else b""
    return Candidate(token_id, text, max(logprob, _LOWEST))
