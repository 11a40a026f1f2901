"""What a failed call says: status, reason, and whether and when to send again."""

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from inferd.bench.retries import Refusal
from inferd.bench.transport import failure


def _error(*pairs, code=grpc.StatusCode.RESOURCE_EXHAUSTED, text="full"):
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*pairs), text)


def _details(*messages):
    status = Status()
    for message in messages:
        packed = Any()
        packed.Pack(message)
        status.details.append(packed)
    return "grpc-status-details-bin", status.SerializeToString()


@pytest.mark.parametrize(
    ("pairs", "refusal"),
    [
        ([], Refusal("RESOURCE_EXHAUSTED", None, True)),
        ([("grpc-retry-pushback-ms", "250")], Refusal("RESOURCE_EXHAUSTED", 0.25, True)),
        ([("grpc-retry-pushback-ms", "-1")], Refusal("RESOURCE_EXHAUSTED", None, False)),
        ([_details(RetryInfo(retry_delay=Duration(seconds=2)))], Refusal("RESOURCE_EXHAUSTED", 2.0, True)),
    ],
)
def test_hints(pairs, refusal):
    """As pushback or as details; a negative pushback forbids retries."""
    assert failure(_error(*pairs)).refusal == refusal


def test_reason_and_message_are_bounded():
    """The reason is the server's constant; long texts are cut."""
    found = failure(_error(_details(ErrorInfo(reason="QUEUE_FULL")), text="x" * 5000))
    assert found.status == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
    assert len(found.message) < 100
