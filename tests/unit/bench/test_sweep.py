"""The search for saturation, on servers that are formulas."""

import pytest

from inferd.bench.sweep import Saturation, StepOutcome, saturating_concurrency, saturating_rate, saturation_of


def _closed(capacity_per_s, latency_s):
    """Return a server that answers each request after ``latency_s``, up to a capacity."""
    return lambda level: StepOutcome(good_per_s=min(capacity_per_s, level / latency_s), good_share=1.0)


def _open(capacity_per_s):
    """Return a server that answers at most ``capacity_per_s`` requests a second."""
    return lambda rate: StepOutcome(good_per_s=min(rate, capacity_per_s), good_share=min(1.0, capacity_per_s / rate))


def test_concurrency_doubles_until_nothing_is_gained():
    """The answer is the last level that paid."""
    assert saturating_concurrency(1, _closed(1000, 0.01)) == Saturation(level=16, reached=True)


def test_rate_is_narrowed_down():
    """To within an eighth of the last doubling."""
    saturation = saturating_rate(100, _open(1000))
    assert saturation.reached
    assert saturation.level == pytest.approx(1000, rel=0.1)
    assert saturation.level <= 1000 / 0.95


def test_first_level_is_too_much():
    """There is no level to name."""
    assert saturating_rate(100, _open(10)) == Saturation(level=None, reached=True)


def test_endless_capacity_ends():
    """After a bounded number of steps."""
    levels = []

    def run(level):
        levels.append(level)
        return StepOutcome(good_per_s=level, good_share=1.0)

    assert not saturating_rate(1, run).reached
    assert not saturating_concurrency(1, run).reached
    assert len(levels) < 60


def test_saturation_of_given_levels():
    """The first level of a closed loop that gets all there is; the last rate that is sustained."""
    closed = [(level, _closed(1000, 0.01)(level)) for level in (4.0, 8.0, 16.0, 32.0)]
    assert saturation_of(closed, closed=True) == Saturation(level=16.0, reached=True)
    assert saturation_of(closed[:2], closed=True) == Saturation(level=8.0, reached=False)
    rates = [(level, _open(1000)(level)) for level in (500.0, 1000.0, 2000.0)]
    assert saturation_of(rates, closed=False) == Saturation(level=1000.0, reached=True)
    assert saturation_of(rates[:2], closed=False) == Saturation(level=1000.0, reached=False)
