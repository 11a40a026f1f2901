"""The comparison of two trees."""

import pytest

from benchmarks.rounds import Sample
from benchmarks.trees import pairs


def _sample(server, number, cpu_us):
    return Sample(
        model="small", placement="pinned", concurrency=64, server=server, setting="default", round=number,
        requests_per_s=1.0, p50_ms=1.0, p99_ms=1.0, errors=0, server_cpu_us=cpu_us, server_rss_mib=1.0,
    )  # fmt: skip


def test_compares_measurements_of_same_round():
    """Whichever tree came first; a round in which one of them failed is ignored."""
    samples = [
        _sample("inferd-old", 1, 100.0), _sample("inferd", 1, 102.0),
        _sample("inferd", 2, 99.0), _sample("inferd-old", 2, 90.0),
        _sample("inferd-old", 3, 100.0),
    ]  # fmt: skip
    assert [(pair.round, pair.ratio) for pair in pairs(samples)] == [(1, pytest.approx(1.02)), (2, pytest.approx(1.1))]
