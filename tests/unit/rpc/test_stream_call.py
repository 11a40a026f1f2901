"""A stream on a fake core: order, flow control, and every way to the end."""

import threading

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.rpc.stream_call import BACKLOG_BYTES, BACKLOG_MESSAGES, CoreStreamCall
from tests.unit.rpc.fakes import Bench, sent_messages


class Listener:
    """Remembers what it was told."""

    def __init__(self):
        self.log = []

    def on_message(self, message):
        self.log.append(message)

    def on_half_close(self):
        self.log.append("half-close")

    def on_terminated(self):
        self.log.append("terminated")


class StreamBench(Bench):
    """A stream that is being listened to."""

    def __init__(self):
        super().__init__(CoreStreamCall)
        self.listener = Listener()
        self.call.serve(lambda call: self.listener)

    def sent(self):
        """Let the send in flight be done."""
        self.core.complete("SendMessage")

    def kinds_in_flight(self):
        return [batch.kinds for batch in self.core.in_flight if batch.kinds != ["ReceiveCloseOnServer"]]


@pytest.fixture
def bench():
    return StreamBench()


def test_one_receive_is_outstanding_however_often_it_is_asked_for(bench):
    """Rule 11: one outstanding receive is the flow control; ``read`` is idempotent while there is one."""
    bench.call.read()
    bench.call.read()
    assert bench.kinds_in_flight() == [["ReceiveMessage"]]
    bench.core.complete("ReceiveMessage", message=b"a")
    assert bench.listener.log == [b"a"]
    assert bench.kinds_in_flight() == []
    bench.call.read()
    assert bench.kinds_in_flight() == [["ReceiveMessage"]]


def test_nothing_is_read_unasked(bench):
    """Rule 11: without ``read`` the caller is held back."""
    assert bench.kinds_in_flight() == []


def test_one_send_is_in_flight_and_the_rest_queued_in_order(bench):
    """Rules 3 and 11: sends go one at a time; headers with the first of them."""
    for message in (b"a", b"b", b"c"):
        assert bench.call.send(message)
    assert bench.kinds_in_flight() == [["SendInitialMetadata", "SendMessage"]]
    bench.sent()
    assert bench.kinds_in_flight() == [["SendMessage"]]
    bench.sent()
    bench.sent()
    assert (bench.kinds_in_flight(), sent_messages(bench.core)) == ([], 3)


def test_the_status_goes_last(bench):
    """Rule 11: status after all queued messages, with the last of them in one batch."""
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


def test_a_status_alone(bench):
    """A stream may end with nothing sent."""
    assert bench.call.finish(grpc.StatusCode.NOT_FOUND, "no")
    assert bench.kinds_in_flight() == [["SendInitialMetadata", "SendStatusFromServer"]]
    assert not bench.call.finish()
    assert bench.codes == ["NOT_FOUND"]


def test_reply_is_one_final_batch(bench):
    """Rule 2 holds for unary methods served by this class too."""
    bench.call.finish(last_message=b"answer")
    assert bench.kinds_in_flight() == [["SendInitialMetadata", "SendMessage", "SendStatusFromServer"]]


def test_headers_go_once_and_first(bench):
    """``send_headers`` sends ahead of messages, and not again."""
    assert bench.call.send_headers((("a", "1"),))
    assert bench.kinds_in_flight() == [["SendInitialMetadata"]]
    assert not bench.call.send_headers((("a", "2"),))
    bench.call.send(b"x")
    bench.core.complete("SendInitialMetadata")
    assert bench.kinds_in_flight() == [["SendMessage"]]


def test_a_caller_that_does_not_read_is_not_read_from(bench):
    """Rule 11: above the backlog limit no receive is armed; it arms itself when enough has been sent."""
    for _ in range(BACKLOG_MESSAGES + 2):
        bench.call.send(b"x")
    bench.call.read()
    assert bench.core.find("ReceiveMessage") is None
    bench.sent()
    assert bench.core.find("ReceiveMessage") is not None


def test_the_backlog_is_bounded_in_bytes_too(bench):
    """A few large messages hold reading back as many small ones do."""
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


def test_half_close_is_told_once_and_ends_reading(bench):
    """No message and a call that is alive: the caller is done."""
    bench.call.read()
    bench.core.complete("ReceiveMessage", message=None)
    bench.loop.run_timers()
    bench.call.read()
    assert bench.listener.log == ["half-close"]
    assert bench.kinds_in_flight() == []


def test_a_cancel_is_not_taken_for_a_half_close(bench):
    """The core tells both by no message; the end of the call, which follows at once, makes the difference."""
    bench.call.read()
    bench.core.complete("ReceiveMessage", message=None)
    bench.core.complete("ReceiveCloseOnServer")
    bench.loop.run_timers()
    assert (bench.listener.log, bench.codes, bench.live.count) == (["terminated"], ["CANCELLED"], 0)


def test_an_end_without_our_status(bench):
    """Queued messages are dropped and the listener is told; then nothing is sent or read any more."""
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


def test_a_call_that_ends_while_its_status_waits(bench):
    """A finish that was claimed stays one; the status goes to the core all the same, which drops it."""
    bench.call.send(b"a")
    bench.call.send(b"b")
    bench.call.finish()
    bench.core.complete("ReceiveCloseOnServer")
    bench.core.complete("SendMessage", success=False)
    assert bench.kinds_in_flight() == [["SendStatusFromServer"]]
    bench.core.complete("SendStatusFromServer", success=False)
    assert (bench.live.count, bench.listener.log, bench.codes) == (0, [], ["OK"])


@pytest.mark.parametrize("operation", ["send", "finish", "read"])
def test_a_batch_that_does_not_start_does_not_hang_the_call(bench, operation):
    """Rule 3: on a non-zero code the call is cancelled and nothing is waited for."""
    bench.core.refuse = 1
    {"send": lambda: bench.call.send(b"x"), "finish": bench.call.finish, "read": bench.call.read}[operation]()
    assert bench.core.cancels == 1
    bench.loop.run_soon()
    bench.core.complete("ReceiveCloseOnServer")
    assert bench.live.count == 0


def test_a_send_that_does_not_start_lets_a_later_finish_through(bench):
    """Rule 3: the lost event must not keep the status back for ever."""
    bench.core.refuse = 1
    bench.call.send(b"x")
    bench.call.finish()
    bench.loop.run_soon()
    bench.core.complete("SendStatusFromServer", success=False)
    bench.core.complete("ReceiveCloseOnServer")
    assert bench.live.count == 0


def test_a_refused_message_is_reported(bench):
    """Rule 5: an oversize message fails its event, and the core answers."""
    bench.call.read()
    bench.core.complete("ReceiveMessage", success=False)
    bench.core.complete("ReceiveCloseOnServer")
    bench.loop.run_timers()
    assert (bench.codes, bench.listener.log) == (["RESOURCE_EXHAUSTED"], ["terminated"])


@pytest.mark.parametrize("where", ["open", "on_message", "on_half_close"])
def test_what_a_handler_raises_ends_the_stream(caplog, where):
    """The caller gets INTERNAL and a fixed text, the log gets the cause."""
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


def test_a_message_after_our_finish_is_not_delivered(bench):
    """The listener is done with the call by then."""
    bench.call.read()
    bench.call.finish()
    bench.core.complete("ReceiveMessage", message=b"late")
    assert bench.listener.log == []


def test_only_bytes_are_sent(bench):
    """The mistake shows where it is made."""
    with pytest.raises(TypeError, match="expected a message in bytes, got str"):
        bench.call.send("text")


def test_sends_from_many_threads_are_all_sent_once(bench):
    """Rule 6: any thread may send while another one's send is in flight."""
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
    """Whatever happens in whatever order: one end, one in flight of each kind, and in the end nothing is live."""
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
