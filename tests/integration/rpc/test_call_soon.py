"""What other threads leave to the poll thread."""

import threading

from tests.integration.rpc.support import TIMEOUT_S


def test_another_thread_leaves_answers_to_the_poll_thread(running):
    """The server sleeps, as nothing happens on any connection, and is woken for it."""
    calls = [running.unary("Held").future(b"x", timeout=TIMEOUT_S) for _ in range(4)]
    held = [running.held.next() for _ in calls]
    answered_by = []

    def answer():
        answered_by.append(threading.current_thread())
        for call in held:
            call.reply(b"later")

    running.server.poll_loop.call_soon(answer)
    assert [call.result() for call in calls] == [b"later"] * 4
    assert answered_by[0].name.startswith("inferd-rpc")


def test_nothing_is_called_once_the_server_has_stopped(running):
    """A worker may be slower than the stop, and must not bring anything down."""
    assert running.call("CallbackUnaryUnary") == b"hello"
    running.server.stop(None).wait(TIMEOUT_S)
    assert not running.server.wait_for_termination(TIMEOUT_S)
    called = []
    running.server.poll_loop.call_soon(lambda: called.append(1))
    assert called == []
