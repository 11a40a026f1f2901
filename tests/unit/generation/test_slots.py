"""The places of sequences in the cache."""

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


@given(st.lists(st.tuples(st.sampled_from(["join", "prefilled", "leave"]), st.sets(st.integers(0, _SLOTS - 1)))))
def test_sequences_are_next_to_each_other_with_what_they_hold(actions):
    """Whatever joins and leaves: running ones from slot 0, then those that are prefilling."""
    decoder = FakeDecoder(slots=_SLOTS)
    slots = Slots(decoder)
    tokens = 0
    for action, which in actions:
        if action == "join" and slots.free:
            tokens += 1
            _add(slots, decoder, 1 + tokens % 7)
        elif action == "prefilled" and slots.prefilling:
            slots.finish_prefill()
        elif action == "leave":
            slots.remove([sequence for sequence in slots if sequence.slot in which])
        assert [sequence.slot for sequence in slots] == list(range(len(slots)))
        assert len(slots) + slots.free == _SLOTS
        assert decoder.held_tokens == sum(sequence.length for sequence in slots)


def test_few_are_moved(monkeypatch):
    """Only as many of the last ones as there are holes; the memory of a hole is used again as it is."""
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
    """It raises before."""
    budget = TokenBudget(10)
    budget.reserve(7)
    assert budget.free == 3
    with pytest.raises(ValueError, match="4 tokens do not fit"):
        budget.reserve(4)
    budget.release(7)
    with pytest.raises(ValueError, match="were not reserved"):
        budget.release(1)


def test_all_are_there_when_the_cache_fails():
    """Those that were leaving too, so that all are failed and their budget is free again."""
    decoder = FakeDecoder(slots=_SLOTS)
    slots = Slots(decoder)
    sequences = [_add(slots, decoder, tokens) for tokens in (1, 2)]
    slots.finish_prefill()
    [gone] = slots.decoding
    decoder.move = lambda *_arguments: failing()
    with pytest.raises(RunFailedError):
        slots.remove([gone])
    assert set(slots.clear()) == set(sequences)
