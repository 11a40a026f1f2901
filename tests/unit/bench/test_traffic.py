"""Which request is drawn, and whether it is sent again."""

from collections import Counter

import numpy as np
import pytest

from inferd.bench.retries import Refusal, Retries
from inferd.bench.traffic import Prepared, RequestSampler, TrafficClass


def _sampler(*classes, samples=1, rows=(1,)):
    prepared = {
        (index, count): [Prepared(index, count, bytes([sample]), 1.0) for sample in range(samples)]
        for index in range(len(classes))
        for count in rows
    }
    return RequestSampler(classes, prepared, np.random.default_rng(0))


def test_classes_are_drawn_by_weight():
    """A class of three times the weight comes three times as often."""
    sampler = _sampler(TrafficClass(name="a", model="m", weight=3), TrafficClass(name="b", model="m", weight=1))
    drawn = Counter(sampler.draw().class_index for _ in range(10_000))
    assert drawn[0] / 10_000 == pytest.approx(0.75, abs=0.02)


def test_samples_take_turns():
    """Each sample as often as the others."""
    sampler = _sampler(TrafficClass(name="a", model="m"), samples=3)
    assert [sampler.draw().message for _ in range(5)] == [b"\0", b"\1", b"\2", b"\0", b"\1"]


def test_rows_of_a_trace_replace_those_of_the_class():
    """Requests of those rows were prepared."""
    sampler = _sampler(TrafficClass(name="a", model="m"), rows=(1, 8))
    assert [sampler.draw(8).rows, sampler.draw().rows] == [8, 1]


@pytest.mark.parametrize(
    ("refusal", "attempts", "delay_s"),
    [
        (Refusal("RESOURCE_EXHAUSTED", retry_after_s=0.7), 1, 0.7),
        (Refusal("UNAVAILABLE", retry_after_s=0.0), 3, 0.0),
        (Refusal("RESOURCE_EXHAUSTED", retry_after_s=0.7), 4, None),
        (Refusal("RESOURCE_EXHAUSTED", may_retry=False), 1, None),
        (Refusal("DEADLINE_EXCEEDED"), 1, None),
        (Refusal("INVALID_ARGUMENT"), 1, None),
    ],
)
def test_retries(refusal, attempts, delay_s):
    """Refusals only, at most so often, and when the server said."""
    assert Retries(3).delay_s(refusal, attempts, np.random.default_rng(0)) == delay_s


def test_backoff_without_hint_grows():
    """Each wait is drawn from a range twice as long as the one before, up to 2 s."""
    random = np.random.default_rng(0)
    refusal = Refusal("UNAVAILABLE")
    for attempts, longest_s in ((1, 0.05), (2, 0.1), (3, 0.2), (20, 2.0)):
        drawn = [Retries(99).delay_s(refusal, attempts, random) for _ in range(200)]
        assert longest_s / 2 <= min(drawn) < max(drawn) <= longest_s
