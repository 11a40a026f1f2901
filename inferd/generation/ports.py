"""The interfaces that generation needs from outside; tests implement them with fakes."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inferd.generation.request import TokenIds

Logits = NDArray[np.float32]


class Decoder(Protocol):
    """A language model with a cache of ``slots`` sequences. Used by one thread, except for `stop_run`.

    Rows of `decode` are the slots 0 to n-1, so that the sequences that run are next to each other.
    """

    @property
    def slots(self) -> int:
        """The number of sequences that the cache holds."""
        ...

    @property
    def context_length(self) -> int:
        """The maximum number of tokens of one sequence."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """The length of a row of logits."""
        ...

    @property
    def scores_prompts(self) -> bool:
        """Whether `score` is possible."""
        ...

    @property
    def cache_bytes_per_token(self) -> int:
        """Bytes of the cache that one token takes."""
        ...

    def prefill(self, slot: int, ids: TokenIds, past: int) -> Logits:
        """Add ``ids`` to the ``past`` tokens of ``slot``; return the logits behind the last one, [vocabulary_size].

        They are valid until the next run. Raises `RunFailedError`.
        """
        ...

    def score(self, slot: int, ids: TokenIds, past: int) -> Logits:
        """Do the same; return the logits behind each of ``ids``, [len(ids), vocabulary_size]."""
        ...

    def decode(self, ids: Sequence[int], past: Sequence[int]) -> Logits:
        """Add one token to each of the slots 0 to len(ids)-1; return their logits, [len(ids), vocabulary_size].

        They are valid until the next run. Row n is bit for bit what it would be alone. Raises `RunFailedError`.
        """
        ...

    def stop_run(self) -> None:
        """Have the run in progress end early with `RunFailedError`; no effect without one. Called by any thread."""
        ...

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first ``tokens`` of slot ``source`` over slot ``target``."""
        ...

    def release(self, slot: int, tokens: int, kept: int = 0) -> None:
        """Give the memory of the ``tokens`` that slot ``slot`` held back to the system, but for the first ``kept``."""
        ...


class TextStream(Protocol):
    """Turns the tokens of one sequence into text, one after another."""

    def add(self, token_id: int) -> str:
        """Return the text that is complete with ``token_id``: none while a character is incomplete."""
        ...

    def end(self) -> str:
        """Return what is left, with U+FFFD for incomplete characters."""
        ...


class TextCodec(Protocol):
    """A model's tokenizer, as far as the engine needs it."""

    def stream(self, prompt: TokenIds) -> TextStream:
        """Return a stream of what follows ``prompt``."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Return what a token stands for."""
        ...
