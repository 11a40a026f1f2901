"""The requests of a blocking handler, on a fake core."""

import pytest

from inferd.rpc.blocking import CallEndedError, RequestInbox
from inferd.rpc.stream_call import CoreStreamCall
from tests.unit.rpc.fakes import Bench


class InboxBench(Bench):
    """A call whose events arrive before the handler asks, so that nothing blocks."""

    def __init__(self):
        super().__init__(CoreStreamCall)
        self.inbox = RequestInbox(self.call, bytes.decode)
        self.call.listen(self.inbox)

    def message(self, message):
        self.call.read()
        self.core.complete("ReceiveMessage", message=message)
        self.loop.run_timers()


@pytest.fixture
def bench():
    return InboxBench()


def test_deserializes_messages(bench):
    """The handler gets the result of its converter."""
    bench.message(b"abc")
    assert next(bench.inbox) == "abc"


def test_half_close_ends_the_iteration(bench):
    """After the messages before it."""
    bench.message(None)
    assert list(bench.inbox) == []
    assert list(bench.inbox) == []


def test_end_is_no_half_close(bench):
    """A handler must not take a cancelled stream for a complete one."""
    bench.call.end.callbacks.clear()  # as if the end were recorded and its callbacks had not run
    bench.core.complete("ReceiveCloseOnServer")
    with pytest.raises(CallEndedError):
        next(bench.inbox)


def test_end_precedes_a_message(bench):
    """No caller waits for the result."""
    bench.message(b"abc")
    bench.core.complete("ReceiveCloseOnServer")
    with pytest.raises(CallEndedError):
        bench.inbox.next()


def test_wait_until_sent(bench):
    """True once the outbox is empty, False once the call has ended."""
    bench.call.send(b"in flight")
    assert bench.inbox.wait_until_sent()
    bench.call.send(b"waits")
    bench.core.complete("ReceiveCloseOnServer")
    assert not bench.inbox.wait_until_sent()
