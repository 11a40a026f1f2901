"""Flow control: the server stops receiving from a caller that does not read."""

import threading

import grpc
import pytest

from inferd.rpc import callback_stream
from tests.integration.rpc.support import SERVICE, TIMEOUT_S, Echo, Requests, open_stream

LARGE = 256 * 1024
#: Far more than all buffers on the way together.
MANY = 400


class Amplifier(Echo):
    """Answers each small request with a large message."""

    def on_message(self, message):
        self.received += 1
        self.call.send(bytes(LARGE))
        self.call.read()


@pytest.fixture
def amplifier(serve):
    opened = []
    running = serve({"Amplify": callback_stream(open_stream(Amplifier, opened))})
    running.opened = opened
    return running


def test_receiving_stops_and_resumes(amplifier):
    """The handler gets a bounded number of requests while the client does not read, and all in the end."""
    requests = Requests()
    for _ in range(MANY):
        requests.put(b"x")
    requests.put(None)
    answers = amplifier.channel.stream_stream(f"/{SERVICE}/Amplify")(iter(requests), timeout=3 * TIMEOUT_S)
    next(answers)
    # After these calls through the same poll thread, everything that could be read has been read.
    for _ in range(200):
        amplifier.call("CallbackUnaryUnary")
    (stream,) = amplifier.opened
    assert stream.received < MANY / 4
    assert sum(len(answer) == LARGE for answer in answers) == MANY - 1
    assert stream.received == MANY


def test_client_that_never_reads_may_leave(amplifier):
    """Its queued messages are dropped with the call."""
    requests = Requests()
    for _ in range(MANY):
        requests.put(b"x")
    answers = amplifier.channel.stream_stream(f"/{SERVICE}/Amplify")(iter(requests), timeout=TIMEOUT_S)
    next(answers)
    answers.cancel()
    (stream,) = amplifier.opened
    assert stream.terminated.wait(TIMEOUT_S)
    assert stream.call.waiting_messages == 0
    requests.put(None)


def test_blocking_generator_is_held_back_and_closed(serve):
    """It continues when its last answer was sent, and is closed when the client leaves."""
    produced = []
    closed = threading.Event()

    def endless(request, context):
        try:
            while True:
                produced.append(1)
                yield bytes(LARGE)
        finally:
            closed.set()

    running = serve({"Endless": grpc.unary_stream_rpc_method_handler(endless)})
    answers = running.channel.unary_stream(f"/{SERVICE}/Endless")(b"", timeout=TIMEOUT_S)
    next(answers)
    for _ in range(200):
        running.call("CallbackUnaryUnary")
    assert len(produced) < MANY / 4
    answers.cancel()
    assert closed.wait(TIMEOUT_S)


def test_blocking_handler_receives_on_demand(serve):
    """Requests stay in HTTP/2 windows until the handler takes them."""
    go_on = threading.Event()

    def slow(requests, context):
        first = next(requests)
        go_on.wait(TIMEOUT_S)
        return first + b"".join(requests)[:1]

    running = serve({"Slow": grpc.stream_unary_rpc_method_handler(slow)})
    requests = Requests()
    for _ in range(MANY):
        requests.put(bytes(LARGE))
    requests.put(None)
    future = running.channel.stream_unary(f"/{SERVICE}/Slow").future(iter(requests), timeout=3 * TIMEOUT_S)
    for _ in range(200):
        running.call("CallbackUnaryUnary")
    assert requests.taken < MANY / 4
    go_on.set()
    assert len(future.result()) == LARGE + 1
    assert requests.taken == MANY
