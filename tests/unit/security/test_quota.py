"""Quotas: what they accept, and their retry hints."""

import pytest

from inferd.errors import InvalidInputError, QuotaExceededError
from inferd.security.authorization.quota import Quota, QuotaLimits, QuotaRejections


def _quota(**limits: float) -> tuple[Quota, QuotaRejections]:
    rejections = QuotaRejections()
    return Quota(QuotaLimits(**limits), rejections, now=100.0), rejections


def test_requests_have_a_burst_of_one_second() -> None:
    """Above it, the retry hint is when the next one will be accepted."""
    quota, rejections = _quota(requests_per_s=4)
    for _ in range(4):
        quota.acquire(1, 100.0)
    with pytest.raises(QuotaExceededError, match="quota of 4 requests a second is used up") as caught:
        quota.acquire(1, 100.0)
    assert caught.value.retry_after_s == pytest.approx(0.25)
    quota.acquire(1, 100.25)
    assert rejections.by_limit == {"requests_per_s": 1, "rows_per_s": 0, "tokens_per_s": 0, "concurrent_requests": 0}


def test_accepts_a_request_larger_than_the_burst() -> None:
    """It leaves a debt, so the rate holds over time."""
    quota, _ = _quota(rows_per_s=10)
    quota.acquire(35, 100.0)
    with pytest.raises(QuotaExceededError) as caught:
        quota.acquire(1, 101.0)
    assert caught.value.retry_after_s == pytest.approx(1.6)
    quota.acquire(1, 102.601)


def test_rejection_by_one_limit_charges_no_other() -> None:
    """A request with too many rows takes no request token and no slot."""
    quota, _ = _quota(requests_per_s=2, rows_per_s=10, concurrent_requests=2)
    quota.acquire(10, 100.0)
    with pytest.raises(QuotaExceededError, match="rows"):
        quota.acquire(10, 100.0)
    quota.acquire(0, 100.0)


def test_counts_open_requests_until_release() -> None:
    """Each release frees one slot."""
    quota, rejections = _quota(concurrent_requests=2)
    quota.acquire(1, 100.0)
    quota.acquire(1, 100.0)
    with pytest.raises(QuotaExceededError, match="quota of 2 open requests"):
        quota.acquire(1, 200.0)
    quota.release()
    quota.acquire(1, 200.0)
    assert rejections.by_limit["concurrent_requests"] == 1


def test_rejects_a_request_with_too_large_a_debt() -> None:
    """More than ten minutes' worth of rows is invalid, and charges nothing."""
    quota, rejections = _quota(rows_per_s=10, requests_per_s=1)
    with pytest.raises(InvalidInputError, match="at most 6010 rows, as the quota is 10 rows a second, got 60000000"):
        quota.acquire(60_000_000, 100.0)
    assert rejections.by_limit["rows_per_s"] == 1
    quota.acquire(6010, 100.0)
    with pytest.raises(QuotaExceededError) as caught:
        quota.acquire(1, 101.0)
    assert caught.value.retry_after_s <= 600


def test_accepts_a_single_row_at_any_rate() -> None:
    """Here one row in a thousand seconds."""
    quota, _ = _quota(rows_per_s=0.001)
    quota.acquire(1, 100.0)
    with pytest.raises(InvalidInputError):
        quota.acquire(2, 10_000.0)


def test_charges_requests_that_run_no_model() -> None:
    """As one request each, without a slot."""
    quota, rejections = _quota(requests_per_s=10, concurrent_requests=1)
    quota.acquire(1, 100.0)
    for _ in range(9):
        quota.charge_request(100.0)
    with pytest.raises(QuotaExceededError) as caught:
        quota.charge_request(100.0)
    assert caught.value.retry_after_s == pytest.approx(0.1)
    assert rejections.by_limit == {"requests_per_s": 1, "rows_per_s": 0, "tokens_per_s": 0, "concurrent_requests": 0}


def test_refunds_a_request_that_did_not_run() -> None:
    """Both the request and its rows, up to the burst."""
    quota, _ = _quota(requests_per_s=2, rows_per_s=10)
    for _ in range(5):
        quota.acquire(10, 100.0)
        quota.release(refund_rows=10)
    quota.acquire(10, 100.0)
    with pytest.raises(QuotaExceededError, match="rows"):
        quota.acquire(1, 100.0)


def test_charges_tokens_that_may_be_generated_and_refunds_the_rest() -> None:
    """A request is charged for its prompt and the longest answer; what it did not use is there again at its end."""
    quota, rejections = _quota(tokens_per_s=100)
    quota.acquire(1, 100.0, tokens=300)
    with pytest.raises(QuotaExceededError, match="quota of 100 tokens a second is used up") as caught:
        quota.acquire(1, 100.0, tokens=50)
    assert caught.value.retry_after_s == pytest.approx(2.5)
    quota.release(refund_tokens=280)
    quota.acquire(1, 100.0, tokens=80)
    assert rejections.by_limit["tokens_per_s"] == 1


def test_tokens_do_not_limit_requests_of_ordinary_models() -> None:
    """They have none, so that they are accepted while language models have used up the quota."""
    quota, _ = _quota(tokens_per_s=1)
    quota.acquire(1, 100.0, tokens=500)
    quota.acquire(1000, 100.0)
    with pytest.raises(InvalidInputError, match="at most 601 tokens, as the quota is 1 tokens a second, got 602"):
        quota.acquire(1, 100.0, tokens=602)
