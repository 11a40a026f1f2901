"""Which run is next, and whether a waiting request may start. Pure.

A decode *step* is a run with one token of each decoding sequence. A prefill *chunk* is a run of the next tokens of one
prompt. Between two steps, chunks of at most ``chunk_tokens`` together run: a part of a long prompt, or several short
prompts. So tokens keep coming while prompts are prefilled.

Steps and chunks never share a run, because a row of logits would differ in its last bits from what it is alone. For the
same reason, chunks are cut at multiples of their size, whatever else runs.

A prefill is interrupted by a request of a higher priority, and continues after that one's.
"""

from dataclasses import dataclass

from inferd.generation.request import GenerationRequest
from inferd.generation.sequence import GeneratingSequence
from inferd.generation.slots import Slots, TokenBudget


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Run the next ``tokens`` of the prompt of ``sequence``."""

    sequence: GeneratingSequence
    tokens: int


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """Generate one token for each decoding sequence."""


class Scheduler:
    """Chooses the next run; ``chunk_tokens`` is the size of a chunk, and the most prompt tokens between two steps."""

    def __init__(self, chunk_tokens: int) -> None:
        self._chunk_tokens = chunk_tokens
        # Prompt tokens that may still run before the next step.
        self._left = chunk_tokens

    def next_run(self, slots: Slots) -> PrefillChunk | DecodeStep | None:
        """Return what to run next, and count it as run; None without sequences."""
        if slots.prefilling:
            sequence = slots.prefilling[0]
            tokens = min(self._chunk_tokens, sequence.prompt_left)
            if tokens <= self._left or not slots.decoding:
                self._left = max(0, self._left - tokens)
                return PrefillChunk(sequence, tokens)
        self._left = self._chunk_tokens
        return DecodeStep() if slots.decoding else None

    def may_start_any(self, slots: Slots) -> bool:
        """Return False if no request may start, whatever it asks for."""
        return slots.free > 0 and (not slots.prefilling or slots.prefilling[0].request.priority > 1)

    def may_start(self, request: GenerationRequest, slots: Slots, budget: TokenBudget) -> bool:
        """Return whether ``request``, the first of those that wait, may start now.

        Requests behind it never overtake it, or a large one might wait forever.
        """
        if slots.free == 0 or request.rows > budget.free:
            return False
        return not slots.prefilling or request.priority < slots.prefilling[0].request.priority
