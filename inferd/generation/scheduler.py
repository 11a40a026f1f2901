"""Which run is next, and whether a waiting request may start. Pure.

All sequences that generate take part in each *step*, a run with one token of each. Between two steps there is time for
a limited number of tokens of prompts, so that others' tokens keep coming while prompts are read: a *chunk* of a long
prompt, or several short prompts. A chunk is a run of its own: a row that shares a run with others of another length is
not what it is alone, bit for bit. For the same reason chunks are cut at multiples of their size, whatever else runs.

A prompt that is being read gives way to one of a higher priority, and goes on after it.
"""

from dataclasses import dataclass

from inferd.generation.request import GenerationRequest
from inferd.generation.sequence import GeneratingSequence
from inferd.generation.slots import Slots, TokenBudget


@dataclass(frozen=True, slots=True)
class Chunk:
    """Run the next ``tokens`` of the prompt of ``sequence``."""

    sequence: GeneratingSequence
    tokens: int


@dataclass(frozen=True, slots=True)
class Step:
    """Generate a token for all running sequences."""


class Scheduler:
    """Decides about runs; ``chunk_tokens`` is the size of chunks, and what may run between two steps."""

    def __init__(self, chunk_tokens: int) -> None:
        self._chunk_tokens = chunk_tokens
        # What may run before the next step.
        self._left = chunk_tokens

    def next_run(self, slots: Slots) -> Chunk | Step | None:
        """Return what to run next; None without sequences. The caller does it."""
        if slots.prefilling:
            sequence = slots.prefilling[0]
            tokens = min(self._chunk_tokens, sequence.prompt_left)
            if tokens <= self._left or not slots.running:
                self._left = max(0, self._left - tokens)
                return Chunk(sequence, tokens)
        self._left = self._chunk_tokens
        return Step() if slots.running else None

    def has_place(self, slots: Slots) -> bool:
        """Whether any request may start, as far as that does not depend on the request."""
        return slots.free > 0 and (not slots.prefilling or slots.prefilling[0].request.priority > 1)

    def may_start(self, request: GenerationRequest, slots: Slots, budget: TokenBudget) -> bool:
        """Whether ``request``, the next of those that wait, may start now.

        One that does not fit makes those behind it wait, as it would otherwise wait forever.
        """
        if slots.free == 0 or request.rows > budget.free:
            return False
        return not slots.prefilling or request.priority < slots.prefilling[0].request.priority
