"""Which run is next, and when a waiting request starts."""

from inferd.generation.scheduler import DecodeStep, PrefillChunk, Scheduler
from inferd.generation.sequence import GeneratingSequence
from inferd.generation.slots import Slots, TokenBudget
from tests.generating import FakeDecoder, Generation, a_request, alone


def _slots(*requests, decoding=0, slots=4):
    """Place ``requests`` in slots; the first ``decoding`` have their whole prompts in the cache."""
    decoder = FakeDecoder(slots=slots)
    placed = Slots(decoder)
    for number, request in enumerate(requests):
        sequence = GeneratingSequence(request, 0.0)
        placed.add(sequence)
        if number < decoding:
            decoder.prefill(sequence.slot, request.prompt, 0)
            sequence.length = len(request.prompt)
            placed.finish_prefill()
    return placed


def _shape(run):
    """Return the slot and tokens of a chunk, or "step"."""
    return (
        (run.sequence.slot, run.tokens)
        if isinstance(run, PrefillChunk)
        else "step"
        if isinstance(run, DecodeStep)
        else run
    )


def test_nothing_to_run():
    """Without sequences there is no next run."""
    assert Scheduler(8).next_run(_slots()) is None


def test_runs_a_prompt_alone_chunk_after_chunk():
    """Without decoding sequences, no step comes between the chunks."""
    slots, scheduler = _slots(a_request(20)), Scheduler(8)
    for tokens in (8, 8, 4):
        run = scheduler.next_run(slots)
        assert _shape(run) == (0, tokens)
        run.sequence.length += run.tokens


def test_between_two_steps_there_is_one_chunk_of_a_long_prompt():
    """So decoding sequences get tokens while a prompt is prefilled."""
    slots, scheduler = _slots(a_request(3), a_request(30), decoding=1), Scheduler(8)
    shapes = []
    for _ in range(5):
        run = scheduler.next_run(slots)
        shapes.append(_shape(run))
        if isinstance(run, PrefillChunk):
            run.sequence.length += run.tokens
    assert shapes == [(1, 8), "step", (1, 8), "step", (1, 8)]


def test_short_prompts_share_the_time_of_a_chunk():
    """Several prompts run between two steps if they have no more tokens together than a chunk."""
    generation = Generation()
    first, others = a_request(8, 20), [a_request(3, 20) for _ in range(3)]
    generation.submit(first, *others)
    generation.run(7)
    kinds = [len(run) if len(run[0][1]) == 1 else f"{len(run[0][1])} tokens" for run in generation.decoder.runs]
    assert kinds == ["8 tokens", 1, "3 tokens", "3 tokens", 3, "3 tokens", 4]


def test_prefill_is_interrupted_by_a_higher_priority():
    """It continues afterwards, and both requests get the tokens that they get alone."""
    generation = Generation()
    long, urgent = a_request(40, 4, priority=2), a_request(20, 4, priority=1)
    generation.submit(long)
    generation.run(2)
    generation.submit(urgent)
    generation.run(3)
    assert len(urgent.receiver.tokens) == 1
    assert not long.receiver.tokens
    generation.finish()
    assert long.receiver.tokens == alone(long)
    assert urgent.receiver.tokens == alone(urgent)


def test_prefill_is_not_interrupted_by_its_own_priority():
    """Prompts of one priority are prefilled in order of arrival."""
    generation = Generation()
    first, second = a_request(40), a_request(3)
    generation.submit(first)
    generation.run()
    generation.submit(second)
    generation.run(4)
    assert len(first.receiver.tokens) == 1
    assert not second.receiver.tokens


def test_starts_requests_when_slot_and_tokens_are_free():
    """Not without a slot or enough tokens, nor during a prefill of the same priority."""
    scheduler, request = Scheduler(8), a_request(3, 4)
    assert scheduler.may_start(request, _slots(), TokenBudget(7))
    assert not scheduler.may_start(request, _slots(), TokenBudget(6))
    assert not scheduler.may_start(request, _slots(a_request(), decoding=1, slots=1), TokenBudget(100))
    assert scheduler.may_start(request, _slots(a_request(), decoding=1), TokenBudget(100))
    assert not scheduler.may_start(request, _slots(a_request()), TokenBudget(100))
    assert scheduler.may_start(request, _slots(a_request(priority=2)), TokenBudget(100))


def test_no_request_may_start_without_slots_or_during_an_urgent_prefill():
    """Not with full slots, nor while a prompt of the highest priority is prefilled."""
    scheduler = Scheduler(8)
    assert scheduler.may_start_any(_slots(a_request(), decoding=1))
    assert scheduler.may_start_any(_slots(a_request(priority=2)))
    assert not scheduler.may_start_any(_slots(a_request(priority=1)))
    assert not scheduler.may_start_any(_slots(a_request(), decoding=1, slots=1))


def test_small_requests_do_not_overtake_a_large_one():
    """A large request is next until enough tokens are free for it, although small ones would fit."""
    decoder = FakeDecoder(token_bytes=1024 * 1024 // 60)
    generation = Generation(decoder, cache_bytes=1024 * 1024)
    running, large = a_request(10, 20), a_request(20, 20)
    generation.submit(running)
    generation.run()
    small = [a_request(2, 2) for _ in range(3)]
    generation.submit(large, *small)
    generation.run(10)
    assert not any(request.receiver.tokens for request in small)
    generation.finish()
    assert all(request.receiver.is_complete for request in (running, large, *small))
