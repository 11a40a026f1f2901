"""What a quota lets pass, and when it says to come back."""

import pytest

from inferd.errors import InvalidInputError, QuotaExceededError
from inferd.security.authorization.quota import Quota, QuotaLimits, QuotaRejections


def _quota(**limits: float) -> tuple[Quota, QuotaRejections]:
    rejections = QuotaRejections()
    return Quota(QuotaLimits(**limits), rejections, now=100.0), rejections


def test_requests_have_a_burst_of_one_second() -> None:
    """Over it, the hint is when the next one will pass."""
    quota, rejections = _quota(requests_per_s=4)
    for _ in range(4):
        quota.acquire(1, 100.0)
    with pytest.raises(QuotaExceededError, match="quota of 4 requests a second is used up") as caught:
        quota.acquire(1, 100.0)
    assert caught.value.retry_after_s == pytest.approx(0.25)
    quota.acquire(1, 100.25)
    assert rejections.by_limit == {"requests_per_s": 1, "rows_per_s": 0, "concurrent_requests": 0}


def test_a_request_larger_than_the_burst_passes_and_is_paid_off() -> None:
    """Nothing is too large for ever, and the rate holds over time."""
    quota, _ = _quota(rows_per_s=10)
    quota.acquire(35, 100.0)
    with pytest.raises(QuotaExceededError) as caught:
        quota.acquire(1, 101.0)
    assert caught.value.retry_after_s == pytest.approx(1.6)
    quota.acquire(1, 102.601)


def test_what_is_refused_by_one_limit_is_not_counted_by_another() -> None:
    """Rows that were not admitted use up no request, and no slot."""
    quota, _ = _quota(requests_per_s=2, rows_per_s=10, concurrent_requests=2)
    quota.acquire(10, 100.0)
    with pytest.raises(QuotaExceededError, match="rows"):
        quota.acquire(10, 100.0)
    quota.acquire(0, 100.0)


def test_open_requests_are_counted_until_they_are_given_back() -> None:
    """Each slot comes back once."""
    quota, rejections = _quota(concurrent_requests=2)
    quota.acquire(1, 100.0)
    quota.acquire(1, 100.0)
    with pytest.raises(QuotaExceededError, match="quota of 2 open requests"):
        quota.acquire(1, 200.0)
    quota.release()
    quota.acquire(1, 200.0)
    assert rejections.by_limit["concurrent_requests"] == 1


def test_no_request_leaves_a_debt_without_end() -> None:
    """What would take more than ten minutes to pay off is refused for good, and uses up nothing."""
    quota, rejections = _quota(rows_per_s=10, requests_per_s=1)
    with pytest.raises(InvalidInputError, match="at most 6010 rows, as the quota is 10 rows a second, got 60000000"):
        quota.acquire(60_000_000, 100.0)
    assert rejections.by_limit["rows_per_s"] == 1
    quota.acquire(6010, 100.0)
    with pytest.raises(QuotaExceededError) as caught:
        quota.acquire(1, 101.0)
    assert caught.value.retry_after_s <= 600


def test_a_single_row_is_never_too_large() -> None:
    """Of a quota of a row in a quarter of an hour."""
    quota, _ = _quota(rows_per_s=0.001)
    quota.acquire(1, 100.0)
    with pytest.raises(InvalidInputError):
        quota.acquire(2, 10_000.0)


def test_what_runs_no_model_counts_as_a_request() -> None:
    """And takes no slot that would have to come back."""
    quota, rejections = _quota(requests_per_s=10, concurrent_requests=1)
    quota.acquire(1, 100.0)
    for _ in range(9):
        quota.charge_request(100.0)
    with pytest.raises(QuotaExceededError) as caught:
        quota.charge_request(100.0)
    assert caught.value.retry_after_s == pytest.approx(0.1)
    assert rejections.by_limit == {"requests_per_s": 1, "rows_per_s": 0, "concurrent_requests": 0}


def test_what_was_refused_after_all_uses_up_nothing() -> None:
    """The request and its rows are there again; never more than the burst."""
    quota, _ = _quota(requests_per_s=2, rows_per_s=10)
    for _ in range(5):
        quota.acquire(10, 100.0)
        quota.release(refund_rows=10)
    quota.acquire(10, 100.0)
    with pytest.raises(QuotaExceededError, match="rows"):
        quota.acquire(1, 100.0)
