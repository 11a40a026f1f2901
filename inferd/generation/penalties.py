"""What a sequence changes in its row of logits before a token is chosen."""

import numpy as np
from numpy.typing import NDArray

from inferd.generation.request import GenerationRequest, TokenIds

#: Logits of one sequence, [vocabulary_size].
Row = NDArray[np.float32]

_NO_IDS: TokenIds = np.empty(0, np.int64)


def changes_of(request: GenerationRequest) -> "LogitChanges | None":
    """Return what ``request`` changes; None if nothing."""
    sampling = request.sampling
    penalised = (sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty) != (1.0, 0.0, 0.0)
    early = request.stops.min_tokens > 0 and bool(request.stops.token_ids)
    return LogitChanges(request) if penalised or early else None


class LogitChanges:
    """The penalties of one sequence, and the end tokens that may not be chosen yet.

    Only the few logits that change are touched, so that a row costs microseconds instead of a copy.
    """

    def __init__(self, request: GenerationRequest) -> None:
        self._sampling = request.sampling
        self._min_tokens = request.stops.min_tokens
        self._stop_ids: TokenIds = np.array(sorted(request.stops.token_ids), np.int64)
        prompt = np.unique(request.prompt) if self._sampling.repetition_penalty != 1.0 else _NO_IDS
        #: The tokens seen, in any order, and how often each was generated; the first `_seen` elements are used.
        self._ids: TokenIds = np.empty(len(prompt) + request.max_tokens, np.int64)
        self._counts: NDArray[np.float32] = np.zeros(len(self._ids), np.float32)
        self._ids[: len(prompt)] = prompt
        self._index = {token: index for index, token in enumerate(prompt.tolist())}
        self._generated = 0

    def apply(self, row: Row) -> tuple[TokenIds, Row]:
        """Change ``row`` in place; return what `undo` needs."""
        ids = self._ids[: len(self._index)]
        early = self._early(len(row))
        touched = np.concatenate((ids, early)) if len(early) else ids
        originals = row[touched]
        row[ids] = self._penalised(row[ids])
        row[early] = -np.inf
        return touched, originals

    def add(self, token_id: int) -> None:
        """Count a token that was chosen."""
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
        """Return the end tokens that may not be chosen yet."""
        if self._generated >= self._min_tokens:
            return _NO_IDS
        return self._stop_ids[self._stop_ids < vocabulary_size]


def undo(row: Row, change: tuple[TokenIds, Row]) -> None:
    """Give ``row`` the logits back that `LogitChanges.apply` changed."""
    ids, originals = change
    row[ids] = originals
