"""When a refused caller should come back."""

import pytest

from inferd.batching.cost_model import CostModel
from inferd.batching.forecast import DrainRate, Forecast


def test_the_rate_is_what_is_taken_while_something_is_left():
    """Ten rows every half second; whose worker took them does not matter."""
    drain = DrainRate()
    for number in range(4):
        drain.taken(10, 0.5 * number, left=1)
    assert drain.rows_per_s == pytest.approx(20.0)


def test_idle_time_does_not_count():
    """A queue that was taken empty says nothing about how fast it could have been."""
    drain = DrainRate()
    drain.taken(10, 0.0, left=5)
    drain.taken(5, 0.5, left=0)
    drain.taken(1, 100.0, left=0)
    drain.taken(1, 200.0, left=0)
    assert drain.rows_per_s == pytest.approx(20.0)


def test_the_rate_follows_what_happened_lately():
    """After a hundred slow batches the fast ones before them count little."""
    drain = DrainRate()
    for number in range(100):
        drain.taken(10, 0.01 * number, left=1)
    for number in range(100):
        drain.taken(10, 1.0 + number, left=1)
    assert drain.rows_per_s == pytest.approx(10.0, rel=0.02)


def test_a_batch_that_was_cut_off_does_not_count():
    """A minute in which nothing was taken was one request's doing."""
    drain = DrainRate()
    drain.taken(10, 0.0, left=5)
    drain.taken(10, 0.5, left=5)
    drain.interrupted()
    drain.taken(10, 60.5, left=5)
    drain.taken(10, 61.0, left=5)
    assert drain.rows_per_s == pytest.approx(20.0)


def test_nothing_is_known_before_the_first_batch():
    """There is no rate yet; the retry delay is then fixed."""
    assert DrainRate().rows_per_s is None
    assert _hint(1000, None) == 1.0


@pytest.mark.parametrize(
    ("rows", "rate", "hint"), [(100, 200.0, 0.5), (1, 1e6, 0.01), (10**6, 1.0, 30.0), (0, 5.0, 0.01), (100, 0.0, 1.0)]
)
def test_the_hint_is_how_long_the_queue_takes_within_bounds(rows, rate, hint):
    """Rows over rows per second, neither nothing nor forever."""
    assert _hint(rows, rate) == pytest.approx(hint)


def test_hints_are_spread_over_half_the_drain_time():
    """Clients that were rejected together must not come back together."""
    assert _hint(100, 200.0, jitter=1.0) == pytest.approx(0.25)


@pytest.mark.parametrize(("rows", "rate", "hint"), [(100, 1000.0, 0.1), (100, 200.0, 0.25), (100, 10.0, 0.8)])
def test_a_hint_is_within_the_delay_limit_or_one_batch(rows, rate, hint):
    """A slow model has more waiting than the limit allows, and room for a batch with each one dispatched."""
    assert _hint(rows, rate, max_delay_s=0.25) == pytest.approx(hint)


def _hint(rows, rate, jitter=0.0, max_delay_s=0.0):
    forecast = Forecast(CostModel(), max_rows=8, workers=1, max_delay_s=max_delay_s, jitter=lambda: jitter)
    forecast.drain.rows_per_s = rate
    return forecast.retry_after_s(rows)
