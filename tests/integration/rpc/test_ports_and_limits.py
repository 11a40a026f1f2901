"""Addresses, options, and calls above the limits."""

import threading
from functools import partial

import grpc
import pytest

from inferd.rpc import Rejection, Server, callback_unary
from tests.integration.rpc.support import SERVICE, TIMEOUT_S, Held, Recorder, Running, wait_idle

CREDENTIALS = grpc.local_server_credentials()
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def stop(*servers):
    for server in servers:
        server.stop(None)


def test_port_0_binds_a_free_port():
    """It is returned."""
    first, second = Server(), Server()
    ports = {first.add_insecure_port("127.0.0.1:0"), second.add_insecure_port("127.0.0.1:0")}
    assert len(ports - {0}) == 2
    stop(first, second)


@pytest.mark.parametrize("secure", [False, True])
def test_taken_port_is_an_error(running, secure):
    """Naming the address. Two servers on one port would share its connections."""
    server = Server()
    bind = partial(server.add_secure_port, server_credentials=CREDENTIALS) if secure else server.add_insecure_port
    with pytest.raises(RuntimeError, match=rf"cannot listen on 127\.0\.0\.1:{running.port}: Address already in use"):
        bind(running.address)
    stop(server)


def test_several_servers_on_one_port_on_request():
    """Given options override the defaults."""
    first, second = (Server(options=[("grpc.so_reuseport", 1)]) for _ in range(2))
    port = first.add_insecure_port("127.0.0.1:0")
    assert second.add_insecure_port(f"127.0.0.1:{port}") == port
    stop(first, second)


def test_address_of_another_machine_is_an_error():
    """The error names it."""
    server = Server()
    with pytest.raises(RuntimeError, match=r"cannot listen on 203\.0\.113\.1:1: Cannot assign requested address"):
        server.add_insecure_port("203.0.113.1:1")
    stop(server)


@pytest.mark.parametrize("kind", ["unix:", "unix://", "unix-abstract:"])
def test_unix_socket(tmp_path, kind):
    """A second server fails, with the address and the reason, and the first one serves on."""
    address = f"{kind}{tmp_path}/server.sock"
    first, second = Server(), Server()
    first.add_registered_method_handlers(SERVICE, {"Echo": callback_unary(lambda call, message: call.reply(message))})
    first.add_insecure_port(address)
    first.start()
    with pytest.raises(RuntimeError, match=rf"cannot listen on {address}: (another server listens there|it is taken)"):
        second.add_insecure_port(address)
    stop(second)
    with grpc.insecure_channel(address) as channel:
        assert channel.unary_unary(f"/{SERVICE}/Echo")(b"x", timeout=TIMEOUT_S) == b"x"
    stop(first)
    assert list(tmp_path.iterdir()) == []


def test_unix_socket_does_not_replace_a_file(tmp_path):
    """A path that is no socket is kept."""
    (tmp_path / "precious").write_text("x")
    server = Server()
    with pytest.raises(RuntimeError, match="precious: the path exists and is not a socket"):
        server.add_insecure_port(f"unix:{tmp_path}/precious")
    stop(server)
    assert (tmp_path / "precious").read_text() == "x"


def test_rejects_ports_after_the_start(running):
    """They would silently not be served."""
    with pytest.raises(RuntimeError, match="was started before"):
        running.server.add_insecure_port("127.0.0.1:0")


def test_starts_once(running):
    """The second start raises, and the server serves on."""
    with pytest.raises(ValueError, match="started once only"):
        running.server.start()
    assert running.call("CallbackUnaryUnary", b"x") == b"x"


@pytest.mark.parametrize("name", ["armed_calls", "blocking_threads", "max_inflight_unary"])
def test_rejects_numbers_below_1(name):
    """The error names the argument, the bound and the value."""
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        Server(**{name: 0})


def test_is_a_grpc_server_without_grpc_server(monkeypatch):
    """Patches of ``grpc.server`` do not affect it."""
    monkeypatch.setattr(grpc, "server", None)
    running = Running().start()
    assert isinstance(running.server, grpc.Server)
    assert running.call("CallbackUnaryUnary", b"x") == b"x"
    running.close()


def test_registered_methods(serve):
    """Generated code calls ``add_registered_method_handlers``; such handlers precede others."""
    running = Running()
    running.server.add_registered_method_handlers(
        SERVICE, {"CallbackUnaryUnary": callback_unary(lambda call, message: call.reply(b"registered"))}
    )
    running.start()
    assert running.call("CallbackUnaryUnary") == b"registered"
    running.close()


@pytest.mark.parametrize("armed_calls", [1, 128])
def test_many_calls_at_once(serve, armed_calls):
    """The next call is requested before one is handled, so that none is lost."""
    running = serve(armed_calls=armed_calls)
    futures = [running.unary("CallbackUnaryUnary").future(b"%d" % i, timeout=TIMEOUT_S) for i in range(500)]
    assert [future.result() for future in futures] == [b"%d" % i for i in range(500)]


def test_rejects_overload_with_a_pushback(serve):
    """Above the limit at once, with a retry delay; each admitted call is answered."""
    running = serve(max_inflight_unary=3)
    admitted = [running.unary("Held").future(b"", timeout=TIMEOUT_S) for _ in range(3)]
    calls = [running.held.next() for _ in admitted]
    refused = [running.unary("Held").future(b"", timeout=TIMEOUT_S) for _ in range(20)]
    assert {future.code() for future in refused} == {RESOURCE_EXHAUSTED}
    assert all(("grpc-retry-pushback-ms", "100") in future.trailing_metadata() for future in refused)
    assert running.call("BlockingUnaryUnary", b"x") == b"x"
    for call in calls:
        assert call.reply(b"")
    assert [future.result() for future in admitted] == [b""] * 3
    assert wait_idle(running.server)
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    running.held.next().reply(b"room")
    assert future.result() == b"room"


def test_core_rejects_streams_above_the_connection_limit(serve):
    """Above ``grpc.max_concurrent_streams``, with a status that clients may retry."""
    held, release = Held(), threading.Event()

    def hold_until_released(call, message):
        if release.is_set():
            call.reply(b"")
        else:
            held(call, message)

    running = serve({"Hold": callback_unary(hold_until_released)}, options=[("grpc.max_concurrent_streams", 4)])
    running.call("CallbackUnaryUnary")
    futures = [running.unary("Hold").future(b"", timeout=TIMEOUT_S) for _ in range(12)]
    calls = [held.next() for _ in range(4)]
    assert running.server.live_calls == 4
    release.set()
    for call in calls:
        assert call.reply(b"")
    assert sum(future.code() is grpc.StatusCode.OK for future in futures) >= 4
    assert {future.code() for future in futures} <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}


def test_rejection_of_an_interceptor_is_reported_once(serve):
    """The call ends with that status and is not handled."""

    class Refusing(Recorder):
        def started(self, call):
            return Rejection(grpc.StatusCode.UNAUTHENTICATED, "who are you?", (("www", "x"),))

    refusing = Refusing()
    running = serve(interceptors=[refusing])
    for method in ("Held", "CallbackStreamStream", "BlockingUnaryUnary", "NoSuchMethod"):
        error = running.fail(method)
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        assert ("www", "x") in error.trailing_metadata()
        assert running.recorder.next_code() is grpc.StatusCode.UNAUTHENTICATED
        assert refusing.next_code() is grpc.StatusCode.UNAUTHENTICATED
    assert running.recorder.ends.empty()
    assert running.held.calls.empty()
    assert running.opened == []


def test_reports_the_end_before_the_status_is_sent(serve):
    """A caller with an answer finds it counted."""
    ended = threading.Event()

    class Watching(Recorder):
        def finished(self, call, code, details):
            ended.set()

    running = serve(interceptors=[Watching()])
    running.call("CallbackUnaryUnary")
    assert ended.is_set()
