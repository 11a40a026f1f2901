"""How sequences share the cache: slots next to each other for those that run, and tokens that each reserves."""

from collections.abc import Collection, Iterator
from typing import Protocol

from inferd.generation.sequence import GeneratingSequence


class Cache(Protocol):
    """What a decoder does with the contents of slots; see `inferd.generation.ports.Decoder`."""

    @property
    def slots(self) -> int: ...  # noqa: D102  see there
    def move(self, source: int, target: int, tokens: int) -> None: ...  # noqa: D102
    def release(self, slot: int, tokens: int, kept: int = 0) -> None: ...  # noqa: D102


class Slots:
    """The sequences in the cache.

    Invariant: ``running`` are in the slots from 0, those that are ``prefilling`` in the slots behind them, both in the
    order of their slots. The first one that is prefilling gets the next chunk, so that it is behind the running ones
    when its prompt is complete. Used by the engine's thread.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.running: list[GeneratingSequence] = []
        self.prefilling: list[GeneratingSequence] = []

    def __len__(self) -> int:
        return len(self.running) + len(self.prefilling)

    def __iter__(self) -> Iterator[GeneratingSequence]:
        yield from self.running
        yield from self.prefilling

    @property
    def free(self) -> int:
        """The number of slots without a sequence."""
        return self._cache.slots - len(self)

    @property
    def tokens(self) -> int:
        """The tokens whose keys and values are in the cache. Any thread."""
        # Copies, as the engine's thread changes the lists.
        return sum(sequence.length for sequence in [*self.running, *self.prefilling])

    def join(self, sequence: GeneratingSequence) -> None:
        """Place ``sequence``, which gets the next chunks: others that are prefilling go on when it is complete."""
        others = self.prefilling
        sequence.slot = len(self.running)
        self.prefilling = [sequence, *others]
        for other in reversed(others):
            self._move(other, other.slot + 1)

    def prefilled(self) -> None:
        """Let the first one that is prefilling run: its prompt is complete."""
        self.running.append(self.prefilling.pop(0))

    def leave(self, gone: Collection[GeneratingSequence]) -> None:
        """Remove ``gone``. The last ones that run fill the holes, then those that are prefilling close up.

        Their tokens are written over those of the sequences that are gone: pages that the system gives again have to
        be cleared first, which takes ten times as long as the copy.
        """
        held = {sequence.slot: sequence.length for sequence in gone}
        left = set(gone)
        kept = [sequence for sequence in self.running if sequence not in left]
        at: list[GeneratingSequence | None] = [None] * len(kept)
        last = []
        for sequence in kept:
            if sequence.slot < len(kept):
                at[sequence.slot] = sequence
            else:
                last.append(sequence)
        for slot, there in enumerate(at):
            if there is None:
                self._move(last.pop(), slot, held.pop(slot))
        prefilling = [sequence for sequence in self.prefilling if sequence not in left]
        for slot, sequence in enumerate(prefilling, len(kept)):
            if sequence.slot != slot:
                self._move(sequence, slot, held.pop(slot, 0))
        for slot, tokens in held.items():
            self._cache.release(slot, tokens)
        # Not earlier: `clear` returns all of them if the cache fails.
        self.running, self.prefilling = sorted(kept, key=_slot), prefilling

    def clear(self) -> list[GeneratingSequence]:
        """Remove and return all sequences, whatever is in the cache."""
        gone = list(self)
        self.running, self.prefilling = [], []
        return gone

    def _move(self, sequence: GeneratingSequence, target: int, held: int = 0) -> None:
        """Move ``sequence`` to slot ``target``, which still has the ``held`` tokens of another one."""
        if sequence.length:
            self._cache.move(sequence.slot, target, sequence.length)
            self._cache.release(sequence.slot, sequence.length)
        if held > sequence.length:
            self._cache.release(target, held, sequence.length)
        sequence.slot = target


def _slot(sequence: GeneratingSequence) -> int:
    return sequence.slot


class TokenBudget:
    """Counts the tokens that are reserved in the cache.

    A sequence reserves all that it may need, its prompt and its ``max_tokens``, before it starts. So one that has
    started never waits for memory, and none has to be evicted. Invariant: ``reserved`` is from 0 to ``total``.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.reserved = 0

    @property
    def free(self) -> int:
        """The tokens that can be reserved."""
        return self.total - self.reserved

    def reserve(self, tokens: int) -> None:
        """Reserve ``tokens``, at most those that are `free`."""
        if tokens > self.free:
            raise ValueError(f"{tokens} tokens do not fit: {self.reserved} of {self.total} are reserved")
        self.reserved += tokens

    def release(self, tokens: int) -> None:
        """Give ``tokens`` back that were reserved."""
        if tokens > self.reserved:
            raise ValueError(f"{tokens} tokens were not reserved, only {self.reserved}")
        self.reserved -= tokens
