"""Checks of requests that can never be admitted."""

import pytest

from inferd.batching.waiting import WaitingRequests, refusal
from inferd.errors import DeadlineExceededError, InvalidInputError
from tests.fakes import Caller


def _refusal(caller):
    return refusal(caller.request, 100.0, WaitingRequests(max_rows=8, max_bytes=1000, priority_levels=3))


def test_bounds_are_inclusive():
    """A request that equals every bound is admissible."""
    assert _refusal(Caller(rows=8, nbytes=1000, priority=3, deadline=100.001)) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": 9}, "request: expected at most 8 rows, the bound of the whole queue, got 9"),
        ({"nbytes": 1001}, "request: expected at most 1000 bytes, the bound of the whole queue, got 1001"),
        ({"priority": 0}, "priority: expected 1 to 3, or 4 for a scavenger, got 0"),
        ({"priority": 5}, "priority: expected 1 to 3, or 4 for a scavenger, got 5"),
    ],
)
def test_request_out_of_bounds_is_invalid(fields, message):
    """The error has the bound and no retry hint, as a retry would be in vain."""
    error = _refusal(Caller(**fields))
    assert isinstance(error, InvalidInputError)
    assert error.message == message


def test_rejects_expired_request():
    """None of its rows is queued."""
    assert isinstance(_refusal(Caller(deadline=100.0)), DeadlineExceededError)
