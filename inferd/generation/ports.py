"""What generation needs from outside: a model with a KV cache, and a detokenizer. Tests implement both with fakes."""

from collections.abc import Sequence
from typing import Protocol

from inferd.generation.request import TokenIds
from inferd.runtime.signature import Logits


class Decoder(Protocol):
    """A decoder-only language model with a KV cache of ``slots`` sequences. Used by one thread, except for `stop_run`.

    A decode step runs the slots 0 to n-1, so the sequences that take part in it must be next to each other. Runs raise
    `RunFailedError`. They return logits of the token that follows each row's last one, valid until the next run.
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
        """True if `score` is supported."""
        ...

    @property
    def cache_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token."""
        ...

    def prefill(self, slot: int, ids: TokenIds, past: int) -> Logits:
        """Append ``ids`` to the ``past`` tokens of ``slot``; return the logits of the last one, [vocabulary_size]."""
        ...

    def score(self, slot: int, ids: TokenIds, past: int) -> Logits:
        """Do the same; return the logits of each of ``ids``, [len(ids), vocabulary_size]."""
        ...

    def decode(self, ids: Sequence[int], past: Sequence[int]) -> Logits:
        """Append one token to each of the slots 0 to len(ids)-1; return their logits, [len(ids), vocabulary_size].

        Row n is bit for bit what it would be if its slot ran alone.
        """
        ...

    def stop_run(self) -> None:
        """Make the run in progress end early with `RunFailedError`; no effect without one. Called by any thread."""
        ...

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first ``tokens`` of slot ``source`` over slot ``target``."""
        ...

    def release(self, slot: int, tokens: int, kept: int = 0) -> None:
        """Return the memory of all but the first ``kept`` of the ``tokens`` in ``slot`` to the operating system."""
        ...


class TextStream(Protocol):
    """Detokenizes one sequence, token by token."""

    def add(self, token_id: int) -> str:
        """Return the text that ``token_id`` completes; it is empty while a character is incomplete."""
        ...

    def end(self) -> str:
        """Return the rest, with U+FFFD for incomplete characters."""
        ...


class Detokenizer(Protocol):
    """Turns tokens of a model into text."""

    def stream(self, prompt: TokenIds) -> TextStream:
        """Return a stream for the tokens that follow ``prompt``."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of a token, which need not be UTF-8 on their own."""
        ...
