"""Express methods: their calls do not wait behind others to be accepted."""

import threading
import time

import grpc

from inferd.rpc import Server, callback_unary
from tests.integration.rpc.support import SERVICE, TIMEOUT_S, Running

EXPRESS = f"/{SERVICE}/CallbackUnaryUnary"
WAITING_CALLS = 200


def test_express_calls_overtake_others(serve):
    """Hundreds of calls occupy the poll thread; an express call that comes last is answered before all of them are."""
    permits = threading.Semaphore(0)

    def hold_up(call, message):
        permits.acquire(timeout=TIMEOUT_S)
        call.reply(message)

    running = serve({"HoldUp": callback_unary(hold_up)}, armed_calls=1, express_methods=[EXPRESS])
    waiting = [running.unary("HoldUp").future(b"", timeout=TIMEOUT_S) for _ in range(WAITING_CALLS)]
    answered = threading.Event()
    express = running.unary("CallbackUnaryUnary").future(b"healthy", timeout=TIMEOUT_S)
    express.add_done_callback(lambda _: answered.set())
    let_go = 0
    # The pause lets the calls arrive. A slow machine may answer some first, but in order it would be all.
    while not answered.wait(0.05) and let_go < WAITING_CALLS:
        permits.release()
        let_go += 1
    permits.release(WAITING_CALLS)
    assert express.result() == b"healthy"
    assert [call.result() for call in waiting] == [b""] * WAITING_CALLS
    assert let_go < WAITING_CALLS


def test_many_express_calls(serve):
    """Each requests the next one, so that none is lost, and nothing is left after the stop."""
    running = serve(express_methods=[EXPRESS])
    futures = [running.unary("CallbackUnaryUnary").future(b"%d" % i, timeout=TIMEOUT_S) for i in range(500)]
    assert [future.result() for future in futures] == [b"%d" % i for i in range(500)]
    assert running.server.stop(None).wait(TIMEOUT_S)


def test_every_kind_of_handler_may_be_express(serve):
    """Blocking, streaming, and none."""
    names = ["BlockingUnaryUnary", "CallbackStreamStream", "NoSuchMethod"]
    running = serve(express_methods=[f"/{SERVICE}/{name}" for name in names])
    assert running.call("BlockingUnaryUnary", b"x") == b"x"
    stream = running.channel.stream_stream(f"/{SERVICE}/CallbackStreamStream")(iter([b"1", b"2"]), timeout=TIMEOUT_S)
    assert list(stream) == [b"1", b"2"]
    assert running.fail("NoSuchMethod").code() is grpc.StatusCode.UNIMPLEMENTED


def test_express_call_has_its_deadline(serve):
    """The event names it although it does not name the method."""
    running = serve(express_methods=[f"/{SERVICE}/Held"])
    started_at = time.monotonic()
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    call = running.held.next()
    assert started_at < call.deadline < time.monotonic() + TIMEOUT_S + 1
    call.reply(b"")
    assert future.result() == b""


def test_open_express_call_may_finish_within_the_grace(serve):
    """Like any other call."""
    running = serve(express_methods=[f"/{SERVICE}/Held"])
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    call = running.held.next()
    stopped = running.server.stop(TIMEOUT_S)
    assert not stopped.is_set()
    assert call.reply(b"answer")
    assert future.result() == b"answer"
    assert stopped.wait(TIMEOUT_S)


def test_stop_of_a_server_with_express_methods_that_never_started():
    """It releases its port."""
    server = Server(express_methods=[EXPRESS])
    port = server.add_insecure_port("127.0.0.1:0")
    assert server.stop(None).wait(TIMEOUT_S)
    assert server.live_calls == 0
    again = Running(express_methods=[EXPRESS])
    assert again.server.add_insecure_port(f"127.0.0.1:{port}") == port
    again.start()
    assert again.call("CallbackUnaryUnary", b"x") == b"x"
    again.close()
