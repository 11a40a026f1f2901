"""gRPC's own services from their own packages."""

import threading

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_channelz.v1 import channelz, channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from inferd.api.health import HealthService
from inferd.health_check import HealthStatus, encode_list
from tests.integration.rpc.support import TIMEOUT_S, Running, wait_idle

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def start():
    """Create a server with additional services."""
    running = []

    def make(add, **settings):
        server = Running(**settings)
        add(server.server)
        running.append(server)
        return server.start()

    yield make
    for server in running:
        server.close()


@pytest.fixture(params=[True, False], ids=["non-blocking", "blocking"])
def servicer(request):
    return health.HealthServicer(experimental_non_blocking=request.param)


def check(stub, service="", **options):
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S, **options).status


def test_health_check(start, servicer):
    """Known, changed and unknown services."""
    running = start(lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server))
    stub = health_pb2_grpc.HealthStub(running.channel)
    assert check(stub) == SERVING
    servicer.set("model", NOT_SERVING)
    assert check(stub, "model") == NOT_SERVING
    with pytest.raises(grpc.RpcError) as error:
        check(stub, "other")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_list(start):
    """With any release of grpcio-health-checking; older ones do not have it."""
    service = HealthService(["some.Service"])

    def add(server):
        server.add_registered_method_handlers("grpc.health.v1.Health", service.handlers())

    running = start(add)
    stub = health_pb2_grpc.HealthStub(running.channel)
    list_all = running.channel.unary_unary("/grpc.health.v1.Health/List")
    assert list_all(b"", timeout=TIMEOUT_S) == encode_list(
        {name: HealthStatus(check(stub, name)) for name in ("startup", "", "readiness", "some.Service", "liveness")}
    )


def test_health_watch(start, servicer):
    """Each change is sent until the caller leaves; then the servicer drops it."""
    running = start(lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server))
    stub = health_pb2_grpc.HealthStub(running.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="model"), timeout=TIMEOUT_S)
    assert next(watch).status == SERVICE_UNKNOWN
    for status in (SERVING, NOT_SERVING, SERVING):
        servicer.set("model", status)
        assert next(watch).status == status
    watch.cancel()
    assert wait_idle(running.server)
    forgotten = threading.Event()
    # The callback that drops the watch runs in the same thread, before this one.
    running.server._acceptor._blocking.serial.submit(forgotten.set)
    assert forgotten.wait(TIMEOUT_S)
    assert servicer._send_response_callbacks["model"] == set()


def test_watches_occupy_no_thread(start):
    """With one thread, health answers beside many watches, and all of them get a change."""
    servicer = health.HealthServicer(experimental_non_blocking=True)
    running = start(lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server), blocking_threads=1)
    stub = health_pb2_grpc.HealthStub(running.channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest(service=""), timeout=TIMEOUT_S) for _ in range(20)]
    assert [next(watch).status for watch in watches] == [SERVING] * 20
    assert check(stub) == SERVING
    servicer.enter_graceful_shutdown()
    assert [next(watch).status for watch in watches] == [NOT_SERVING] * 20


def test_limit_on_unary_calls_does_not_apply_to_health(start):
    """It is for callback handlers; probes must work under overload."""
    running = start(
        lambda server: health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server),
        max_inflight_unary=1,
    )
    held = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    call = running.held.next()
    assert running.fail("Held").code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert check(health_pb2_grpc.HealthStub(running.channel)) == SERVING
    call.reply(b"")
    held.result(TIMEOUT_S)


@pytest.mark.parametrize("service", ["grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection"])
def test_reflection(start, service):
    """Both names of the protocol; the messages are the same on the wire."""
    servicer = reflection.ReflectionServicer(["grpc.health.v1.Health"])

    def add(server):
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
        server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    "grpc.reflection.v1.ServerReflection",
                    {
                        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                            servicer.ServerReflectionInfo,
                            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
                            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
                        )
                    },
                )
            ]
        )

    ask = start(add).channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
    ]
    services, files = ask(iter(requests), timeout=TIMEOUT_S)
    assert [each.name for each in services.list_services_response.service] == ["grpc.health.v1.Health"]
    (file,) = files.file_descriptor_response.file_descriptor_proto
    assert descriptor_pb2.FileDescriptorProto.FromString(file).package == "grpc.health.v1"


def test_channelz(start):
    """The debugging service sees this server and counts the ends of its calls."""
    running = start(channelz.add_channelz_servicer, options=[("grpc.enable_channelz", 1)])
    for _ in range(37):
        running.call("CallbackUnaryUnary")
    assert wait_idle(running.server)
    stub = channelz_pb2_grpc.ChannelzStub(running.channel)
    counts = [(server.data.calls_started, server.data.calls_succeeded) for server in all_servers(stub)]
    # The query itself is a started call that has not ended.
    assert (38, 37) in counts


def all_servers(stub):
    """Yield the servers on all pages; calls that other tests reference keep theirs in the list."""
    start = 0
    while True:
        page = stub.GetServers(channelz_pb2.GetServersRequest(start_server_id=start), timeout=TIMEOUT_S)
        yield from page.server
        if page.end:
            return
        start = max(server.ref.server_id for server in page.server) + 1
