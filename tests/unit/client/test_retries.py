"""Retries by gRPC, with the client's policy."""

import numpy as np
import pytest

from inferd.client import Client, Overloaded, RetryPolicy
from tests.unit.client.fake_service import echo, overload_status, refuse

#: So long that only the server's pushback can cause a retry during a test.
PATIENT = RetryPolicy(initial_backoff_s=600.0, max_backoff_s=600.0)
EAGER = RetryPolicy(initial_backoff_s=0.01, max_backoff_s=0.01)


def _refusing(service, times: int, pushback_ms: str | None) -> None:
    def answer(request, context):
        if len(service.requests) <= times:
            refuse(context, pushback_ms=pushback_ms, details=overload_status(retry_s=0.01).SerializeToString())
        return echo(request)

    service.on_infer = answer


def _attempts(service) -> list[str]:
    return [metadata.get("grpc-previous-rpc-attempts", "0") for metadata in service.metadata]


def test_follows_pushback(server, service):
    """Rejected twice with a pushback, the call succeeds."""
    _refusing(service, 2, "10")
    with Client(server.address, timeout_s=30, retry=PATIENT) as client:
        assert client.infer("m", {"x": 5})["x"] == 5
    assert _attempts(service) == ["0", "1", "2"]


def test_negative_pushback_forbids_retries(server, service):
    """The server gets the call once."""
    _refusing(service, 2, "-1")
    with Client(server.address, retry=EAGER) as client, pytest.raises(Overloaded):
        client.infer("m", {"x": 5})
    assert len(service.requests) == 1


def test_retries_large_requests(server, service):
    """Above gRPC's default retry buffer of 256 KiB."""
    _refusing(service, 1, "10")
    with Client(server.address, timeout_s=30, retry=PATIENT) as client:
        client.infer("m", {"x": np.zeros(1_000_000)})
    assert len(service.requests) == 2


def test_number_of_attempts(server, service):
    """After the policy's attempts the rejection is raised, with its delay."""
    _refusing(service, 100, None)
    with Client(server.address, retry=EAGER) as client, pytest.raises(Overloaded) as caught:
        client.infer("m", {"x": 5})
    assert len(service.requests) == EAGER.max_attempts
    assert (caught.value.reason, caught.value.retry_after_s) == ("QUEUE_FULL", 0.01)


def test_retries_stop_while_most_calls_fail(server, service):
    """Under lasting overload the retry tokens run out."""
    _refusing(service, 10_000, None)
    policy = RetryPolicy(initial_backoff_s=0.01, max_backoff_s=0.01, max_tokens=4)
    with Client(server.address, retry=policy) as client:
        for _ in range(10):
            with pytest.raises(Overloaded):
                client.infer("m", {"x": 5})
    # Four tokens: two failures take half of them, so only the first call was retried.
    assert _attempts(service) == ["0", "1"] + ["0"] * 9


def test_no_retries_without_a_policy(server, service):
    """With ``retry=None``, even if the server sends a pushback."""
    _refusing(service, 1, "1")
    with Client(server.address, retry=None) as client, pytest.raises(Overloaded):
        client.infer("m", {"x": 5})
    assert len(service.requests) == 1
