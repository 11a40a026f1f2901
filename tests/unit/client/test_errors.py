"""Conversion of gRPC errors to exceptions."""

import pickle

import grpc
import pytest
from google.rpc.status_pb2 import Status

from inferd.client import InferdError, NotFound, Overloaded, Unavailable
from inferd.client.errors import from_rpc_error, from_status
from tests.unit.client.fake_service import overload_status


class _RpcError(grpc.RpcError):
    def __init__(self, code, details, trailing):
        self._parts = (code, details, trailing)

    def code(self):
        return self._parts[0]

    def details(self):
        return self._parts[1]

    def trailing_metadata(self):
        return self._parts[2]


def _translated(code, *trailing):
    return from_rpc_error(_RpcError(code, "text", trailing or None))


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_is_an_inferd_error(code):
    """Whatever the status, the exception has it and the text, and callers can catch it."""
    error = _translated(code)
    assert isinstance(error, InferdError)
    assert (error.status, error.message, str(error)) == (code, "text", "text")
    assert error.retry_after_s is None


def test_statuses_have_their_classes():
    """Statuses without a class raise `InferdError`."""
    assert type(_translated(grpc.StatusCode.NOT_FOUND)) is NotFound
    assert type(_translated(grpc.StatusCode.UNAVAILABLE)) is Unavailable
    assert type(_translated(grpc.StatusCode.DATA_LOSS)) is InferdError


def test_details_have_reason_and_retry_delay():
    """RetryInfo and ErrorInfo become attributes, and take precedence over the pushback."""
    details = overload_status(retry_s=0.25).SerializeToString()
    error = _translated(
        grpc.StatusCode.RESOURCE_EXHAUSTED, ("grpc-status-details-bin", details), ("grpc-retry-pushback-ms", "900")
    )
    assert isinstance(error, Overloaded)
    assert (error.reason, error.retry_after_s) == ("QUEUE_FULL", 0.25)


@pytest.mark.parametrize(("pushback", "expected"), [("120", 0.12), ("-1", None), ("soon", None)])
def test_pushback_is_a_retry_hint(pushback, expected):
    """Without RetryInfo; "do not retry" and invalid values give no delay."""
    error = _translated(grpc.StatusCode.RESOURCE_EXHAUSTED, ("grpc-retry-pushback-ms", pushback))
    assert error.retry_after_s == expected


def test_too_large_message_names_the_setting():
    """The core of gRPC, which refuses it, does not know it."""
    text = "SERVER: Received message larger than max (20 vs. 10)"
    error = from_rpc_error(_RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, text, None))
    assert error.message == f"{text}, its server.max_message_bytes"


def test_invalid_details_do_not_hide_error():
    """The status and the text remain."""
    error = _translated(grpc.StatusCode.NOT_FOUND, ("grpc-status-details-bin", b"\xff\xff"))
    assert (type(error), error.reason) == (NotFound, "")


def test_errors_within_streams_are_the_same():
    """A google.rpc.Status in a stream gives the same exception as the status of a call."""
    error = from_status(overload_status(retry_s=0.5, message="shed"))
    assert isinstance(error, Overloaded)
    assert (error.message, error.reason, error.retry_after_s) == ("shed", "QUEUE_FULL", 0.5)


def test_unknown_codes_within_streams_are_unknown():
    """They are UNKNOWN."""
    assert from_status(Status(code=4242, message="?")).status is grpc.StatusCode.UNKNOWN


def test_errors_can_be_pickled():
    """With all attributes, as process pools need."""
    error = pickle.loads(pickle.dumps(from_status(overload_status(retry_s=0.5))))
    assert (type(error), error.reason, error.retry_after_s) == (Overloaded, "QUEUE_FULL", 0.5)
