"""When a refused caller should come back."""

import pytest

from inferd.batching.drain import DrainRate, retry_after_s


def test_the_rate_is_rows_per_busy_second_of_all_workers():
    """Two workers that run 10 rows in half a second each make 40 rows a second."""
    drain = DrainRate(workers=2)
    drain.ran(10, 0.5)
    assert drain.rows_per_s == pytest.approx(40.0)


def test_the_rate_follows_what_happened_lately():
    """After twenty slow batches the fast ones before them count little."""
    drain = DrainRate(workers=1)
    for _ in range(20):
        drain.ran(10, 0.01)
    for _ in range(20):
        drain.ran(10, 1.0)
    assert drain.rows_per_s == pytest.approx(10.0, rel=0.2)


def test_nothing_is_known_before_the_first_batch():
    """No rate is made up; the hint is then a fixed one."""
    assert DrainRate(workers=1).rows_per_s is None
    assert retry_after_s(1000, None) == 1.0


@pytest.mark.parametrize(
    ("rows", "rate", "hint"), [(100, 200.0, 0.5), (1, 1e6, 0.01), (10**6, 1.0, 30.0), (0, 5.0, 0.01), (100, 0.0, 1.0)]
)
def test_the_hint_is_how_long_the_queue_takes_within_bounds(rows, rate, hint):
    """Rows over rows per second, neither nothing nor for ever."""
    assert retry_after_s(rows, rate) == pytest.approx(hint)
