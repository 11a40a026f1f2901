"""Predicted completion times, the rate of the queue, early rejections and retry hints."""

import pytest

from inferd.generation.forecast import CacheLoad, GenerationForecast
from tests.generating import a_request

_FREE = CacheLoad(sequences=0, free_slots=4, free_tokens=4000)
_FULL = CacheLoad(sequences=4, free_slots=0, free_tokens=0)
_CHUNK = 10


def _forecast(**fields):
    """Return a forecast in which a step takes 0.1 s, and a chunk 0.02 s for each token."""
    forecast = GenerationForecast(
        **{"slots": 4, "total_tokens": 4000, "chunk_tokens": _CHUNK, "max_delay_s": 30.0, "jitter": lambda: 0.0}
        | fields
    )
    forecast.times.seed([(1, 0.1), (4, 0.1)], [(1, 0.02), (_CHUNK, 0.2)])
    return forecast


def test_refuses_nothing_while_nothing_is_known():
    """No deadline is too close, the queue has its full limit, and the retry hint is a second."""
    forecast = GenerationForecast(slots=4, total_tokens=4000, chunk_tokens=_CHUNK, max_delay_s=30.0)
    request = a_request(10, 10, deadline=100.001)
    assert not forecast.would_miss_deadline(request, 0, _FREE, 100.0)
    assert forecast.row_limit(10_000, _FULL) == 10_000
    assert forecast.retry_after_s(1000) == 1.0


def test_predicts_a_request_alone():
    """Alone, a request takes its chunks, and a step for each token but the first."""
    assert _forecast().predict_completion_s(a_request(25, 11), 0, _FREE) == pytest.approx(0.5 + 1.0)


def test_predicts_a_request_beside_others():
    """Beside decoding sequences, a step follows each chunk of its prompt."""
    load = CacheLoad(sequences=2, free_slots=2, free_tokens=1000, prompt_tokens=20)
    assert _forecast().predict_completion_s(a_request(25, 11), 0, load) == pytest.approx(0.4 + 0.5 + 0.3 + 1.0)


def test_rate_is_that_of_a_full_cache():
    """A request of 10 + 40 tokens takes 0.2 s of chunks, and a quarter of 40 steps."""
    forecast = _forecast()
    forecast.lengths.admitted(a_request(10, 40))
    assert forecast.tokens_per_s == pytest.approx(50 / (0.2 + 40 * 0.1 / 4))


def test_rate_of_a_small_cache():
    """Only two requests of 10 + 40 tokens fit into the cache, so each has half of a step."""
    forecast = _forecast(total_tokens=120)
    forecast.lengths.admitted(a_request(10, 40))
    assert forecast.tokens_per_s == pytest.approx(50 / (0.2 + 40 * 0.1 / 2))


def test_rate_follows_the_length_of_answers():
    """Once enough answers have ended, their average length replaces max_tokens."""
    forecast = _forecast()
    for _ in range(20):
        request = a_request(10, 40, ends=True)
        forecast.lengths.admitted(request)
        forecast.learn(request, 4, "stop", 100.0)
    assert forecast.tokens_per_s == pytest.approx(50 / (0.2 + 4 * 0.1 / 4))


def test_limit_is_what_starts_within_the_delay():
    """The limit is the tokens that can start immediately, and those that the rate starts within the delay."""
    forecast = _forecast(max_delay_s=2.0)
    forecast.lengths.admitted(a_request(10, 40))
    rate = forecast.tokens_per_s
    assert forecast.row_limit(10_000, _FULL) == int(2.0 * rate)
    assert forecast.row_limit(10_000, _FREE) == int(4 * 50 + 2.0 * rate)
    assert forecast.row_limit(50, _FREE) == 50
    assert _forecast(max_delay_s=0.0).row_limit(10_000, _FULL) == 10_000


def test_hint_is_what_the_waiting_tokens_take():
    """It is at most the delay limit, unless the queue is still full then; never more than 30 s."""
    forecast = _forecast(max_delay_s=10.0)
    forecast.lengths.admitted(a_request(10, 40))
    rate = forecast.tokens_per_s
    assert forecast.retry_after_s(100) == pytest.approx(100 / rate)
    assert forecast.retry_after_s(int(15 * rate)) == 10.0
    assert forecast.retry_after_s(int(25 * rate)) == pytest.approx(15.0, rel=0.01)
    assert forecast.retry_after_s(1_000_000) == 30.0


def test_answers_are_as_long_as_others_with_such_a_limit():
    """Without stop conditions, an answer has max_tokens; with too few answers to tell, one token unless others wait."""
    lengths = _forecast().lengths
    assert lengths.expected_answer_tokens(a_request(5, 1000), is_contended=False) == 1000
    unknown = a_request(5, 1000, ends=True)
    lengths.admitted(unknown)
    assert lengths.expected_answer_tokens(unknown, is_contended=False) == 1
    assert lengths.expected_answer_tokens(unknown, is_contended=True) == 1000
    for _ in range(20):
        lengths.ended(unknown, 50, complete=True)
        lengths.ended(a_request(5, 10, ends=True), 10, complete=True)
    assert lengths.expected_answer_tokens(unknown, is_contended=False) == 50
    assert lengths.expected_answer_tokens(a_request(5, 9, ends=True), is_contended=False) == 9
    assert lengths.expected_answer_tokens(a_request(5, 30, ends=True), is_contended=False) == 1


def test_error_factor_follows_actual_times():
    """A late request widens the margin at once; requests in time narrow it slowly, and cancelled ones do not count."""
    forecast = _forecast()
    request = a_request(10, 10)
    request.enqueued_at, request.expected_s = 100.0, 1.0
    before = forecast.error_factor
    forecast.learn(request, 10, "length", 100.0 + 1.01 * before)
    widened = forecast.error_factor
    assert widened > before
    for _ in range(10):
        forecast.learn(request, 10, "length", 100.5)
    assert before < forecast.error_factor < widened
    narrow = forecast.error_factor
    forecast.learn(request, 1, "cancelled", 200.0)
    assert forecast.error_factor == narrow


def test_refuses_nothing_by_old_measurements():
    """A model that was slow once is tried again when the last run is more than ten seconds ago."""
    forecast = _forecast()
    for _ in range(3):
        forecast.times.chunk_ran(10, 5.0, 100.0)
        forecast.times.step_ran(1, 5.0, 100.0)
    request = a_request(10, 10, deadline=110.0)
    assert forecast.would_miss_deadline(request, 0, _FREE, 101.0)
    request.deadline = 130.0
    assert not forecast.would_miss_deadline(request, 0, _FREE, 121.0)
