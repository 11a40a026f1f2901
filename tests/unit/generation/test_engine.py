"""The engine of a language model: deltas and errors of its requests. The test makes each run of the model."""

import numpy as np
import pytest

from inferd.config.settings import Backpressure, QueueSettings
from inferd.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    InvalidInputError,
    ModelUnavailableError,
    OutOfMemoryError,
    OverloadedError,
    RunTooLongError,
)
from inferd.generation.engine import require_policy
from inferd.generation.request import FinishReason
from inferd.runtime.errors import ModelLoadError, RunFailedError
from tests.generating import END, VOCABULARY, FakeDecoder, Generation, a_request, alone, failing, sampled


def _callbacks_posted_by_a_run(generation):
    """Make a run; return the callbacks that it gave to the poll thread."""
    generation.poll_thread.busy = True
    generation.run()
    posted = len(generation.poll_thread.soon)
    generation.poll_thread.run_soon()
    generation.poll_thread.busy = False
    return posted


def test_streams_tokens_one_by_one_and_a_last_delta():
    """Each delta has one token; the last one has the finish reason and the usage."""
    generation, request = Generation(FakeDecoder(run_s=0.5)), a_request(prompt=3, max_tokens=3)
    generation.submit(request)
    generation.finish()
    deltas = request.receiver.deltas
    assert [len(delta.token_ids) for delta in deltas] == [1, 1, 1]
    assert [delta.finish_reason for delta in deltas] == [None, None, FinishReason.LENGTH]
    usage = deltas[-1].usage
    assert (usage.prompt_tokens, usage.generated_tokens) == (3, 3)
    assert (usage.queue_s, usage.first_token_s) == (0.0, 0.5)


def test_stops_at_an_end_token():
    """The end token is the last one of the answer, and the finish reason is STOP."""
    for first in range(2, VOCABULARY):
        generation, request = Generation(), a_request([first], max_tokens=60, ends=True)
        generation.submit(request)
        generation.finish()
        *others, last = request.receiver.tokens
        assert END not in others
        assert (last == END) == (request.receiver.deltas[-1].finish_reason is FinishReason.STOP)


def test_posts_the_tokens_of_a_step_in_one_call():
    """The poll thread is woken once for a step of four sequences."""
    generation, requests = Generation(), [a_request(prompt=n + 1, max_tokens=9) for n in range(4)]
    generation.submit(*requests)
    while generation.engine.loop.slots.free or generation.engine.loop.slots.prefilling:
        generation.run()
    before = [len(request.receiver.deltas) for request in requests]
    assert _callbacks_posted_by_a_run(generation) == 1
    assert [len(request.receiver.deltas) for request in requests] == [count + 1 for count in before]


def test_posts_nothing_for_a_part_of_a_prompt():
    """A chunk that is not the last one of its prompt does not wake the poll thread."""
    generation = Generation()
    generation.submit(a_request(prompt=20))
    assert _callbacks_posted_by_a_run(generation) == 0


def test_cancel_frees_the_cache_before_the_next_run():
    """Both of a decoding and of a prefilling request; the tokens of the other one are those that it gets alone."""
    decoder = FakeDecoder()
    generation = Generation(decoder)
    running, prefilling, other = (
        a_request(prompt=3, max_tokens=50),
        a_request(prompt=40),
        a_request(prompt=5, max_tokens=20),
    )
    generation.submit(running, other)
    generation.run(4)
    generation.submit(prefilling)
    generation.run(2)
    assert generation.engine.running == 3
    generation.cancel(running)
    generation.cancel(prefilling)
    generation.run()
    assert generation.engine.running == 1
    assert generation.engine.cache_bytes_in_use == other.rows * decoder.cache_bytes_per_token
    generation.finish()
    assert other.receiver.tokens == alone(other)
    assert generation.stats.read().finished["cancelled"] == 2


def test_cancel_during_a_run_discards_its_tokens():
    """The receiver of a cancelled request is never called again."""
    decoder = FakeDecoder()
    generation, request = Generation(decoder), a_request(max_tokens=9)
    generation.submit(request)
    generation.run(2)
    decoder.during = lambda: request.receiver.is_cancelled or generation.cancel(request)
    generation.finish()
    assert len(request.receiver.tokens) == 2
    assert not request.receiver.calls_after_end


def test_cancel_of_a_waiting_request_makes_room_at_once():
    """The next request is admitted before any run."""
    generation = Generation(max_waiting_requests=1)
    first, second = a_request(), a_request()
    generation.submit(first)
    generation.cancel(first)
    assert generation.engine.waiting == generation.engine.unanswered_requests == 0
    generation.submit(second)
    generation.finish()
    assert second.receiver.is_complete


def test_cancelling_twice_or_after_the_end_does_nothing():
    """A request is counted once, whatever order its end and its cancels come in."""
    generation, request = Generation(), a_request()
    generation.submit(request)
    generation.finish()
    generation.engine.cancel(request)
    generation.engine.cancel(request)
    assert generation.stats.read().finished == {"stop": 0, "length": 1, "cancelled": 0, "deadline": 0, "error": 0}


def test_expires_running_requests_after_the_tokens_that_they_have():
    """The request keeps the tokens of all runs that ended before its deadline, and then fails."""
    generation = Generation(FakeDecoder(run_s=1.0))
    request = a_request(max_tokens=20, deadline=103.5)
    generation.submit(request)
    generation.finish()
    assert isinstance(request.receiver.error, DeadlineExceededError)
    assert len(request.receiver.tokens) == 4
    assert generation.stats.read().finished["deadline"] == 1


def test_cancelled_requests_that_expire_too_are_removed_once():
    """The request counts as cancelled, and the other one gets the tokens that it gets alone."""
    generation, cancelled, other = Generation(), a_request(max_tokens=20, deadline=101.0), a_request(max_tokens=20)
    generation.submit(cancelled, other)
    generation.run(5)
    generation.cancel(cancelled)
    generation.clock.advance(2.0)
    generation.finish()
    assert other.receiver.tokens == alone(other)
    assert generation.stats.read().finished == {"stop": 0, "length": 1, "cancelled": 1, "deadline": 0, "error": 0}


def test_expires_waiting_requests_by_a_timer():
    """A waiting request fails at its deadline although no run ends."""
    generation = Generation(FakeDecoder(slots=1))
    running, waiting = a_request(max_tokens=20), a_request(deadline=101.0)
    generation.submit(running)
    generation.run()
    generation.submit(waiting)
    generation.clock.advance(1.01)
    generation.poll_thread.fire_due()
    assert isinstance(waiting.receiver.error, DeadlineExceededError)
    assert generation.engine.waiting == 0


def test_failed_step_fails_only_the_sequence_that_cannot_run():
    """The step is repeated for each sequence alone, and the others get the tokens that they get alone."""
    decoder = FakeDecoder()
    generation, requests = Generation(decoder), [a_request(prompt=n + 1, max_tokens=8) for n in range(3)]
    generation.submit(*requests)
    generation.run(6)

    failed = requests[1]
    decoder.fails = lambda run: failing() if any(slot == 1 for slot, _, _ in run) else None
    generation.run()
    decoder.fails = lambda run: None
    generation.finish()
    assert isinstance(failed.receiver.error, InferenceFailedError)
    for request in (requests[0], requests[2]):
        assert request.receiver.tokens == alone(request)


def test_failed_chunk_fails_its_request():
    """The next request is served as if it were alone."""
    decoder = FakeDecoder()
    generation, bad, good = Generation(decoder), a_request(prompt=20), a_request(prompt=4)
    decoder.fails = lambda run: failing() if len(run[0][1]) == 8 and run[0][2] == 8 else None
    generation.submit(bad, good)
    generation.finish()
    assert isinstance(bad.receiver.error, InferenceFailedError)
    assert good.receiver.tokens == alone(good)


def test_serves_again_after_all_runs_failed():
    """All requests fail and free the cache; one that comes when the model runs again is served."""
    decoder = FakeDecoder()
    generation, requests = Generation(decoder), [a_request() for _ in range(9)]
    decoder.fails = failing
    generation.submit(*requests)
    generation.finish()
    assert all(isinstance(request.receiver.error, InferenceFailedError) for request in requests)
    decoder.fails = lambda run: None
    generation.submit(late := a_request())
    generation.finish()
    assert late.receiver.is_complete
    assert generation.engine.cache_bytes_in_use == 0


def test_run_without_memory_is_an_out_of_memory_error():
    """Clients do not retry that error, unlike other failures."""
    decoder = FakeDecoder()

    def fails(_run):
        raise RunFailedError(MemoryError())

    decoder.fails = fails
    generation, request = Generation(decoder), a_request()
    generation.submit(request)
    generation.finish()
    assert isinstance(request.receiver.error, OutOfMemoryError)


def test_fails_requests_whose_logits_are_nan():
    """A row without a token to choose fails its request."""
    decoder = FakeDecoder()
    decoder._write = lambda *_: np.full(VOCABULARY, np.nan, dtype=np.float32)
    generation, request = Generation(decoder), a_request()
    generation.submit(request)
    generation.run()
    assert isinstance(request.receiver.error, InferenceFailedError)


def test_survives_a_fault_of_the_cache():
    """All requests end with an error, their tokens are free again, and later requests are served."""
    decoder = FakeDecoder()
    generation, requests = Generation(decoder), [a_request(max_tokens=3), a_request(max_tokens=9)]
    generation.submit(*requests)
    release, decoder.release = decoder.release, lambda *_arguments: failing()
    generation.engine.loop.run_once()
    while generation.is_busy:
        generation.engine.loop.run_once()
    assert all(request.receiver.has_ended for request in requests)
    assert generation.engine.cache_bytes_in_use == 0
    decoder.release = release
    generation.submit(late := a_request())
    while generation.is_busy:
        generation.engine.loop.run_once()
    assert late.receiver.tokens == alone(late)


def test_broken_receiver_does_not_disturb_other_requests():
    """An exception of one receiver ends neither the engine nor the requests of others."""
    generation, broken, other = Generation(), a_request(), a_request()
    broken.receiver.on_delta = failing
    generation.submit(broken, other)
    generation.finish()
    assert other.receiver.is_complete
    assert generation.engine.unanswered_requests == 0


def test_refuses_requests_larger_than_the_cache():
    """The message has the number of tokens that fit, and those of the request."""
    decoder = FakeDecoder(token_bytes=1024 * 1024 // 20)
    generation = Generation(decoder, cache_bytes=1024 * 1024)
    request = a_request(prompt=10, max_tokens=11)
    generation.submit(request)
    assert isinstance(request.receiver.error, InvalidInputError)
    assert "at most 20 tokens" in request.receiver.error.message
    assert "got 10 and 11" in request.receiver.error.message


def test_refuses_a_cache_of_less_than_two_tokens():
    """A prompt and one generated token need two."""
    with pytest.raises(ModelLoadError, match=r"generation\.cache_bytes: expected at least"):
        Generation(FakeDecoder(token_bytes=1024 * 1024), cache_bytes=1024 * 1024)


@pytest.mark.parametrize("policy", [policy for policy in Backpressure if policy is not Backpressure.CALLER_RUNS])
def test_policies_of_language_models(policy):
    """All policies but caller_runs are supported."""
    require_policy(QueueSettings(policy=policy))


def test_caller_runs_is_refused():
    """The policy runs requests outside the queue, and a sequence cannot run outside the cache."""
    with pytest.raises(ModelLoadError, match="expected reject, block or shed_oldest"):
        Generation(queue={"policy": "caller_runs"})


def test_fails_the_sequences_of_a_run_at_its_time_limit():
    """Their error comes while the run is still in progress; waiting requests are served after it."""
    decoder = FakeDecoder()
    generation, slow, waiting = Generation(decoder, max_run_s=5.0), a_request(), a_request(prompt=20)
    errors = []

    def hang():
        decoder.during = lambda: None
        generation.clock.advance(5.0)
        generation.alarm.fire_due()
        errors.append(slow.receiver.error)
        failing()

    decoder.during = hang
    generation.submit(slow, waiting)
    generation.finish()
    assert decoder.stops == 1
    assert isinstance(errors[0], RunTooLongError)
    assert waiting.receiver.tokens == alone(waiting)
    assert generation.stats.read().finished["error"] == 1


def test_refuses_requests_while_a_run_does_not_end():
    """Waiting and new requests are rejected, and the engine reports a stuck thread, until the run ends."""
    decoder = FakeDecoder()
    generation = Generation(decoder, max_run_s=5.0)
    slow, waiting, meanwhile, later = a_request(), a_request(), a_request(), a_request()

    def hang():
        decoder.during = lambda: None
        generation.clock.advance(5.0)
        generation.alarm.fire_due()
        assert generation.engine.why_broken == ""
        generation.clock.advance(1.0)
        generation.alarm.fire_due()
        assert generation.engine.why_broken
        assert generation.engine.stuck_threads == 1
        generation.submit(meanwhile)

    decoder.during = hang
    generation.submit(slow, waiting)
    generation.run(3)
    for request in (waiting, meanwhile):
        assert isinstance(request.receiver.error, OverloadedError)
        assert request.receiver.error.reason == "RUNS_STUCK"
    assert generation.engine.why_broken == ""
    generation.submit(later)
    generation.finish()
    assert later.receiver.tokens == alone(later)


def test_runs_within_the_limit_are_left_alone():
    """The alarm of an early run does not stop a later one."""
    decoder = FakeDecoder(run_s=4.0)
    generation, request = Generation(decoder, max_run_s=5.0), a_request(max_tokens=9)
    generation.submit(request)
    while generation.is_busy:
        generation.run()
        generation.alarm.fire_due()
    assert request.receiver.is_complete
    assert decoder.stops == 0


def test_reports_requests_tokens_and_bytes():
    """Running and waiting requests, their tokens, and the reserved part of the cache, for metrics and health."""
    decoder = FakeDecoder(slots=1)
    generation = Generation(decoder)
    assert generation.engine.cache_bytes == 64 * 1024
    assert generation.engine.max_request_tokens == 64
    generation.submit(a_request(prompt=3, max_tokens=4), a_request(prompt=5, max_tokens=6))
    generation.run()
    engine = generation.engine
    assert (engine.running, engine.waiting, engine.waiting_tokens) == (1, 1, 11)
    assert engine.cache_bytes_in_use == 7 * 1024
    assert engine.unanswered_requests == 2
    assert engine.last_dispatch_at == 100.0
    assert not engine.is_hopeless


def test_counts_tokens_runs_and_ends():
    """Prompt and generated tokens, first tokens, intervals and finish reasons of two requests."""
    generation = Generation(FakeDecoder(run_s=0.1))
    requests = [a_request(prompt=10, max_tokens=3, sampling=sampled(n)) for n in range(2)]
    generation.submit(*requests)
    generation.finish()
    counts = generation.stats.read()
    assert (counts.prompt_tokens, counts.generated_tokens, counts.offered_tokens) == (20, 6, 26)
    assert counts.finished["length"] == 2
    assert counts.first_token_s.count == 2
    assert counts.token_interval_s.count == 4


def test_refuses_requests_after_stop():
    """An engine whose thread never started stops at once."""
    generation, request = Generation(), a_request()
    assert generation.engine.stop(0.0)
    generation.submit(request)
    assert isinstance(request.receiver.error, ModelUnavailableError)
