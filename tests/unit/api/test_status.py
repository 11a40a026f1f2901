"""The table from errors to statuses."""

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus

from inferd import errors
from inferd.api.status import StatusTable
from inferd.batching.request import BatchTiming, FailedRunError


def _all_errors():
    found, left = set(), [errors.ServingError]
    while left:
        for subclass in left.pop().__subclasses__():
            found.add(subclass)
            left.append(subclass)
    return sorted(found, key=lambda c: c.__name__)


def _make(error_class):
    if error_class in {errors.OverloadedError, errors.QuotaExceededError}:
        return error_class("full", retry_after_s=0.25)
    if error_class is FailedRunError:
        return error_class(BatchTiming(started_at=0.0, stack_s=0.0, run_s=0.0, rows=1), queue_s=0.0)
    if error_class is errors.ColdModelError:
        return error_class("cold", model="m", version="1")
    return error_class() if error_class is errors.InferenceFailedError else error_class("because")


@pytest.mark.parametrize("error_class", _all_errors())
def test_every_error_has_status(error_class):
    """No error is missing in the table, and each carries its machine-readable reason."""
    status = StatusTable().status_of(_make(error_class))
    sent = RpcStatus.FromString(dict(status.trailing_metadata())["grpc-status-details-bin"])
    info = ErrorInfo()
    assert sent.details[0].Unpack(info)
    assert (info.reason, info.domain) == (error_class.reason, "inferd")
    assert (sent.code, sent.message) == (status.code.value[0], status.message)


def test_request_that_does_not_fit_into_memory_is_not_retried():
    """Retry policies obey the pushback; a retry delay would invite programs to try again."""
    status = StatusTable().status_of(errors.OutOfMemoryError("the server has not enough memory to run it"))
    assert status.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    metadata = dict(status.trailing_metadata())
    assert metadata["grpc-retry-pushback-ms"] == "-1"
    assert len(RpcStatus.FromString(metadata["grpc-status-details-bin"]).details) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.OverloadedError("full", retry_after_s=0.0305), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.ModelUnavailableError("it is being loaded", retry_after_s=0.0305), grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_overload_carries_computed_retry_hint(error, code):
    """As RetryInfo for programs, and as the pushback that gRPC's retries obey."""
    status = StatusTable().status_of(error)
    assert status.code is code
    metadata = dict(status.trailing_metadata())
    assert metadata["grpc-retry-pushback-ms"] == "31"
    retry = RetryInfo()
    assert RpcStatus.FromString(metadata["grpc-status-details-bin"]).details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 31


@pytest.mark.parametrize(("retry", "pushback"), [(errors.Retry.SOON, None), (errors.Retry.NEVER, "-1")])
def test_retry_hint_that_retry_policies_do_not_wait_for(retry, pushback):
    """Programs have it all the same."""
    error = errors.ModelUnavailableError("it failed to load", retry_after_s=30.0, retry=retry)
    metadata = dict(StatusTable().status_of(error).trailing_metadata())
    assert metadata.get("grpc-retry-pushback-ms") == pushback
    hint = RetryInfo()
    assert RpcStatus.FromString(metadata["grpc-status-details-bin"]).details[1].Unpack(hint)
    assert hint.retry_delay.ToMilliseconds() == 30_000


@pytest.mark.parametrize(
    ("message", "field", "shown", "described"),
    [
        ("expected 1, got 2", "inputs[2].shape", "inputs[2].shape", "expected 1, got 2"),
        ("x" * 161, "a\x1b", "a\\x1b", ""),
        ("x", "y" * 1000, "y" * 77 + "…", "x"),
    ],
)
def test_names_invalid_field(message, field, shown, described):
    """As google.rpc.BadRequest, clipped and escaped; a short message is repeated."""
    status = StatusTable().status_of(errors.InvalidInputError(message, field=field))
    wrong = BadRequest()
    _, detail = RpcStatus.FromString(status.to_bytes()).details
    assert detail.Unpack(wrong)
    assert [(each.field, each.description) for each in wrong.field_violations] == [(shown, described)]


def test_error_without_field_has_no_violation():
    """Such errors carry no detail for it."""
    for error in (errors.InvalidInputError("x"), errors.ModelNotFoundError("x")):
        assert len(RpcStatus.FromString(StatusTable().status_of(error).to_bytes()).details) == 1


def test_overload_status_is_configurable():
    """`api.overload_status` changes the code and nothing else."""
    table = StatusTable(grpc.StatusCode.UNAVAILABLE)
    assert table.status_of(errors.OverloadedError("full", retry_after_s=1)).code is grpc.StatusCode.UNAVAILABLE
    assert table.status_of(errors.InvalidInputError("x")).code is grpc.StatusCode.INVALID_ARGUMENT
