"""Counting values into buckets."""

from hypothesis import given
from hypothesis import strategies as st

from inferd.observability.histogram import DURATION_BOUNDS_S, ROWS_BOUNDS, Histogram

VALUES = st.lists(st.floats(0, 100) | st.sampled_from(DURATION_BOUNDS_S))


@given(VALUES)
def test_each_bucket_counts_the_values_up_to_its_bound(values: list[float]) -> None:
    """The oracle counts anew for each bound; bounds themselves belong to their bucket."""
    histogram = Histogram(DURATION_BOUNDS_S)
    for value in values:
        histogram.observe(value)
    expected = [sum(value <= bound for value in values) for bound in DURATION_BOUNDS_S]
    assert [count for _, count in histogram.buckets()] == [*expected, len(values)]
    assert histogram.count == len(values)


@given(VALUES, VALUES)
def test_many_at_once_is_one_by_one(first: list[float], second: list[float]) -> None:
    """Also when two histograms are added."""
    single, many, other = (Histogram(DURATION_BOUNDS_S) for _ in range(3))
    for value in (*first, *second):
        single.observe(value)
    many.observe_all(first)
    other.observe_all(second)
    many.add(other)
    assert many.buckets() == single.buckets()
    assert abs(many.sum - single.sum) <= 1e-9 * single.sum


def test_a_copy_stays_as_it_was() -> None:
    """A scrape reads while requests go on."""
    histogram = Histogram(ROWS_BOUNDS)
    histogram.observe(3)
    copy = histogram.copy()
    histogram.observe(3)
    assert (copy.count, copy.sum, histogram.count) == (1, 3.0, 2)


def test_bounds() -> None:
    """From 100 microseconds to 10 seconds, and powers of two to 1024, in Prometheus' notation."""
    assert [le for le, _ in Histogram(DURATION_BOUNDS_S).buckets()][:2] == ["0.0001", "0.00025"]
    assert DURATION_BOUNDS_S[-1] == 10.0
    assert [le for le, _ in Histogram(ROWS_BOUNDS).buckets()] == [
        *("1.0", "2.0", "4.0", "8.0", "16.0", "32.0", "64.0", "128.0", "256.0", "512.0", "1024.0", "+Inf")
    ]
