"""Every kind of hostile message of the benchmark: each call ends, and nothing is left behind."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.hostile import models
from benchmarks.hostile.corpus import KINDS
from benchmarks.hostile.kind import Kind
from inferd.api import wire_scanner
from inferd.api.oip.codec import OpenInferenceCodec
from inferd.api.v1.codec import InferenceCodec
from inferd.api.wire_scanner import MessageLimits
from inferd.errors import InvalidInputError
from tests.load import metric
from tests.patience import PATIENCE_S, eventually
from tests.server import serving
from tests.unit.api.fakes import CountedBytes

#: Decoded by the poll thread, and by the thread for large messages.
SIZES = (2_000, 20_000)
#: The statuses that a hostile message may get.
EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.CANCELLED,
}
#: How calls that load and unload models are answered in this mode.
NO_CONTROL = "explicit model load / unload is not allowed"
WATCH = "/grpc.health.v1.Health/Watch"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with the models that the messages address."""
    with serving(*models.write(tmp_path_factory.mktemp("models"))) as running:
        yield running


def _send(channel: grpc.Channel, kind: Kind, nbytes: int) -> tuple[grpc.StatusCode, str]:
    call = channel.stream_stream(kind.method, None, None)(iter([kind.build(nbytes)]), timeout=PATIENCE_S)
    with suppress(grpc.RpcError):
        for _ in call:
            if kind.method == WATCH:
                call.cancel()
    return call.code(), call.details()


def test_each_kind_ends_with_status_and_leaves_nothing(server):
    """The server continues, and has no open calls."""
    wrong = []
    with grpc.insecure_channel(server.grpc) as channel:
        sent = [(kind, nbytes) for kind in KINDS.values() for nbytes in SIZES]
        with ThreadPoolExecutor(4) as callers:
            ends = list(callers.map(lambda message: _send(channel, *message), sent))
        for (kind, nbytes), (code, details) in zip(sent, ends, strict=True):
            if code not in EXPECTED and not (code is grpc.StatusCode.UNAVAILABLE and details.startswith(NO_CONTROL)):
                wrong.append(f"{kind.name}, {nbytes} bytes: {code} {details}")
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
    assert not wrong, "\n".join(wrong)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    eventually(lambda: metric(server, "inferd_inflight_requests") == 0, "no call is open")
    assert "Traceback" not in server.text


@pytest.mark.parametrize(
    ("codec", "method"),
    [
        (InferenceCodec, "/inferd.v1.InferenceService/Infer"),
        (OpenInferenceCodec, "/inference.GRPCInferenceService/ModelInfer"),
    ],
)
def test_steps_are_bounded_for_each_kind(codec, method, monkeypatch):
    """Counted, as time depends on the machine."""
    scan = codec(MessageLimits(elements=1000)).scanner.scan
    monkeypatch.setattr(wire_scanner, "MAX_FIELDS", 2000)
    for kind in KINDS.values():
        if kind.method != method:
            continue
        message = CountedBytes(kind.build(200_000))
        with suppress(InvalidInputError):
            scan(message)
        # One step for each field or element, which reads at most a tag and an integer of 10 bytes.
        assert message.reads <= 11 * (2000 + 1000) + 40, kind.name
