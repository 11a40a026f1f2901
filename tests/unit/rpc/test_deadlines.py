"""Deadlines: clocks, and what an end is put down to."""

import math

import pytest

from inferd.rpc.call_ends import cause_of_end, to_monotonic


def test_no_deadline_is_infinity():
    """Rule 8: the core says "no deadline" as 9.2e18."""
    assert to_monotonic(9.223372036854776e18, 5.0, 1.7e9) == math.inf


def test_epoch_seconds_become_monotonic():
    """Rule 8: wall clock to monotonic, by what is left."""
    assert to_monotonic(1_700_000_002.5, 40.0, 1_700_000_000.0) == 42.5


def test_a_deadline_may_have_passed():
    """A call can wait for its acceptance longer than it has."""
    assert to_monotonic(1_699_999_999.0, 40.0, 1_700_000_000.0) == 39.0


@pytest.mark.parametrize(
    ("now", "deadline", "expected"),
    [
        (5.0, math.inf, "CANCELLED"),
        (5.0, 9.0, "CANCELLED"),
        (9.0, 9.0, "DEADLINE_EXCEEDED"),
        (9.5, 9.0, "DEADLINE_EXCEEDED"),
        (8.991, 9.0, "DEADLINE_EXCEEDED"),
        (99.2, 100.0, "DEADLINE_EXCEEDED"),
        (98.9, 100.0, "CANCELLED"),
    ],
)
def test_what_ended_a_call(now, deadline, expected):
    """A caller's own deadline, sent rounded up by a hundredth at most, cancels a little before ours."""
    code, details = cause_of_end(now=now, started_at=0.0, deadline=deadline)
    assert code.name == expected
    assert details
