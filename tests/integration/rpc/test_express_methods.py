"""Methods with a line of their own: their calls do not wait behind others to be accepted."""

import threading
import time

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2

from inferd.rpc import Server, callback_unary
from tests.integration.rpc.support import SERVICE, TIMEOUT_S, Running

EXPRESS = f"/{SERVICE}/CallbackUnaryUnary"
WAITING_CALLS = 200


def _servers(servicer):
    """The ids of all servers of this process; some of other tests may not be gone yet."""
    first = 0
    while True:
        page = servicer.GetServers(channelz_pb2.GetServersRequest(start_server_id=first), None)
        for server in page.server:
            yield server.ref.server_id
            first = server.ref.server_id + 1
        if page.end:
            return


def _calls_that_came():
    """How many calls have reached the core, accepted or not."""
    servicer = channelz.ChannelzServicer()
    count = 0
    for server_id in _servers(servicer):
        sockets = servicer.GetServerSockets(channelz_pb2.GetServerSocketsRequest(server_id=server_id), None).socket_ref
        requests = [channelz_pb2.GetSocketRequest(socket_id=socket.socket_id) for socket in sockets]
        count += sum(servicer.GetSocket(request, None).socket.data.streams_started for request in requests)
    return count


def _let_go_until_came(permits, count):
    """Wait for ``count`` calls; where the poll thread itself reads them, it must go on a little for that."""
    until = time.monotonic() + TIMEOUT_S
    pause = threading.Event()
    while _calls_that_came() < count:
        assert time.monotonic() < until, "the calls did not come"
        permits.release()
        pause.wait(0.005)


def test_express_calls_overtake_those_that_wait(serve):
    """While the poll thread is held up, hundreds come, and one express call behind them; it is among the first."""
    permits = threading.Semaphore(0)

    def hold_up(call, message):
        permits.acquire(timeout=TIMEOUT_S)
        call.reply(message)

    running = serve(
        {"HoldUp": callback_unary(hold_up)},
        armed_calls=1,
        express_methods=[EXPRESS],
        options=[("grpc.enable_channelz", 1)],
    )
    assert running.call("CallbackUnaryUnary", b"connected") == b"connected"
    came = _calls_that_came()
    waiting = [running.unary("HoldUp").future(b"", timeout=TIMEOUT_S) for _ in range(WAITING_CALLS)]
    express = running.unary("CallbackUnaryUnary").future(b"healthy", timeout=TIMEOUT_S)
    _let_go_until_came(permits, came + WAITING_CALLS + 1)
    permits.release(WAITING_CALLS)
    assert express.result() == b"healthy"
    assert [call.result() for call in waiting] == [b""] * WAITING_CALLS
    methods = [call.method for call in running.recorder.calls[1:]]
    assert len(methods) == WAITING_CALLS + 1
    assert methods.index(EXPRESS) < WAITING_CALLS / 2


def test_many_express_calls(serve):
    """They are armed again as they come, so that none is lost; and nothing is left at the stop."""
    running = serve(express_methods=[EXPRESS])
    futures = [running.unary("CallbackUnaryUnary").future(b"%d" % i, timeout=TIMEOUT_S) for i in range(500)]
    assert [future.result() for future in futures] == [b"%d" % i for i in range(500)]
    assert running.server.stop(None).wait(TIMEOUT_S)


def test_any_kind_of_handler_may_be_express(serve):
    """One that blocks, one that streams, and none at all."""
    names = ["BlockingUnaryUnary", "CallbackStreamStream", "NoSuchMethod"]
    running = serve(express_methods=[f"/{SERVICE}/{name}" for name in names])
    assert running.call("BlockingUnaryUnary", b"x") == b"x"
    stream = running.channel.stream_stream(f"/{SERVICE}/CallbackStreamStream")(iter([b"1", b"2"]), timeout=TIMEOUT_S)
    assert list(stream) == [b"1", b"2"]
    assert running.fail("NoSuchMethod").code() is grpc.StatusCode.UNIMPLEMENTED


def test_an_express_call_has_its_deadline(serve):
    """The core tells it although it does not tell the method."""
    running = serve(express_methods=[f"/{SERVICE}/Held"])
    started_at = time.monotonic()
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    call = running.held.next()
    assert started_at < call.deadline < time.monotonic() + TIMEOUT_S + 1
    call.reply(b"")
    assert future.result() == b""


def test_an_open_express_call_may_finish_within_the_grace(serve):
    """As any other."""
    running = serve(express_methods=[f"/{SERVICE}/Held"])
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    call = running.held.next()
    stopped = running.server.stop(TIMEOUT_S)
    assert not stopped.is_set()
    assert call.reply(b"answer")
    assert future.result() == b"answer"
    assert stopped.wait(TIMEOUT_S)


def test_a_server_with_express_methods_that_never_started():
    """It stops at once, and gives back its port."""
    server = Server(express_methods=[EXPRESS])
    port = server.add_insecure_port("127.0.0.1:0")
    assert server.stop(None).wait(TIMEOUT_S)
    assert server.live_calls == 0
    again = Running(express_methods=[EXPRESS])
    assert again.server.add_insecure_port(f"127.0.0.1:{port}") == port
    again.start()
    assert again.call("CallbackUnaryUnary", b"x") == b"x"
    again.close()
