"""Counting values into buckets."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.samples import Exemplar

from inferd.config.settings import Settings
from inferd.observability.metrics.histogram import DURATION_BOUNDS_S, ROWS_BOUNDS, Histogram

VALUES = st.lists(st.floats(0, 100) | st.sampled_from(DURATION_BOUNDS_S))


def test_duration_bounds_up_to_the_run_time_limit() -> None:
    """Each bound is at most three times the one before, and the last one is the default limit."""
    assert Settings().runtime.max_run_ms == DURATION_BOUNDS_S[-1] * 1000
    assert all(high <= 3 * low for low, high in itertools.pairwise(DURATION_BOUNDS_S))
    assert {0.1, 0.25, 0.5, 1.0, 5.0, 30.0} < set(DURATION_BOUNDS_S)


@given(VALUES)
def test_buckets_are_cumulative_and_inclusive(values: list[float]) -> None:
    """The oracle counts for each bound."""
    histogram = Histogram(DURATION_BOUNDS_S)
    for value in values:
        histogram.observe_all([value])
    expected = [sum(value <= bound for value in values) for bound in DURATION_BOUNDS_S]
    assert [bucket[1] for bucket in histogram.buckets()] == [*expected, len(values)]
    assert histogram.count == len(values)


@given(VALUES, VALUES)
def test_observe_all_equals_observe(first: list[float], second: list[float]) -> None:
    """Also a second time."""
    single, many = Histogram(DURATION_BOUNDS_S), Histogram(DURATION_BOUNDS_S)
    for value in (*first, *second):
        single.observe_all([value])
    many.observe_all(first)
    many.observe_all(second)
    assert many.buckets() == single.buckets()
    assert abs(many.sum - single.sum) <= 1e-9 * single.sum


def test_copy_is_independent() -> None:
    """A scrape reads while requests go on."""
    histogram = Histogram(ROWS_BOUNDS)
    histogram.observe_all([3])
    copy = histogram.copy()
    histogram.observe_all([3])
    histogram.exemplify(Exemplar({"trace_id": "1"}, 3))
    assert (copy.count, copy.sum, histogram.count) == (1, 3.0, 2)
    assert all(len(bucket) == 2 for bucket in copy.buckets())


def test_bucket_keeps_its_last_exemplar() -> None:
    """Independent of the other buckets."""
    histogram = Histogram(ROWS_BOUNDS)
    for trace, value in (("1", 3), ("2", 4), ("3", 5)):
        histogram.exemplify(Exemplar({"trace_id": trace}, value))
    examples = {bucket[0]: bucket[2].labels["trace_id"] for bucket in histogram.buckets() if len(bucket) == 3}
    assert examples == {"4.0": "2", "8.0": "3"}


def test_bounds() -> None:
    """From 100 µs to a minute, and powers of two to 1024, in Prometheus' notation."""
    assert [bucket[0] for bucket in Histogram(DURATION_BOUNDS_S).buckets()][:2] == ["0.0001", "0.00025"]
    assert DURATION_BOUNDS_S[-1] == 60.0
    assert [bucket[0] for bucket in Histogram(ROWS_BOUNDS).buckets()] == [
        *("1.0", "2.0", "4.0", "8.0", "16.0", "32.0", "64.0", "128.0", "256.0", "512.0", "1024.0", "+Inf")
    ]
