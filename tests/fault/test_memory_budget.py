"""Memory of requests stays within the budget, and is released."""

import gzip
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests.load import MIB, connect, metric
from tests.patience import PATIENCE_S, eventually
from tests.raw_uploads import RawUpload
from tests.server import ServerProcess, serving

_INFER = "/inferd.v1.InferenceService/Infer"
_STREAM_INFER = "/inferd.v1.InferenceService/StreamInfer"
_CHECK = "/grpc.health.v1.Health/Check"

_BUDGET = 64 * MIB
#: Growth between two measurements, which a busy machine makes late, and memory of Python and the core beside the
#: messages. Without a budget the uploads would take 120 MiB.
_SLACK = 36 * MIB
_UPLOADS = 24
_MESSAGE = 6 * MIB
_SENT = 5 * MIB
_TOLERANCE = 1.2

_REQUEST = v1.InferRequest(model="digits", inputs=[v1.Tensor(name="X", shape=[1, 64], raw=bytes(256))])


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with a small memory budget."""
    with serving("--set", f"server.memory_budget_bytes={_BUDGET}", "--set", "log.access=false") as running:
        assert infer(running)
        yield running


@pytest.fixture(scope="module")
def idle_bytes(server: ServerProcess) -> int:
    """Its memory before large messages."""
    return start(server)


def check_health(server: ServerProcess) -> None:
    """Check health, with a timeout."""
    with connect(server.grpc) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def infer(server: ServerProcess) -> bool:
    """Return whether an ordinary request is answered."""
    with connect(server.grpc) as channel:
        try:
            InferenceServiceStub(channel).Infer(_REQUEST, timeout=PATIENCE_S)
        except grpc.RpcError:
            return False
    return True


def start(server: ServerProcess) -> int:
    """Return the memory of the idle process."""
    eventually(lambda: metric(server, "inferd_inflight_requests") == 0, "no call is open")
    return int(server.resident_bytes())


@pytest.mark.parametrize("method", [_INFER, _STREAM_INFER, _CHECK], ids=["unary", "stream", "health"])
def test_stalled_uploads_are_terminated(server: ServerProcess, idle_bytes: int, method: str) -> None:
    """The oldest ones, in time, and others are answered meanwhile."""
    ended_before = metric(server, "inferd_calls_refused_total", reason="MEMORY_BUDGET")
    most = start(server)
    with ExitStack() as stack, ThreadPoolExecutor(_UPLOADS) as pool:
        uploads = [stack.enter_context(RawUpload(server.grpc, method, _MESSAGE)) for _ in range(_UPLOADS)]
        sending = [pool.submit(upload.send, _SENT) for upload in uploads]
        while not all(each.done() for each in sending):
            most = max(most, server.resident_bytes())
            check_health(server)
        eventually(lambda: infer(server), "there is room for others")
        most = max(most, server.resident_bytes())
        assert metric(server, "inferd_request_memory_bytes") < _BUDGET
    assert most - idle_bytes < _BUDGET + _SLACK
    assert metric(server, "inferd_calls_refused_total", reason="MEMORY_BUDGET") > ended_before


def test_memory_of_uploads_is_released(server: ServerProcess, idle_bytes: int) -> None:
    """After they have ended, whatever they were."""
    eventually(lambda: server.resident_bytes() < _TOLERANCE * idle_bytes, "the memory is given back")
    assert infer(server)


def test_rejects_compressed_messages(server: ServerProcess) -> None:
    """Without decompressing them, unless they are enabled."""
    bombs = [gzip.compress(bytes(61 * MIB)), gzip.compress(b"\x0a\x00" * (3 * MIB))]
    before = start(server)
    for bomb in bombs * 4:
        with RawUpload(server.grpc, _INFER, len(bomb), compressed=True) as upload:
            upload.send(len(bomb), content=bomb, end=True)
            assert upload.wait_ended(PATIENCE_S)
            assert b"grpc-status\x0212" in upload.headers
            assert b"got one with gzip, which needs the setting server.compressed_requests" in upload.headers
    assert server.resident_bytes() < _TOLERANCE * before


@pytest.fixture(scope="module")
def compressing() -> Iterator[ServerProcess]:
    """A server that accepts compressed messages."""
    with serving("--set", "server.compressed_requests=true") as running:
        yield running


def code_of(error: Any) -> grpc.StatusCode:
    """Return the code of an error, which is a call too."""
    code: grpc.StatusCode = error.code()
    return code


def reason_of(error: Any) -> str:
    """Return the reason in a status."""
    status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    return str(info.reason)


def test_accepts_compressed_messages_if_enabled(compressing: ServerProcess) -> None:
    """Except those with an implausible ratio, such as zeros, and those that are too large."""
    with grpc.insecure_channel(compressing.grpc, compression=grpc.Compression.Gzip) as channel:
        call: Any = channel.unary_unary(_INFER, None, None)
        assert call(_REQUEST.SerializeToString(), timeout=PATIENCE_S)
        before = start(compressing)
        for content in (bytes(61 * MIB), b"\x0a\x00" * (3 * MIB)):
            with pytest.raises(grpc.RpcError) as error:
                call(content, timeout=PATIENCE_S)
            assert code_of(error.value) is grpc.StatusCode.INVALID_ARGUMENT
            assert reason_of(error.value) == "COMPRESSED_MESSAGE"
    assert compressing.resident_bytes() < _TOLERANCE * before


def test_endless_upload_ends_at_time_limit() -> None:
    """For any caller."""
    with serving("--set", "server.message_timeout_s=0.5") as server:
        with RawUpload(server.grpc, _INFER, _MESSAGE) as upload:
            upload.send(1000)
            assert upload.wait_ended(PATIENCE_S)
            assert b"expected the whole request within 0.5 s" in upload.headers
        assert metric(server, "inferd_calls_refused_total", reason="MESSAGE_TIMEOUT") == 1
