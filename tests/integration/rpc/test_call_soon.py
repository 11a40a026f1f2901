"""Callbacks on the poll thread from other threads."""

import threading

from tests.integration.rpc.support import TIMEOUT_S


def test_call_soon_from_another_thread(running):
    """It wakes the sleeping server."""
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


def test_calls_nothing_after_the_stop(running):
    """A worker may still call it."""
    assert running.call("CallbackUnaryUnary") == b"hello"
    running.server.stop(None).wait(TIMEOUT_S)
    assert not running.server.wait_for_termination(TIMEOUT_S)
    called = []
    running.server.poll_loop.call_soon(lambda: called.append(1))
    assert called == []
