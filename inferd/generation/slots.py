"""How sequences share the KV cache: adjacent slots for those that decode, and a budget of reserved tokens."""

from collections.abc import Collection, Iterator

from inferd.generation.ports import Decoder
from inferd.generation.sequence import GeneratingSequence


class Slots:
    """The sequences in the cache of ``decoder``.

    Invariant: the ``decoding`` sequences have the slots from 0, the ``prefilling`` ones those after them, both lists in
    the order of their slots. The first of ``prefilling`` gets the next chunk, so that it is adjacent to the decoding
    ones when its prompt is complete. Used by the engine's thread.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.decoding: list[GeneratingSequence] = []
        self.prefilling: list[GeneratingSequence] = []

    def __len__(self) -> int:
        return len(self.decoding) + len(self.prefilling)

    def __iter__(self) -> Iterator[GeneratingSequence]:
        yield from self.decoding
        yield from self.prefilling

    @property
    def free(self) -> int:
        """The number of slots without a sequence."""
        return self._decoder.slots - len(self)

    @property
    def tokens(self) -> int:
        """The number of tokens in the cache. Any thread."""
        # Copies, as the engine's thread changes the lists.
        return sum(sequence.length for sequence in [*self.decoding, *self.prefilling])

    def add(self, sequence: GeneratingSequence) -> None:
        """Place ``sequence`` before the other prefilling ones, whose prompts continue when its own is complete."""
        others = self.prefilling
        sequence.slot = len(self.decoding)
        self.prefilling = [sequence, *others]
        for other in reversed(others):
            self._move(other, other.slot + 1)

    def finish_prefill(self) -> None:
        """Let the first prefilling sequence decode: its prompt is complete."""
        self.decoding.append(self.prefilling.pop(0))

    def remove(self, removed: Collection[GeneratingSequence]) -> None:
        """Remove sequences; the last decoding ones fill their slots, then the prefilling ones close up.

        Moved tokens overwrite those of removed sequences: the kernel has to clear a fresh page before it is written,
        which takes ten times as long as the copy.
        """
        held = {sequence.slot: sequence.length for sequence in removed}
        removed_set = set(removed)
        kept = [sequence for sequence in self.decoding if sequence not in removed_set]
        by_slot: list[GeneratingSequence | None] = [None] * len(kept)
        behind = []
        for sequence in kept:
            if sequence.slot < len(kept):
                by_slot[sequence.slot] = sequence
            else:
                behind.append(sequence)
        for slot, occupant in enumerate(by_slot):
            if occupant is None:
                self._move(behind.pop(), slot, held.pop(slot))
        prefilling = [sequence for sequence in self.prefilling if sequence not in removed_set]
        for slot, sequence in enumerate(prefilling, len(kept)):
            if sequence.slot != slot:
                self._move(sequence, slot, held.pop(slot, 0))
        for slot, tokens in held.items():
            self._decoder.release(slot, tokens)
        # Not earlier: `clear` returns all of them if the cache fails.
        self.decoding, self.prefilling = sorted(kept, key=_slot), prefilling

    def clear(self) -> list[GeneratingSequence]:
        """Remove and return all sequences, whatever is in the cache."""
        removed = list(self)
        self.decoding, self.prefilling = [], []
        return removed

    def _move(self, sequence: GeneratingSequence, target: int, held: int = 0) -> None:
        """Move ``sequence`` to slot ``target``, which still has the ``held`` tokens of another sequence."""
        if sequence.length:
            self._decoder.move(sequence.slot, target, sequence.length)
            self._decoder.release(sequence.slot, sequence.length)
        if held > sequence.length:
            self._decoder.release(target, held, sequence.length)
        sequence.slot = target


def _slot(sequence: GeneratingSequence) -> int:
    return sequence.slot


class TokenBudget:
    """Counts the tokens that are reserved in the cache.

    A sequence reserves all that it may need, its prompt and its ``max_tokens``, before it starts. So a started sequence
    never waits for memory, and none has to be preempted. Invariant: ``reserved`` is from 0 to ``total``.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.reserved = 0

    @property
    def free(self) -> int:
        """The tokens that can be reserved."""
        return self.total - self.reserved

    def reserve(self, tokens: int) -> None:
        """Reserve ``tokens``. Raises `ValueError` if fewer are free."""
        if tokens > self.free:
            raise ValueError(f"{tokens} tokens do not fit: {self.reserved} of {self.total} are reserved")
        self.reserved += tokens

    def release(self, tokens: int) -> None:
        """Return ``tokens`` to the budget. Raises `ValueError` if fewer are reserved."""
        if tokens > self.reserved:
            raise ValueError(f"{tokens} tokens were not reserved, only {self.reserved}")
        self.reserved -= tokens
