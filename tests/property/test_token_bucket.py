"""A token bucket keeps its rate for any amounts and times."""

from hypothesis import given
from hypothesis import strategies as st

from inferd.security.authorization.quota import TokenBucket

rates = st.floats(0.1, 1e6)
steps = st.lists(st.tuples(st.floats(0, 10), st.integers(1, 10_000)), max_size=50)


@given(rate=rates, steps=steps)
def test_takes_at_most_rate_burst_and_one_amount(rate: float, steps: list) -> None:
    """Over any time: the burst, what the rate adds, and the largest single amount."""
    bucket, now, taken, largest = TokenBucket(rate, rate, 0.0), 0.0, 0, 0
    for pause, amount in steps:
        now += pause
        if bucket.wait_s(amount, now) == 0:
            bucket.take(amount)
            taken += amount
            largest = max(largest, amount)
    assert taken <= rate * now + rate + largest + 1e-6 * (taken + 1)


@given(rate=rates, steps=steps, amount=st.integers(1, 10_000))
def test_wait_is_exact(rate: float, steps: list, amount: int) -> None:
    """After it the amount can be taken, and not after half of it."""
    bucket, now = TokenBucket(rate, rate, 0.0), 0.0
    for pause, each in steps:
        now += pause
        if bucket.wait_s(each, now) == 0:
            bucket.take(each)
    wait_s = bucket.wait_s(amount, now)
    if wait_s > 1e-3:
        assert bucket.wait_s(amount, now + wait_s / 2) > 0
    assert bucket.wait_s(amount, now + wait_s * (1 + 1e-6) + 1e-6) == 0


@given(rate=rates, pauses=st.lists(st.floats(0, 10), max_size=30), back=st.floats(0, 100))
def test_ignores_a_clock_that_steps_back(rate: float, pauses: list[float], back: float) -> None:
    """An earlier time adds no tokens."""
    bucket, now = TokenBucket(rate, rate, 0.0), 0.0
    bucket.take(3 * rate)
    for pause in pauses:
        now += pause
    before = bucket.wait_s(1, now)
    assert bucket.wait_s(1, now - back) == before
