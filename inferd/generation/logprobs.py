"""Log probabilities of tokens, by the logits as the model gave them."""

import math
from collections.abc import Sequence

import numpy as np

from inferd.generation.candidates import most_likely
from inferd.generation.ports import Logits, TextCodec
from inferd.generation.request import Candidate, TokenLogprobs
from inferd.generation.sampler import NO_TOKEN, SequenceSampling
from inferd.generation.whole_rows import total_weight

#: Stands for tokens that cannot be: protocols have no infinite numbers.
_LOWEST = -9999.0
_LARGEST = np.finfo(np.float32).max


def token_logprobs(
    logits: Logits, tokens: Sequence[int], states: Sequence[SequenceSampling], text: TextCodec | None
) -> list[TokenLogprobs | None]:
    """Return what is known of each chosen token, None for sequences that did not ask, and for `NO_TOKEN`.

    ``logits`` are those of `choose`, unchanged.
    """
    found: list[TokenLogprobs | None] = [None] * len(states)
    counts = {
        row: state.top_logprobs
        for row, state in enumerate(states)
        if state.top_logprobs is not None and tokens[row] != NO_TOKEN
    }
    if not counts:
        return found
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
