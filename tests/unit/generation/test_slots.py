"""Slots of sequences in the cache, and the token budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.generation.sequence import GeneratingSequence
from inferd.generation.slots import Slots, TokenBudget
from inferd.runtime.errors import RunFailedError
from tests.generating import FakeDecoder, a_request, failing

_SLOTS = 6


def _add(slots, decoder, tokens):
    sequence = GeneratingSequence(a_request(tokens), 0.0)
    slots.add(sequence)
    decoder.prefill(sequence.slot, sequence.request.prompt, 0)
    sequence.length = tokens
    return sequence


@given(st.lists(st.tuples(st.sampled_from(["add", "finish_prefill", "remove"]), st.sets(st.integers(0, _SLOTS - 1)))))
def test_sequences_have_adjacent_slots_and_keep_their_tokens(actions):
    """After any additions and removals, decoding sequences have the slots from 0, then come the prefilling ones."""
    decoder = FakeDecoder(slots=_SLOTS)
    slots = Slots(decoder)
    tokens = 0
    for action, which in actions:
        if action == "add" and slots.free:
            tokens += 1
            _add(slots, decoder, 1 + tokens % 7)
        elif action == "finish_prefill" and slots.prefilling:
            slots.finish_prefill()
        elif action == "remove":
            slots.remove([sequence for sequence in slots if sequence.slot in which])
        assert [sequence.slot for sequence in slots] == list(range(len(slots)))
        assert len(slots) + slots.free == _SLOTS
        assert decoder.held_tokens == sum(sequence.length for sequence in slots)


def test_moves_as_few_sequences_as_possible(monkeypatch):
    """Only the last sequences fill free slots, whose memory is overwritten and not released."""
    decoder = FakeDecoder(slots=_SLOTS)
    released, release = [], decoder.release
    monkeypatch.setattr(decoder, "release", lambda *what: (released.append(what), release(*what)))
    slots = Slots(decoder)
    sequences = []
    for tokens in range(1, 7):
        sequences.append(_add(slots, decoder, tokens))
        slots.finish_prefill()
    slots.remove([sequences[0], sequences[4]])
    assert decoder.moves == [(5, 0, 6)]
    assert released == [(5, 6), (4, 5)]
    assert [sequence.slot for sequence in sequences[1:4]] == [1, 2, 3]


def test_budget_is_never_exceeded():
    """More tokens than are free or reserved are errors."""
    budget = TokenBudget(10)
    budget.reserve(7)
    assert budget.free == 3
    with pytest.raises(ValueError, match="4 tokens do not fit"):
        budget.reserve(4)
    budget.release(7)
    with pytest.raises(ValueError, match="were not reserved"):
        budget.release(1)


def test_clear_returns_all_sequences_after_the_cache_fails():
    """Those that were being removed too, so that all are failed and their tokens are free again."""
    decoder = FakeDecoder(slots=_SLOTS)
    slots = Slots(decoder)
    sequences = [_add(slots, decoder, tokens) for tokens in (1, 2)]
    slots.finish_prefill()
    [removed] = slots.decoding
    decoder.move = lambda *_arguments: failing()
    with pytest.raises(RunFailedError):
        slots.remove([removed])
    assert set(slots.clear()) == set(sequences)
