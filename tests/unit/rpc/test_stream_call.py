"""A stream on a fake core: order, flow control, and every way to the end."""

import threading

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.rpc import core
from inferd.rpc.stream_call import BACKLOG_BYTES, BACKLOG_MESSAGES, CoreStreamCall
from tests.unit.rpc.fakes import Bench, sent_messages


class Listener:
    """Records its events."""

    def __init__(self):
        self.log = []

    def on_message(self, message):
        self.log.append(message)

    def on_half_close(self):
        self.log.append("half-close")

    def on_terminated(self):
        self.log.append("terminated")


class StreamBench(Bench):
    """A stream with a listener."""

    def __init__(self):
        super().__init__(CoreStreamCall)
        self.listener = Listener()
        self.call.serve(lambda call: self.listener)

    def sent(self):
        """Complete the send in flight."""
        self.core.complete("SendMessage")

    def kinds_in_flight(self):
        return [batch.kinds for batch in self.core.in_flight if batch.kinds != ["ReceiveCloseOnServer"]]


@pytest.fixture
def bench():
    return StreamBench()


def test_one_receive_is_in_flight(bench):
    """``read`` is idempotent until its message has come: that is the flow control."""
    bench.call.read()
    bench.call.read()
    assert bench.kinds_in_flight() == [["ReceiveMessage"]]
    bench.core.complete("ReceiveMessage", message=b"a")
    assert bench.listener.log == [b"a"]
    assert bench.kinds_in_flight() == []
    bench.call.read()
    assert bench.kinds_in_flight() == [["ReceiveMessage"]]


def test_receives_only_after_read(bench):
    """Without ``read`` flow control stops the caller."""
    assert bench.kinds_in_flight() == []


def test_one_send_is_in_flight_and_the_rest_queued(bench):
    """In order; headers with the first."""
    for message in (b"a", b"b", b"c"):
        assert bench.call.send(message)
    assert bench.kinds_in_flight() == [["SendInitialMetadata", "SendMessage"]]
    bench.sent()
    assert bench.kinds_in_flight() == [["SendMessage"]]
    bench.sent()
    bench.sent()
    assert (bench.kinds_in_flight(), sent_messages(bench.core)) == ([], 3)


def test_status_is_sent_last(bench):
    """After all queued messages, in one batch with the last."""
    bench.call.send(b"a")
    bench.call.send(b"b")
    assert bench.call.finish()
    assert not bench.call.send(b"late")
    assert bench.kinds_in_flight() == [["SendInitialMetadata", "SendMessage"]]
    bench.sent()
    assert bench.kinds_in_flight() == [["SendMessage", "SendStatusFromServer"]]
    bench.sent()
    bench.core.complete("ReceiveCloseOnServer")
    assert (bench.codes, bench.live.count, bench.listener.log) == (["OK"], 0, [])


@pytest.mark.parametrize("answer", ["send", "finish"])
def test_message_that_the_core_would_refuse(bench, monkeypatch, answer):
    """It ends the stream after the messages before it, with the status that the caller gets."""
    monkeypatch.setattr(core, "MOST_MESSAGE_BYTES", 8)
    bench.call.send(b"fits")
    if answer == "send":
        assert not bench.call.send(b"too large")
    else:
        bench.call.finish(last_message=b"too large")
    bench.sent()
    assert bench.kinds_in_flight() == [["SendStatusFromServer"]]
    assert bench.codes == ["RESOURCE_EXHAUSTED"]


def test_status_without_messages(bench):
    """A stream may end without any message."""
    assert bench.call.finish(grpc.StatusCode.NOT_FOUND, "no")
    assert bench.kinds_in_flight() == [["SendInitialMetadata", "SendStatusFromServer"]]
    assert not bench.call.finish()
    assert bench.codes == ["NOT_FOUND"]


def test_last_message_and_status_are_one_batch(bench):
    """As for unary calls."""
    bench.call.finish(last_message=b"answer")
    assert bench.kinds_in_flight() == [["SendInitialMetadata", "SendMessage", "SendStatusFromServer"]]


def test_sends_headers_once_and_first(bench):
    """``send_headers`` precedes messages."""
    assert bench.call.send_headers((("a", "1"),))
    assert bench.kinds_in_flight() == [["SendInitialMetadata"]]
    assert not bench.call.send_headers((("a", "2"),))
    bench.call.send(b"x")
    bench.core.complete("SendInitialMetadata")
    assert bench.kinds_in_flight() == [["SendMessage"]]


def test_stops_receiving_above_the_backlog(bench):
    """And resumes when enough has been sent."""
    for _ in range(BACKLOG_MESSAGES + 2):
        bench.call.send(b"x")
    bench.call.read()
    assert bench.core.find("ReceiveMessage") is None
    bench.sent()
    assert bench.core.find("ReceiveMessage") is not None


def test_backlog_is_bounded_in_bytes(bench):
    """A few large messages stop receiving like many small ones."""
    bench.call.send(b"in flight")
    bench.call.send(bytes(BACKLOG_BYTES))
    bench.call.read()
    assert bench.core.find("ReceiveMessage") is not None
    bench.core.complete("ReceiveMessage", message=b"a")
    bench.call.send(b"x")
    bench.call.read()
    assert bench.core.find("ReceiveMessage") is None
    bench.sent()
    assert bench.core.find("ReceiveMessage") is not None


def test_half_close_ends_receiving(bench):
    """The listener is notified once."""
    bench.call.read()
    bench.core.complete("ReceiveMessage", message=None)
    bench.loop.run_timers()
    bench.call.read()
    assert bench.listener.log == ["half-close"]
    assert bench.kinds_in_flight() == []


def test_cancel_is_no_half_close(bench):
    """The core reports both as a receive without a message; the close event that follows distinguishes them."""
    bench.call.read()
    bench.core.complete("ReceiveMessage", message=None)
    bench.core.complete("ReceiveCloseOnServer")
    bench.loop.run_timers()
    assert (bench.listener.log, bench.codes, bench.live.count) == (["terminated"], ["CANCELLED"], 0)


def test_end_without_our_status(bench):
    """Queued messages are dropped, the listener is notified, and nothing is sent or received any more."""
    bench.call.send(b"a")
    bench.call.send(b"b")
    bench.core.complete("ReceiveCloseOnServer")
    assert bench.live.count == 1
    bench.core.complete("SendMessage", success=False)
    assert (bench.live.count, bench.listener.log, bench.codes) == (0, ["terminated"], ["CANCELLED"])
    bench.call.read()
    assert not bench.call.send(b"c")
    assert not bench.call.finish()
    assert bench.core.in_flight == []


def test_end_while_the_status_is_queued(bench):
    """The claim of ``finish`` holds; the core drops the status."""
    bench.call.send(b"a")
    bench.call.send(b"b")
    bench.call.finish()
    bench.core.complete("ReceiveCloseOnServer")
    bench.core.complete("SendMessage", success=False)
    assert bench.kinds_in_flight() == [["SendStatusFromServer"]]
    bench.core.complete("SendStatusFromServer", success=False)
    assert (bench.live.count, bench.listener.log, bench.codes) == (0, [], ["OK"])


def test_on_unregistered_runs_once(bench):
    """When the call is no longer live, however it ended."""
    retired = []
    bench.call.read()
    bench.call.on_unregistered = lambda: retired.append(bench.live.count)
    bench.core.complete("ReceiveCloseOnServer")
    bench.core.complete("ReceiveMessage")
    assert retired == [0]


@pytest.mark.parametrize("operation", ["send", "finish", "read"])
def test_refused_batch_cancels_the_call(bench, operation):
    """Its event never arrives, so the call must not wait for it."""
    bench.core.refuse = 1
    {"send": lambda: bench.call.send(b"x"), "finish": bench.call.finish, "read": bench.call.read}[operation]()
    assert bench.core.cancels == 1
    bench.loop.run_soon()
    bench.core.complete("ReceiveCloseOnServer")
    assert bench.live.count == 0


def test_finish_after_a_refused_send(bench):
    """The lost event must not hold back the status."""
    bench.core.refuse = 1
    bench.call.send(b"x")
    bench.call.finish()
    bench.loop.run_soon()
    bench.core.complete("SendStatusFromServer", success=False)
    bench.core.complete("ReceiveCloseOnServer")
    assert bench.live.count == 0


def test_message_rejected_by_the_core(bench):
    """An oversize message fails its event, and the core answers."""
    bench.call.read()
    bench.core.complete("ReceiveMessage", success=False)
    bench.core.complete("ReceiveCloseOnServer")
    bench.loop.run_timers()
    assert (bench.codes, bench.listener.log) == (["RESOURCE_EXHAUSTED"], ["terminated"])


@pytest.mark.parametrize("where", ["open", "on_message", "on_half_close"])
def test_exception_of_the_handler_is_internal(caplog, where):
    """The caller gets a fixed text, the log the cause."""
    bench = Bench(CoreStreamCall)

    class Failing(Listener):
        pass

    def fail(*_):
        raise RuntimeError("secret")

    if where != "open":
        setattr(Failing, where, fail)
    bench.call.serve(fail if where == "open" else lambda call: Failing())
    if where != "open":
        bench.call.read()
        bench.core.complete("ReceiveMessage", message=b"x" if where == "on_message" else None)
        bench.loop.run_timers()
    assert bench.recorder.ends == [(grpc.StatusCode.INTERNAL, "internal error")]
    assert "secret" in caplog.text


def test_drops_message_after_finish(bench):
    """The listener expects no more."""
    bench.call.read()
    bench.call.finish()
    bench.core.complete("ReceiveMessage", message=b"late")
    assert bench.listener.log == []


def test_sends_bytes_only(bench):
    """Anything else raises TypeError."""
    with pytest.raises(TypeError, match="expected a message in bytes, got str"):
        bench.call.send("text")


def test_many_threads_may_send(bench):
    """While a send of another thread is in flight."""
    barrier = threading.Barrier(4)

    def send():
        barrier.wait()
        for _ in range(50):
            bench.call.send(b"x")

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while bench.core.find("SendMessage"):
        bench.sent()
    assert sent_messages(bench.core) == 200


ACTIONS = ["read", "send", "finish", "message", "no message", "sent", "failed", "close", "queued"]


@given(st.lists(st.sampled_from(ACTIONS), max_size=25))
def test_any_order_of_events_ends_once(actions):
    """One end is reported, one batch of each kind is in flight, and no call is left live."""
    bench = StreamBench()
    accepted = 0
    for action in actions:
        if action == "read":
            bench.call.read()
        elif action == "send":
            accepted += bench.call.send(b"x")
        elif action == "finish":
            bench.call.finish()
        elif action in ("message", "no message") and bench.core.find("ReceiveMessage"):
            bench.core.complete("ReceiveMessage", message=b"x" if action == "message" else None)
        elif action in ("sent", "failed"):
            complete_send(bench, success=action == "sent")
        elif action == "close" and bench.core.find("ReceiveCloseOnServer"):
            bench.core.complete("ReceiveCloseOnServer")
        elif action == "queued":
            bench.loop.run_timers()
    if bench.core.find("ReceiveCloseOnServer"):
        bench.core.complete("ReceiveCloseOnServer")
    if bench.core.find("ReceiveMessage"):
        bench.core.complete("ReceiveMessage")
    while complete_send(bench, success=False):
        pass
    bench.loop.run_timers()
    assert len(bench.codes) == 1
    assert bench.live.count == 0
    assert bench.core.in_flight == []
    assert sent_messages(bench.core) <= accepted
    assert bench.listener.log.count("terminated") + bench.listener.log.count("half-close") <= 2


def complete_send(bench, *, success):
    for kind in ("SendMessage", "SendStatusFromServer", "SendInitialMetadata"):
        if bench.core.find(kind):
            bench.core.complete(kind, success=success)
            return True
    return False
