"""The counts and durations that the engine reports for metrics."""

import pytest

from tests.generating import FakeDecoder, Generation, a_request, failing

RUN_S = 0.25


@pytest.fixture
def generation():
    """An engine whose runs take a quarter of a second each."""
    return Generation(FakeDecoder(slots=2, token_bytes=100, run_s=RUN_S))


def test_durations_of_a_request(generation):
    """A prompt of two chunks, the second of which gives the first token, and a step for each further token."""
    generation.clock.advance(1.0)
    generation.submit(a_request(10, 3))
    generation.clock.advance(2.0)
    generation.finish()
    counts = generation.stats.read()
    assert (counts.first_token_s.count, counts.first_token_s.sum) == (1, 1.0 + 2.0 + 2 * RUN_S)
    assert (counts.token_interval_s.count, counts.token_interval_s.sum) == (2, 2 * RUN_S)
    assert counts.prefill_s.sum == counts.prefill_run_s == 2 * RUN_S
    assert counts.duration_s.sum == 3.0 + 4 * RUN_S
    assert generation.engine.statistics().queue_s.sum == 2.0


def test_tokens_and_runs(generation):
    """A prefill run counts the tokens of its chunk, a decode step one token for each sequence."""
    generation.submit(a_request(10, 3), a_request(8, 3))
    generation.finish()
    counts = generation.stats.read()
    assert (counts.prompt_tokens, counts.generated_tokens, counts.offered_tokens) == (18, 6, 24)
    assert counts.run_tokens.sum == 18 + 4
    assert counts.request_max_tokens.sum == 6
    statistics = generation.engine.statistics()
    assert statistics.success.count == 2
    assert statistics.execution_count == counts.run_tokens.count == len(generation.decoder.runs)


def test_finish_reasons(generation):
    """Each admitted request is counted once, with one finish reason; a rejected one is not counted."""
    requests = [a_request(3, 4), a_request(3, 20), a_request(3, 9, deadline=100.0 + 6.5 * RUN_S), a_request(3, 4)]
    generation.submit(*requests)
    generation.run(3)
    generation.cancel(requests[0])
    generation.cancel(requests[3])
    generation.finish()
    generation.decoder.fails = failing
    generation.submit(a_request(3, 4))
    generation.finish()
    generation.submit(a_request(3, 4, deadline=99.0))
    assert generation.stats.read().finished == {"stop": 0, "length": 1, "cancelled": 2, "deadline": 1, "error": 1}
    assert generation.engine.statistics().model_failures == 1


def test_sample(generation):
    """Running and waiting requests, reserved bytes, and the capacity, which is 0 while it is unknown."""
    assert generation.engine.sample().capacity_tokens_per_s == 0
    generation.submit(*[a_request(3, 5) for _ in range(3)])
    generation.run(3)
    sample = generation.engine.sample()
    assert (sample.running, sample.max_running, sample.waiting, sample.waiting_tokens) == (2, 2, 1, 8)
    assert (sample.cache_bytes, sample.cache_used_bytes) == (2 * 64 * 100, 2 * 8 * 100)
    generation.finish()
    sample = generation.engine.sample()
    assert (sample.running, sample.waiting, sample.cache_used_bytes) == (0, 0, 0)
    # Two requests take two runs over prompts, and five steps together by the forecast.
    assert sample.capacity_tokens_per_s == pytest.approx(16 / (2 * RUN_S + 5 * RUN_S))


def test_rejections():
    """Rejected requests are counted by reason, and their tokens are offered tokens."""
    full = Generation(FakeDecoder(slots=1), max_waiting_requests=1)
    full.submit(a_request(3, 5))
    full.run()
    full.submit(a_request(3, 5), a_request(3, 5))
    assert full.engine.statistics().rejected["QUEUE_FULL"] == 1
    assert full.stats.read().offered_tokens == 24
