"""Idle callers of one service do not starve those of others, nor each other."""

from collections.abc import Iterator

import grpc
import pytest
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.integration.rpc.support import Requests
from tests.load import connect, metric
from tests.patience import PATIENCE_S, eventually
from tests.server import ServerProcess, serving

_IDLE = 50


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server with one thread for each service with blocking handlers."""
    with serving("--set", "server.channelz=true", "--set", "server.blocking_threads=1") as running:
        yield running


@pytest.fixture
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    """A new connection."""
    with connect(server.grpc) as connected:
        yield connected


def check_all(channel: grpc.Channel) -> None:
    """Every service other than inference answers."""
    services = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([services]), timeout=PATIENCE_S
    )
    assert "inferd.v1.InferenceService" in [each.name for each in answer.list_services_response.service]
    health = health_pb2_grpc.HealthStub(channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S).status
    channelz = channelz_pb2_grpc.ChannelzStub(channel)
    assert channelz.GetServers(channelz_pb2.GetServersRequest(), timeout=PATIENCE_S).server


def test_idle_reflection_streams(server: ServerProcess, channel: grpc.Channel) -> None:
    """They occupy no thread, with or without a request."""
    with connect(server.grpc) as crowd:
        stub = reflection_pb2_grpc.ServerReflectionStub(crowd)
        questions = [Requests() for _ in range(_IDLE)]
        streams = [stub.ServerReflectionInfo(iter(each), timeout=PATIENCE_S) for each in questions]
        for stream, requests in zip(streams[::2], questions[::2], strict=True):
            requests.put(reflection_pb2.ServerReflectionRequest(list_services=""))
            assert next(stream).list_services_response.service
        eventually(lambda: metric(server, "inferd_inflight_requests") == _IDLE, "all of them are open")
        check_all(channel)
        for stream, requests in zip(streams, questions, strict=True):
            stream.cancel()
            requests.put(None)
    eventually(lambda: metric(server, "inferd_inflight_requests") == 0, "nothing is left of them")


def test_watchers_of_health(server: ServerProcess, channel: grpc.Channel) -> None:
    """They occupy no thread."""
    with connect(server.grpc) as crowd:
        stub = health_pb2_grpc.HealthStub(crowd)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S) for _ in range(_IDLE)]
        assert all(next(watch).status for watch in watches)
        check_all(channel)


def test_stalled_uploads_to_channelz(server: ServerProcess, channel: grpc.Channel) -> None:
    """A thread is used only for complete requests."""
    with connect(server.grpc) as crowd:
        open_streams = []
        for _ in range(_IDLE):
            requests = Requests()
            call = crowd.stream_stream("/grpc.channelz.v1.Channelz/GetServers", None, None)
            open_streams.append((call(iter(requests), timeout=PATIENCE_S), requests))
        eventually(lambda: metric(server, "inferd_inflight_requests") >= _IDLE, "all of them are open")
        check_all(channel)
        for stream, requests in open_streams:
            stream.cancel()
            requests.put(None)


def test_invalid_reflection_request(channel: grpc.Channel) -> None:
    """It ends its stream with a status."""
    ask = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", None, None)
    with pytest.raises(grpc.RpcError) as error:
        list(ask(iter([b"\xff"]), timeout=PATIENCE_S))
    assert "INVALID_ARGUMENT" in str(error.value)
