"""Encoded statuses equal those that protobuf builds."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from hypothesis import example, given
from hypothesis import strategies as st

from inferd.api.status import Status

codes = st.sampled_from([code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])


@given(
    code=codes,
    message=st.text(max_size=300),
    reason=st.sampled_from(["QUEUE_FULL", "INVALID_INPUT"]) | st.text(max_size=20),
    retry_after_ms=st.none() | st.integers(1, 2**31 - 1),
)
@example(code=grpc.StatusCode.INTERNAL, message="", reason="", retry_after_ms=None)
@example(code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="é" * 5000, reason="QUEUE_FULL", retry_after_ms=1000)
def test_status_equals_protobuf_message(code, message, reason, retry_after_ms):
    """Code, message and both details, also when the details are cached."""
    expected = RpcStatus(code=code.value[0], message=message)
    expected.details.add().Pack(ErrorInfo(reason=reason, domain="inferd"))
    if retry_after_ms is not None:
        delay = Duration()
        delay.FromMilliseconds(retry_after_ms)
        expected.details.add().Pack(RetryInfo(retry_delay=delay))
    for _ in range(2):
        assert RpcStatus.FromString(Status(code, message, reason, retry_after_ms).to_bytes()) == expected


@pytest.mark.parametrize("retry_after_ms", [None, 20])
def test_metadata_carries_status(retry_after_ms):
    """And the pushback that gRPC's retries obey, if there is a retry hint."""
    status = Status(grpc.StatusCode.UNAVAILABLE, "why", "REASON", retry_after_ms)
    hint = [] if retry_after_ms is None else [("grpc-retry-pushback-ms", "20")]
    assert list(status.trailing_metadata()) == [("grpc-status-details-bin", status.to_bytes()), *hint]
